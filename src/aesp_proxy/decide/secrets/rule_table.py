"""Read one rule from its table, of a pack, of a gitleaks file or of a policy alike.

Rules:

- Every key is typed; a value of the wrong type, or an unknown key, is an error.
- A regex that can match nothing at all, or everything, is an error.
- Samples and published values are broken with ``~`` so that no scanner takes the file
  for a leak: ``~`` goes, ``~~`` stands for one ``~``.

Keys as gitleaks has them: its README, "Configuration".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aesp_proxy.decide.secrets.pattern import cut_tail, translate
from aesp_proxy.decide.secrets.reference import compile_re2
from aesp_proxy.decide.secrets.rule import TOO_MANY, UNSCANNABLE, Allowlist, Required, Rule, Target
from aesp_proxy.decide.secrets.validators import VALIDATORS
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Severity

ID_CHARS_MAX = 100

type Table = Mapping[str, object]
type Types = Mapping[str, type | tuple[type, ...]]

RULE_KEYS: Types = {
    "id": str,
    "description": str,
    "regex": str,
    "path": str,
    "keywords": list,
    "entropy": (int, float),
    "secretGroup": int,
    "allowlists": list,
    "required": list,
    "skipReport": bool,
    "tags": list,
    "severity": str,
    "validate": list,
    "invalid": str,
    "issuer": str,
    "hosts": list,
    "published": list,
    "positives": list,
    "negatives": list,
}
ALLOWLIST_KEYS: Types = {
    "description": str,
    "condition": str,
    "regexTarget": str,
    "regexes": list,
    "paths": list,
    "commits": list,
    "stopwords": list,
}
REQUIRED_KEYS: Types = {"id": str, "withinLines": int, "withinColumns": int}

_CONDITIONS = {"": False, "or": False, "||": False, "and": True, "&&": True}

_EVERYTHING = (
    b"GET /v1/models?limit=20 HTTP/1.1\nhost: api.example.com\naccept: */*\n",
    b'{"messages": [{"role": "user", "content": "What is the time?"}]}',
    b"The quick brown fox jumps over the lazy dog, and the dog does not mind.",
    b"3.14159 2026-11-21 192.0.2.7 1,024",
    b"-- == // ** ;; .. !! ?? ()",
)


def read_rule(
    table: Table,
    where: str,
    *,
    severity: Severity | None = None,
    allow: Sequence[Allowlist] = (),
) -> Rule:
    """Return the rule of one table; ``severity`` is for a table that states none.

    ``allow`` are further allowlists. ``where`` is file and line. ConfigError with the
    reason when it cannot be used.
    """
    check_types(table, RULE_KEYS)
    check_id(_text(table, "id"))
    regex, path = _text(table, "regex"), _text(table, "path")
    if not regex and not path:
        raise ConfigError("regex is missing")
    rule = Rule(
        id=_text(table, "id"),
        description=_text(table, "description"),
        severity=_severity(table, severity),
        **_expressions(regex, path, cut=not (_number(table, "entropy") or table.get("validate"))),
        keywords=tuple(word.lower() for word in _bytes(table, "keywords")),
        entropy=_number(table, "entropy"),
        secret_group=int(_number(table, "secretGroup")),
        validate=_validators(table),
        invalid=severity_of(_text(table, "invalid")) if "invalid" in table else None,
        allow=(*allow, *(read_allowlist(one) for one in _tables(table, "allowlists"))),
        required=tuple(_required(one) for one in _tables(table, "required")),
        report=table.get("skipReport") is not True,
        tags=_texts(table, "tags"),
        issuer=_text(table, "issuer"),
        hosts=_texts(table, "hosts"),
        published=frozenset(_samples(table, "published")),
        positives=_samples(table, "positives"),
        negatives=_samples(table, "negatives"),
        where=where,
    )
    if rule.invalid is not None and not rule.validate:
        raise ConfigError("invalid says nothing where there is no validate")
    _check_rule(rule)
    return rule


def read_allowlist(table: Table) -> Allowlist:
    """Return an allowlist; ConfigError with the reason when it cannot be used."""
    check_types(table, ALLOWLIST_KEYS)
    condition = _text(table, "condition").lower()
    if condition not in _CONDITIONS:
        raise ConfigError("the condition of an allowlist is OR or AND")
    target = _text(table, "regexTarget").lower() or Target.SECRET.value
    if target not in {one.value for one in Target}:
        raise ConfigError("the regexTarget of an allowlist is secret, match or line")
    allowlist = Allowlist(
        description=_text(table, "description"),
        every=_CONDITIONS[condition],
        target=Target(target),
        regexes=tuple(_searchable(regex) for regex in _texts(table, "regexes")),
        paths=tuple(_searchable(regex) for regex in _texts(table, "paths")),
        commits=tuple(commit.lower() for commit in _texts(table, "commits")),
        stopwords=tuple(word.lower() for word in _bytes(table, "stopwords")),
    )
    if not (allowlist.regexes or allowlist.paths or allowlist.commits or allowlist.stopwords):
        raise ConfigError("an allowlist states no commits, paths, regexes or stopwords")
    return allowlist


def unbroken(sample: str) -> bytes:
    """Return a sample without its breaks: ``~`` goes, ``~~`` stands for one ``~``."""
    return "~".join(part.replace("~", "") for part in sample.split("~~")).encode()


def severity_of(word: str) -> Severity:
    """Return the severity of a word; ConfigError when there is none."""
    for severity in Severity:
        if severity.word == word:
            return severity
    raise ConfigError(f"severity {word!r} is none of info, warning, error, critical")


def check_types(table: Table, types: Types) -> None:
    """Hold a table to its keys and their types; ConfigError names the first that is wrong."""
    for key, value in table.items():
        if key not in types:
            raise ConfigError(f"unknown key {key!r}; known are {', '.join(types)}")
        flag = types[key] is bool
        if not isinstance(value, types[key]) or isinstance(value, bool) is not flag:
            raise ConfigError(f"{key} has the wrong type")


def check_id(name: str) -> None:
    """Refuse a name that cannot stand in a line of output, or that the scanner has taken."""
    if not name:
        raise ConfigError("id is missing")
    if len(name) > ID_CHARS_MAX or not name.isprintable():
        raise ConfigError(f"the name must be 1 to {ID_CHARS_MAX} printable characters")
    if name in (TOO_MANY, UNSCANNABLE):
        raise ConfigError("the name is taken by the scanner itself")


def _expressions(regex: str, path: str, *, cut: bool) -> dict[str, bytes]:
    found = {"path": _searchable(path) if path else b""}
    if not regex:
        return found | dict.fromkeys(("expression", "confirm", "whole"), b"")
    dialects = translate(regex)
    tailless = cut_tail(dialects) if cut else dialects
    return found | {
        "expression": tailless.hyperscan,
        "confirm": tailless.re2,
        "whole": dialects.re2,
    }


def _searchable(regex: str) -> bytes:
    """Return an expression that RE2 alone will use."""
    expression = translate(regex).re2
    compile_re2(expression)
    return expression


def _required(table: Table) -> Required:
    check_types(table, REQUIRED_KEYS)
    check_id(_text(table, "id"))
    lines, columns = (_distance(table, key) for key in ("withinLines", "withinColumns"))
    return Required(id=_text(table, "id"), within_lines=lines, within_columns=columns)


def _distance(table: Table, key: str) -> int | None:
    if key not in table:
        return None
    distance = int(_number(table, key))
    if distance < 0:
        raise ConfigError(f"{key} must be 0 or more")
    return distance


def _check_rule(rule: Rule) -> None:
    if not 0 <= rule.entropy < 8:
        raise ConfigError("entropy must be 0 or more and below 8 bits a byte")
    if rule.path_only:
        if rule.required:
            raise ConfigError("a rule for paths alone cannot require others")
        return
    compiled = compile_re2(rule.whole)
    if compiled.search(b"") is not None:
        raise ConfigError("the regex matches the empty string")
    found = [compiled.search(probe) for probe in _EVERYTHING]
    if any(match is not None and match.start() == match.end() for match in found):
        raise ConfigError("the regex matches the empty string")
    if all(match is not None for match in found):
        raise ConfigError("the regex matches everything")
    if not 0 <= rule.secret_group <= compiled.groups:
        raise ConfigError(f"secretGroup {rule.secret_group} is not a group of the regex")


def _validators(table: Table) -> tuple[str, ...]:
    names = _texts(table, "validate")
    for name in names:
        if name not in VALIDATORS:
            raise ConfigError(f"validate knows no {name!r}; known are {', '.join(VALIDATORS)}")
    return names


def _severity(table: Table, otherwise: Severity | None) -> Severity:
    if "severity" in table or otherwise is None:
        return severity_of(_text(table, "severity"))
    return otherwise


def _text(table: Table, key: str) -> str:
    return str(table.get(key, ""))


def _number(table: Table, key: str) -> float:
    return float(str(table.get(key, 0)))


def _tables(table: Table, key: str) -> Sequence[Table]:
    values = table.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, Mapping) for value in values):
        raise ConfigError(f"{key} must be a list of tables")
    return values


def _texts(table: Table, key: str) -> tuple[str, ...]:
    values = table.get(key, [])
    if not isinstance(values, list) or not all(
        isinstance(value, str) and value for value in values
    ):
        raise ConfigError(f"{key} must be a list of non-empty texts")
    return tuple(values)


def _bytes(table: Table, key: str) -> tuple[bytes, ...]:
    return tuple(text.encode() for text in _texts(table, key))


def _samples(table: Table, key: str) -> tuple[bytes, ...]:
    return tuple(unbroken(text) for text in _texts(table, key))
