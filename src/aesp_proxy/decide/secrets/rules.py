"""Read rules: what a secret of one kind looks like, and whose format says so.

A rule file is TOML in gitleaks' shape (``[[rules]]`` with ``id``,
``description``, ``regex``, ``keywords``, ``entropy``, ``secretGroup``) with keys
of ours: ``severity``, ``issuer`` (where the format is published), ``published``
(values that issuers print as examples, never secrets), ``positives`` and
``negatives`` (samples, broken with ``~`` so that no scanner takes them for real).

Rules of the house:

- A file is taken whole or not at all. An unknown key is an error, so that
  nothing that was meant to limit or widen a rule is dropped in silence.
- A regex that can match nothing at all, or everything, is an error.
- A rule is a value; engines compile it elsewhere.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence

from aesp_proxy.decide.secrets.hyperscan import refusals
from aesp_proxy.decide.secrets.pattern import cut_tail, translate
from aesp_proxy.decide.secrets.reference import compile_re2
from aesp_proxy.decide.secrets.rule import TOO_MANY, Rule
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Severity

RULES_MAX = 5_000
ID_CHARS_MAX = 100

_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "id": str,
    "description": str,
    "regex": str,
    "keywords": list,
    "entropy": (int, float),
    "secretGroup": int,
    "severity": str,
    "issuer": str,
    "published": list,
    "positives": list,
    "negatives": list,
}
_REQUIRED = ("id", "description", "regex", "severity")

_EVERYTHING = (
    b"GET /v1/models?limit=20 HTTP/1.1\nhost: api.example.com\naccept: */*\n",
    b'{"messages": [{"role": "user", "content": "What is the time?"}]}',
    b"The quick brown fox jumps over the lazy dog, and the dog does not mind.",
    b"3.14159 2026-11-21 192.0.2.7 1,024",
    b"-- == // ** ;; .. !! ?? ()",
)


def parse_rules(text: str, where: str, *, each_compiled: bool = True) -> tuple[Rule, ...]:
    """Return the rules of a file; ``where`` is its name for messages.

    ``each_compiled`` tries Hyperscan on every rule alone, which names the one it
    refuses and takes a millisecond a rule; without it the set must still compile.
    ConfigError with file, line, rule id and reason.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}", where=where) from error
    tables = document.pop("rules", [])
    document.pop("title", None)
    if document:
        raise ConfigError(f"unknown key {next(iter(document))!r}", where=where)
    if not isinstance(tables, list) or not tables:
        raise ConfigError("there are no [[rules]]", where=where)
    if len(tables) > RULES_MAX:
        raise ConfigError(f"more than {RULES_MAX} rules", where=where)
    lines = _id_lines(text)
    rules = []
    for table in tables:
        place = f"{where}:{lines.get(str(table.get('id')), 0)}"
        try:
            rules.append(_rule(table, place))
        except ConfigError as error:
            named = f"rule {table.get('id', '(no id)')!r}: {error.message}"
            raise ConfigError(named, where=place) from error
    _check_ids(rules)
    if each_compiled:
        check_each(rules)
    return tuple(rules)


def join_rules(*sets: Sequence[Rule]) -> tuple[Rule, ...]:
    """Return one set of several; ConfigError when an id stands twice."""
    joined = [rule for rules in sets for rule in rules]
    _check_ids(joined)
    return tuple(joined)


def rule_from_policy(
    name: str,
    pattern: str,
    severity: Severity,
    description: str = "",
    luhn_check: bool = False,  # noqa: FBT001, FBT002 - the policy's own key
    *,
    where: str = "",
) -> Rule:
    """Return the rule for one of a policy's ``secret_leak.patterns``.

    ``pattern`` is the regex after YAML has been read. ConfigError with the reason.
    """
    try:
        _check_id(name)
        dialects = translate(pattern)
        cut = dialects if luhn_check else cut_tail(dialects)
        rule = Rule(
            id=name,
            description=description or name,
            severity=severity,
            expression=cut.hyperscan,
            confirm=cut.re2,
            whole=dialects.re2,
            luhn=luhn_check,
            where=where,
        )
        _check_regex(rule)
    except ConfigError as error:
        raise ConfigError(f"pattern {name!r}: {error.message}", where=where) from error
    check_each([rule])
    return rule


def unbroken(sample: str) -> bytes:
    """Return a sample without its breaks: ``~`` goes, ``~~`` stands for one ``~``."""
    return "~".join(part.replace("~", "") for part in sample.split("~~")).encode()


def _rule(table: Mapping[str, object], where: str) -> Rule:
    _check_table(table)
    dialects = translate(str(table["regex"]))
    entropy = float(str(table.get("entropy", 0)))
    cut = dialects if entropy else cut_tail(dialects)
    rule = Rule(
        id=str(table["id"]),
        description=str(table["description"]),
        severity=_severity(str(table["severity"])),
        expression=cut.hyperscan,
        confirm=cut.re2,
        whole=dialects.re2,
        keywords=tuple(word.lower() for word in _words(table, "keywords")),
        entropy=entropy,
        secret_group=int(str(table.get("secretGroup", 0))),
        issuer=str(table.get("issuer", "")),
        published=frozenset(_words(table, "published")),
        positives=_words(table, "positives"),
        negatives=_words(table, "negatives"),
        where=where,
    )
    _check_regex(rule)
    return rule


def _check_table(table: Mapping[str, object]) -> None:
    for key, value in table.items():
        if key not in _KEYS:
            raise ConfigError(f"unknown key {key!r}; known are {', '.join(_KEYS)}")
        if not isinstance(value, _KEYS[key]) or isinstance(value, bool):
            raise ConfigError(f"{key} has the wrong type")
    for key in _REQUIRED:
        if not table.get(key):
            raise ConfigError(f"{key} is missing")
    _check_id(str(table["id"]))


def _check_id(name: str) -> None:
    if not name or len(name) > ID_CHARS_MAX or not name.isprintable():
        raise ConfigError(f"the name must be 1 to {ID_CHARS_MAX} printable characters")
    if name == TOO_MANY:
        raise ConfigError("the name is taken by the scanner itself")


def _check_regex(rule: Rule) -> None:
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
    if not 0 <= rule.entropy < 8:
        raise ConfigError("entropy must be 0 or more and below 8 bits a byte")


def check_each(rules: Sequence[Rule]) -> None:
    """Try Hyperscan on every rule alone; ConfigError names the first that it refuses."""
    for index, reason in refusals([rule.expression for rule in rules]).items():
        rule = rules[index]
        raise ConfigError(f"rule {rule.id!r}: Hyperscan refuses it: {reason}", where=rule.where)


def _check_ids(rules: Sequence[Rule]) -> None:
    seen: dict[str, str] = {}
    for rule in rules:
        if rule.id in seen:
            first = f" (first at {seen[rule.id]})" if seen[rule.id] else ""
            raise ConfigError(f"rule {rule.id!r} stands twice{first}", where=rule.where)
        seen[rule.id] = rule.where


def _severity(word: str) -> Severity:
    for severity in Severity:
        if severity.word == word:
            return severity
    raise ConfigError(f"severity {word!r} is none of info, warning, error, critical")


def _words(table: Mapping[str, object], key: str) -> tuple[bytes, ...]:
    values = table.get(key, [])
    if not isinstance(values, list) or not all(
        isinstance(value, str) and value for value in values
    ):
        raise ConfigError(f"{key} must be a list of non-empty texts")
    return tuple(unbroken(value) for value in values)


def _id_lines(text: str) -> dict[str, int]:
    """Return the line of each ``id = "..."``, for messages."""
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        key, _, value = line.partition("=")
        if key.strip() == "id":
            lines.setdefault(value.strip().strip("\"'"), number)
    return lines
