"""A gitleaks file is taken as it is, and what cannot be taken is told in a line a rule."""

from __future__ import annotations

import pytest

from aesp_proxy.decide.secrets.files import FileScanner
from aesp_proxy.decide.secrets.gitleaks import Options, parse_gitleaks
from aesp_proxy.decide.secrets.rule import RuleSet, Target
from aesp_proxy.decide.secrets.rule_set import for_the_wire, without_refused
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Severity

RULE = """
[[rules]]
id = "token"
description = "A token"
regex = '''tok_([a-z0-9]{8})'''
entropy = 1.5
secretGroup = 1
keywords = ["tok_"]
tags = ["a", "b"]
"""
STRANGE = """
title = "x"
minVersion = "v8.25.0"

[allowlist]
description = "old form, all rules"
paths = ['''(?:^|/)vendor/''']
commits = ["C0FFEE"]

[[allowlists]]
targetRules = ["token"]
stopwords = ["Sample"]

[[rules]]
ID = "token"
Regex = '''tok_([a-z0-9]{8,})'''
secretgroup = 1
[rules.allowlist]
regexTarget = "LINE"
regexes = ['''# fixture''']
[[rules.allowlists]]
condition = "and"
paths = ['''\\.md$''']
stopWords = ["doc"]
"""


def _rules(text: str, **options: object) -> RuleSet:
    return parse_gitleaks(text, "g.toml", Options(**options))  # type: ignore[arg-type]


def test_a_rule_keeps_every_key() -> None:
    (rule,) = _rules(RULE).rules
    assert (rule.id, rule.entropy, rule.secret_group, rule.tags) == ("token", 1.5, 1, ("a", "b"))
    assert (rule.keywords, rule.severity, rule.where) == ((b"tok_",), Severity.ERROR, "g.toml:3")


def test_old_forms_and_any_case_of_keys_are_read() -> None:
    found = _rules(STRANGE)
    (rule,) = found.rules
    assert found.warnings == ()
    assert found.allow[0].commits == ("c0ffee",)
    assert [one.target for one in rule.allow] == [Target.LINE, Target.SECRET, Target.SECRET]
    assert [one.every for one in rule.allow] == [False, True, False]
    assert rule.allow[2].stopwords == (b"sample",)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("regex = '''(?=x)tok_'''", "lookaround"),
        ("regex = '''a*'''", "empty string"),
        ("regex = ''''''", "regex is missing"),
        ("regex = '.+'", "matches everything"),
        ("regex = '(?s).{1,9}'", "matches everything"),
        ("regex = '(a*)*'", "empty string"),
        ("regex = 'a{1,1000}{1,1000}'", "RE2 refuses"),
        ("regex = '((a{1,100}){1,100}){1,100}'", "RE2 refuses"),
        (f"regex = '{'(' * 3000}a{')' * 3000}'", "more than 100 deep"),
        (f"regex = '{'(' * 5000}'", "more than 100 deep"),
        (f"regex = '{'a' * 9000}'", "longer than 8192"),
        ("regex = '''tok_(\\p{L}+)'''", "not in the dialect"),
        ("regex = 7", "regex has the wrong type"),
        ("regex = 'tok_'\nsecretGroup = 2", "not a group"),
        ("regex = 'tok_'\nentropy = 'much'", "wrong type"),
        ("regex = 'tok_'\nrequired = [{id = 'gone'}]", "requires the rule 'gone'"),
        ("regex = 'tok_'\nrequired = [{id = 'token', withinLines = -1}]", "0 or more"),
        ("path = '''(?<!a)b'''", "lookaround"),
    ],
    ids=lambda text: text[:40],
)
def test_a_rule_that_cannot_be_taken_is_told_and_the_others_stay(line: str, words: str) -> None:
    text = RULE + '\n[[rules]]\nid = "odd"\ndescription = "x"\n' + line + "\n"
    found = _rules(text)
    assert [rule.id for rule in found.rules] == ["token"]
    (warning,) = found.warnings
    assert warning.startswith("g.toml:12: rule 'odd': ")
    assert words in warning
    with pytest.raises(ConfigError, match="rule 'odd'"):
        _rules(text, strict=True)


@pytest.mark.parametrize(
    "allowlist",
    [
        "regexes = ['''(?=x)''']",
        "condition = 'XOR'\nstopwords = ['a']",
        "regexTarget = 'file'\nregexes = ['a']",
        "description = 'nothing'",
        "stopwords = ['a']\nonlyOnMondays = true",
    ],
)
def test_an_allowlist_that_cannot_be_read_allows_nothing(allowlist: str) -> None:
    found = _rules(RULE + "[[rules.allowlists]]\n" + allowlist)
    assert found.rules[0].allow == ()
    assert "an allowlist is not used" in found.warnings[0]


def test_an_unknown_key_is_told_and_the_rule_stays() -> None:
    found = _rules(RULE + "flavour = 3\n")
    assert [rule.id for rule in found.rules] == ["token"]
    assert found.warnings == ("g.toml:3: rule 'token': unknown key 'flavour', not used",)


def test_a_rule_without_a_name_is_told_by_its_line() -> None:
    found = _rules(RULE + "\n[[ rules ]]  # odd\n[[rules]]\nregex = 'x'\n" + RULE)
    assert [line.partition(": ")[0] for line in found.warnings] == ["g.toml"] * 3
    found = _rules(RULE + "\n[[rules]] # odd\nregex = 'x'\n" + RULE)
    assert found.warnings == (
        "g.toml:14: rule 'token': it stands twice: the last one counts",
        "g.toml:11: id is missing",
    )


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ('"v8.30.7"', None),
        ('"8.4"', None),
        ('"v8.31.0"', "minVersion is 8.31: what came after 8.30 is not known"),
        ('"9"', "minVersion is 9: "),
        ('"pumpkin"', "minVersion is no version"),
        ("[1]", "minVersion is no version"),
        (f'"{"9" * 5000}"', "minVersion is no version"),
    ],
)
def test_a_file_for_a_later_gitleaks_is_said(version: str, words: str | None) -> None:
    found = _rules(f"minVersion = {version}\n{RULE}")
    assert [rule.id for rule in found.rules] == ["token"]
    if words is None:
        assert found.warnings == ()
    else:
        assert words in found.warnings[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", "not TOML"),
        ("a = " + "[" * 100_000, "nested too deep"),
        (".".join("a" * 50_000) + " = 1", "more than 32 parts"),
        ("[" + " . ".join(["'a'", '"b"'] * 20) + "]", "more than 32 parts"),
        ("a = " + "1" * 5_000, "not TOML"),
        ("title = 'x'", "gives no rule"),
        ("rules = 3", "must be tables"),
        ("[[rules]]\nid = 'a'\nregex = 'a*'\n", "gives no rule"),
        ("[extend]\nuseDefault = true\n", "no default rules"),
        ("[extend]\npath = 'other.toml'\n", "not read here"),
        ("[extend]\nurl = 'https://x.example/'\n", "not followed"),
        ("[extend]\nuseDefault = 1\n", "wrong type"),
        ("extend = 3\n" + RULE, "extend must be a table"),
    ],
)
def test_a_file_that_gives_nothing_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _rules(text)
    assert words in str(caught.value)


def test_a_file_that_extends_changes_adds_and_disables() -> None:
    child = """
[extend]
path = "base.toml"
disabledRules = ["gone", "never"]
[[rules]]
id = "token"
keywords = ["more"]
[[rules.allowlists]]
stopwords = ["a"]
[[rules]]
id = "new"
regex = "new_[0-9]{4}"
"""
    base = RULE + "[[rules]]\nid = 'gone'\nregex = 'gone_[0-9]'\n"
    found = _rules(child, read={"base.toml": base}.__getitem__)
    token, new = found.rules
    assert (token.keywords, token.entropy, len(token.allow)) == ((b"tok_", b"more"), 1.5, 1)
    assert new.id == "new"
    assert "'never'" in found.warnings[0]


def test_files_that_extend_one_another_end() -> None:
    with pytest.raises(ConfigError, match="more than 2 files"):
        _rules("[extend]\npath = 'me'\n", read=lambda _: "[extend]\npath = 'me'\n")


def test_the_default_rules_are_ours_to_give() -> None:
    found = _rules("[extend]\nuseDefault = true\n", default=[(RULE, "pack.toml")])
    assert [rule.where for rule in found.rules] == ["pack.toml:3"]


def test_what_only_the_engine_refuses_is_told_too() -> None:
    found = without_refused(_rules(RULE + "[[rules]]\nid = 'odd'\nregex = 'ab(?:^c)d'\n"))
    assert [rule.id for rule in found.rules] == ["token"]
    assert "Hyperscan refuses it" in found.warnings[0]


def _found(text: str, data: bytes, path: bytes = b"", commit: str = "") -> list[bytes]:
    return [one.value for one in FileScanner(_rules(text)).scan(data, path, commit).found]


SAMPLE = b'a = "tok_abcd1234"\n'


@pytest.mark.parametrize(
    ("data", "path", "commit", "count"),
    [
        (SAMPLE, b"src/a.py", "", 1),
        (SAMPLE, b"vendor/a.py", "", 0),
        (SAMPLE, b"src/a.py", "c0ffee", 0),
        (SAMPLE, b"src/a.py", "C0FFEE", 0),
        (b"tok_sample12\n", b"", "", 0),
        (b"tok_SAMPLE12\n", b"", "", 0),
        (b"tok_abcd1234 # fixture\n", b"", "", 0),
        (b"tok_abcd1234\n# fixture\n", b"", "", 1),
        (b"tok_docs1234\n", b"a.md", "", 0),
        (b"tok_docs1234\n", b"a.py", "", 1),
        (b"tok_abcd1234\n", b"a.md", "", 1),
        (b"tok_sample12 tok_abcd1234\n", b"", "", 1),
    ],
)
def test_allowlists_hold_in_files_as_in_gitleaks(
    data: bytes, path: bytes, commit: str, count: int
) -> None:
    assert len(_found(STRANGE, data, path, commit)) == count


def test_a_rule_for_names_finds_a_name_and_one_with_a_path_only_there() -> None:
    text = """
[[rules]]
id = "p12"
path = '''\\.p12$'''
[[rules]]
id = "in-env"
path = '''(?:^|/)\\.env$'''
regex = "PASS=(.{4,})"
"""
    scanner = FileScanner(_rules(text))
    assert [one.rule.id for one in scanner.scan(b"", b"a/key.p12").found] == ["p12"]
    assert scanner.scan(b"PASS=hunter2", b"a/notes").found == ()
    (one,) = scanner.scan(b"x=1\nPASS=hunter2\n", b"a/.env").found
    assert (one.value, one.begin, one.start, one.end) == (b"hunter2", 4, 9, 16)


def test_a_keyword_may_stand_anywhere_in_the_file() -> None:
    text = "[[rules]]\nid = 'x'\nregex = '[0-9]{6}'\nkeywords = ['Acme']\n"
    assert _found(text, b"123456" + b" " * 5000 + b"ACME") == [b"123456"]
    assert _found(text, b"123456") == []


COMPOSITE = """
[[rules]]
id = "key"
regex = "key_[a-z]{4}"
[[rules.required]]
id = "id"
withinLines = 2
withinColumns = 5
[[rules]]
id = "id"
regex = "id_[0-9]{4}"
skipReport = true
"""


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"id_1234\nkey_abcd\n", 1),
        (b"key_abcd\n\nid_1234\n", 1),
        (b"id_1234\n\n\nkey_abcd\n", 0),
        (b"id_1234\n      key_abcd\n", 0),
        (b"key_abcd\n", 0),
        (b"id_1234\n", 0),
    ],
)
def test_a_composite_rule_needs_its_neighbour(data: bytes, count: int) -> None:
    assert len(_found(COMPOSITE, data)) == count


def test_a_generic_rule_does_not_repeat_a_special_one() -> None:
    text = RULE + "[[rules]]\nid = 'generic-key'\nregex = 'key=([a-z0-9_]{4,})'\n"
    scanner = FileScanner(_rules(text))
    found = scanner.scan(b"tok_abcd1234\nkey=tok_abcd1234\nkey=abcd1234\n").found
    assert [one.rule.id for one in found] == ["token", "generic-key", "token", "generic-key"]
    found = scanner.scan(b"key=abcd1234 tok_abcd1234\n").found
    assert [one.rule.id for one in found] == ["token"]


def test_a_long_match_is_told_whole() -> None:
    text = "[[rules]]\nid = 'pem'\nregex = '''BEGIN KEY[\\s\\S-]{9,}?END KEY'''\n"
    body = b"BEGIN KEY" + b"abc\n" * 5000 + b"END KEY"
    (one,) = FileScanner(_rules(text)).scan(b"x\n" + body + b"\ny").found
    assert (one.value, one.begin) == (body, 2)


def test_a_flood_is_cut_and_told() -> None:
    text = "[[rules]]\nid = 'x'\nregex = '[a-f]{3}'\nentropy = 3\n"
    assert FileScanner(_rules(text)).scan(b"abc" * 100_000).cut


def test_on_the_wire_only_the_exact_secret_is_allowed(key: bytes) -> None:
    text = (
        RULE.replace("{8}", "{8,12}")
        + """
[[rules.allowlists]]
regexes = ['''^test|abcd''']
paths = ["x"]
commits = ["c0ffee"]
[[rules.allowlists]]
stopwords = ["exactone", "part"]
[[rules.allowlists]]
regexTarget = "line"
regexes = ["."]
[[rules.allowlists]]
condition = "AND"
paths = ["x"]
stopwords = ["notalone"]
"""
    )
    wire = for_the_wire(_rules(text))
    scanner = SecretScanner(wire.rules, key)
    for secret in (b"testtest1", b"part1234", b"abcdefgh", b"notalone"):
        assert scanner.scan(b"tok_" + secret + b" ", "body"), secret
    assert scanner.scan(b"tok_exactone", "body") == ()
    text = RULE + "[[rules.allowlists]]\nregexes = ['''abcd[0-9]{4}''']\n"
    scanner = SecretScanner(for_the_wire(_rules(text)).rules, key)
    assert scanner.scan(SAMPLE, "body") == ()
    assert scanner.scan(b"tok_abcd123x", "body") != ()


def test_rules_for_names_and_composite_ones_do_not_go_on_the_wire() -> None:
    text = COMPOSITE + "[[rules]]\nid = 'p12'\npath = '''\\.p12$'''\n" + RULE
    wire = for_the_wire(_rules(text))
    assert [rule.id for rule in wire.rules] == ["token"]
    assert [line.split("'")[1] for line in wire.warnings] == ["key", "p12"]
    with pytest.raises(ConfigError, match="'key'"):
        for_the_wire(_rules(text), strict=True)
