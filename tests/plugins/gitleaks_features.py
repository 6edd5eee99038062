"""Every feature of gitleaks' rule files: what a scan of small files tells with it and without.

Each row was held against gitleaks 8.30.1 (``tests/differential/test_gitleaks.py`` does it
again where that program is there). Source: its README, "Configuration".
"""

from __future__ import annotations

from dataclasses import dataclass, field

RULE = '[[rules]]\nid = "tok"\nregex = "tok_([a-z0-9]{8})"\n'
OTHER = '[[rules]]\nid = "tik"\nregex = "tik_([a-z0-9]{8})"\n'
PEM = '[[rules]]\nid = "pem"\nregex = "(?s)BEGIN(.{1,40})END"\n'
PAIR = '[[rules]]\nid = "key"\nregex = "key_[a-z]{4}"\n'
PART = '[[rules]]\nid = "part"\nregex = "id_[0-9]{4}"\n'
ONE = {"a": "tok_abcd1234\n"}


@dataclass(frozen=True)
class Feature:
    """``told`` and ``otherwise`` are ``FILE:RULE:LINE``, with ``feature`` and without it.

    ``more`` are further rule files. A line of 0 is the name of the file.
    """

    feature: str
    files: dict[str, str]
    told: set[str]
    otherwise: set[str]
    rules: str = RULE
    before: str = ""
    more: dict[str, str] = field(default_factory=dict)

    def text(self, *, used: bool) -> str:
        """Return the rule file, with the feature or without."""
        return f"{self.before}{self.rules}{self.feature}" if used else self.rules


def _on_a(feature: str, **more: object) -> Feature:
    """Return a feature that lets go of the one secret in ``a``."""
    return Feature(feature, ONE, set(), {"a:tok:1"}, **more)  # type: ignore[arg-type]


def _allowing(checks: str, files: dict[str, str], kept: set[str]) -> dict[str, Feature]:
    """Return one allowlist of one rule, of all rules, and of named rules."""
    everything = {f"{name}:tok:1" for name in files}
    where = {
        "of the rule": "[[rules.allowlists]]\n",
        "of all rules": "[[allowlists]]\n",
        "of targetRules": '[[allowlists]]\ntargetRules = ["tok"]\n',
    }
    return {place: Feature(head + checks, files, kept, everything) for place, head in where.items()}


_ALLOWLISTS = {
    "regexes of the secret": ("regexes = ['''^abcd''']", ONE, set[str]()),
    "regexes not of the match": ("regexes = ['''^tok''']", ONE, {"a:tok:1"}),
    "regexTarget match": ("regexTarget = 'match'\nregexes = ['''^tok''']", ONE, set[str]()),
    "regexTarget line": (
        "regexTarget = 'line'\nregexes = ['''fixture$''']",
        {"a": "tok_abcd1234 # fixture\n", "b": "tok_abcd1234\n# fixture\n"},
        {"b:tok:1"},
    ),
    "paths": (
        "paths = ['''^vendor/''']",
        {"a": "tok_abcd1234\n", "vendor/a": "tok_abcd1234\n"},
        {"a:tok:1"},
    ),
    "stopwords in any case": ("stopwords = ['BCD']", ONE, set[str]()),
    "stopwords not of the match": ("stopwords = ['tok_']", ONE, {"a:tok:1"}),
    "OR": (
        "paths = ['''^v''']\nstopwords = ['zzz']",
        {"a": "tok_abcd1234\n", "v": "tok_abcd1234\n", "w": "tok_zzzz1234\n"},
        {"a:tok:1"},
    ),
    "commits, of no file": ("commits = ['abcd']", ONE, {"a:tok:1"}),
    "commits with AND, of no file": (
        "condition = 'AND'\ncommits = ['abcd']\nstopwords = ['abcd']", ONE, {"a:tok:1"},
    ),
}  # fmt: skip

FEATURES: dict[str, Feature] = {
    "keywords": Feature(
        "keywords = ['AcMe', 'other']",
        {"a": "tok_abcd1234\n", "b": "ACME\n\n\ntok_abcd1234\n"},
        {"b:tok:4"}, {"a:tok:1", "b:tok:4"},
    ),
    "keywords are not of the name": Feature(
        "keywords = ['acme']", {"acme": "tok_abcd1234\n"}, set(), {"acme:tok:1"},
    ),
    "entropy must be exceeded": _on_a("entropy = 3.0"),
    "entropy that is exceeded": Feature(
        "entropy = 2.9", ONE | {"b": "tok_aaaaaaab\n"}, {"a:tok:1"}, {"a:tok:1", "b:tok:1"},
    ),
    "secretGroup, by its entropy": Feature(
        "secretGroup = 2", {"a": "k=aaaaaaaa-abcdefgh\n"}, {"a:two:1"}, set(),
        rules='[[rules]]\nid = "two"\nregex = "k=(a+)-([a-h]+)"\nentropy = 2.0\n',
    ),
    "path beside a regex": Feature(
        "path = '''\\.env$'''", {"x.env": "tok_abcd1234\n", "x.txt": "tok_abcd1234\n"},
        {"x.env:tok:1"}, {"x.env:tok:1", "x.txt:tok:1"},
    ),
    "path alone": Feature(
        "[[rules]]\nid = 'p'\npath = '''\\.p12$'''", {"x.p12": "x\n", "p12": "tok_abcd1234\n"},
        {"x.p12:p:0", "p12:tok:1"}, {"p12:tok:1"},
    ),
    "keywords of a path alone": Feature(
        "keywords = ['Here']", {"x.p12": "x\n", "y.p12": "here\n"},
        {"y.p12:p:0"}, {"x.p12:p:0", "y.p12:p:0"}, rules="[[rules]]\nid='p'\npath='[.]p12$'\n",
    ),
    "skipReport": _on_a("skipReport = true"),
    "AND": Feature(
        "[[rules.allowlists]]\ncondition = 'AND'\npaths = ['''^v''']\nstopwords = ['zzz']",
        {"a": "tok_zzzz1234\n", "v": "tok_abcd1234\n", "w/v": "tok_zzzz1234\n",
         "v2": "tok_zzzz1234\n"},
        {"a:tok:1", "v:tok:1", "w/v:tok:1"}, {"a:tok:1", "v:tok:1", "w/v:tok:1", "v2:tok:1"},
    ),
    "AND of targetRules, as &&": Feature(
        "[[allowlists]]\ntargetRules = ['tok']\ncondition = '&&'\npaths = ['''^v''']\n"
        "regexes = ['zzz']",
        {"a": "tok_zzzz1234\n", "v": "tok_abcd1234\n", "v2": "tok_zzzz1234\n"},
        {"a:tok:1", "v:tok:1"}, {"a:tok:1", "v:tok:1", "v2:tok:1"},
    ),
    "several allowlists": Feature(
        "[[rules.allowlists]]\nstopwords = ['aaa']\n[[rules.allowlists]]\nstopwords = ['bbb']",
        {"a": "tok_aaaa1234\n", "b": "tok_bbbb1234\n", "c": "tok_cccc1234\n"},
        {"c:tok:1"}, {"a:tok:1", "b:tok:1", "c:tok:1"},
    ),
    "targetRules are not the others": Feature(
        "[[allowlists]]\ntargetRules = ['tok']\nstopwords = ['abcd']",
        {"a": "tok_abcd1234 tik_abcd1234\n"},
        {"a:tik:1"}, {"a:tok:1", "a:tik:1"}, rules=RULE + OTHER,
    ),
    "the old allowlist of all rules": _on_a("[allowlist]\nstopwords = ['abcd']"),
    "the old allowlist of a rule": _on_a("[rules.allowlist]\nstopwords = ['abcd']"),
    "the lines of a match, not only one": Feature(
        "[[rules.allowlists]]\nregexTarget = 'line'\nregexes = ['last$']",
        {"a": "first BEGIN\nabc\nEND last\n", "b": "first BEGIN\nabc\nEND\n"},
        {"b:pem:1"}, {"a:pem:1", "b:pem:1"}, rules=PEM,
    ),
    "required": Feature(
        "[[rules.required]]\nid = 'part'",
        {"a": "id_1234\n\n\n\nkey_abcd\n", "b": "key_abcd\n"},
        {"a:key:5", "a:part:1"}, {"a:key:5", "a:part:1", "b:key:1"}, rules=PART + PAIR,
    ),
    "required, twice": Feature(
        "[[rules.required]]\nid = 'part'\n[[rules.required]]\nid = 'tok'",
        {"a": "id_1234 key_abcd tok_abcd1234\n", "b": "id_1234 key_abcd\n"},
        {"a:key:1", "a:part:1", "a:tok:1", "b:part:1"},
        {"a:key:1", "a:part:1", "a:tok:1", "b:key:1", "b:part:1"}, rules=PART + RULE + PAIR,
    ),
    "required, and only for others": Feature(
        "[[rules.required]]\nid = 'part'", {"a": "id_1234\nkey_abcd\n", "b": "id_1234\n"},
        {"a:key:2"}, {"a:key:2"}, rules=PART + "skipReport = true\n" + PAIR,
    ),
    "withinLines": Feature(
        "[[rules.required]]\nid = 'part'\nwithinLines = 2",
        {"a": "id_1234\n\nkey_abcd\n", "b": "key_abcd\n\nid_1234\n", "c": "id_1234\n\n\nkey_abcd"},
        {"a:key:3", "a:part:1", "b:key:1", "b:part:3", "c:part:1"},
        {"a:key:3", "a:part:1", "b:key:1", "b:part:3", "c:key:4", "c:part:1"}, rules=PART + PAIR,
    ),
    "withinColumns": Feature(
        "[[rules.required]]\nid = 'part'\nwithinColumns = 5",
        {"a": "id_1234\n    key_abcd\n", "b": "id_1234\n      key_abcd\n"},
        {"a:key:2", "a:part:1", "b:part:1"}, {"a:key:2", "a:part:1", "b:key:2", "b:part:1"},
        rules=PART + PAIR,
    ),
    "required of another one that requires": Feature(
        "[[rules.required]]\nid = 'part'\n" + OTHER + "[[rules.required]]\nid = 'tok'\n",
        {"a": "tik_abcd1234 tok_abcd1234\n", "b": "tik_abcd1234 tok_abcd1234 id_1234\n"},
        {"a:tik:1", "b:tok:1", "b:tik:1", "b:part:1"}, {"a:tok:1", "b:tok:1", "b:part:1"},
        rules=PART + RULE,
    ),
    "extend path": Feature(
        "", {"a": "tok_abcd1234 tik_abcd1234\n"}, {"a:tok:1", "a:tik:1"}, {"a:tok:1"},
        before="[extend]\npath = 'base.toml'\n", more={"base.toml": OTHER},
    ),
    "disabledRules": Feature(
        "", {"a": "tok_abcd1234 tik_abcd1234\n"}, {"a:tok:1"}, {"a:tok:1"},
        before="[extend]\npath = 'base.toml'\ndisabledRules = ['tik']\n",
        more={"base.toml": OTHER},
    ),
    "extend, a regex of our own": Feature(
        "", {"a": "tok_abcd1234 tik_abcd1234\n"}, {"a:tok:1"}, {"a:tok:1"},
        before="[extend]\npath = 'base.toml'\n",
        more={"base.toml": OTHER.replace('"tik"', '"tok"')},
    ),
    "extend, the rest of its rule stays": Feature(
        "", {"a": "tok_abcd1234\n", "b": "tok_aaaaaaab\n", "c": "tok_abcd9999\n"},
        {"c:tok:1"}, {"a:tok:1", "b:tok:1", "c:tok:1"},
        before="[extend]\npath = 'base.toml'\n",
        more={"base.toml": "[[rules]]\nid = 'tok'\nregex = 'x'\nentropy = 1.5\n"
                           "[[rules.allowlists]]\nstopwords = ['1234']\n"},
    ),
    "extend, the allowlists of all rules too": _on_a(
        "", before="[extend]\npath = 'base.toml'\n",
        more={"base.toml": OTHER + "[[allowlists]]\nstopwords = ['abcd']\n"},
    ),
    "extend, an allowlist for a rule of theirs": Feature(
        "[[allowlists]]\ntargetRules = ['tik']\nstopwords = ['abcd']",
        {"a": "tok_abcd1234 tik_abcd1234\n"}, {"a:tok:1"}, {"a:tok:1"},
        before="[extend]\npath = 'base.toml'\n", more={"base.toml": OTHER},
    ),
    "extend, twice in a row": Feature(
        "", {"a": "tok_abcd1234 tik_abcd1234\n"}, {"a:tok:1", "a:tik:1"}, {"a:tok:1"},
        before="[extend]\npath = 'base.toml'\n",
        more={"base.toml": "[extend]\npath = 'deep.toml'\n", "deep.toml": OTHER},
    ),
    "a generic rule after a special one": Feature(
        "[[rules]]\nid = 'generic-key'\nregex = 'key=([a-z0-9_]{4,})'",
        {"a": "key=tok_abcd1234\n", "b": "key=abcd1234 tok_abcd1234\n", "c": "key=abcd1234\n"},
        {"a:generic-key:1", "a:tok:1", "b:tok:1", "c:generic-key:1"}, {"a:tok:1", "b:tok:1"},
    ),
    "minVersion of today": Feature(
        "", ONE, {"a:tok:1"}, {"a:tok:1"}, before='minVersion = "v8.25.0"\n',
    ),
    "keys in any case": _on_a("ENTROPY = 3.5\n[[rules.AllowLists]]\nStopWords = ['zzz']"),
    **{
        f"allowlist {place}: {name}": feature
        for name, (checks, files, kept) in _ALLOWLISTS.items()
        for place, feature in _allowing(checks, files, kept).items()
    },
}  # fmt: skip
