"""Read the rules of a pack or of a policy: what secrets look like, and whose format says so.

A pack is TOML in gitleaks' shape (``[[rules]]``, the keys of ``rule_table``), with
keys of ours: ``severity``, ``validate`` and ``invalid``, ``issuer`` (where the format
is published), ``hosts`` (where such a token may go), ``published`` (values that issuers
print as examples, never secrets), ``positives`` and ``negatives``.

Rules of the house:

- A file is taken whole or not at all. An unknown key is an error, so that
  nothing that was meant to limit or widen a rule is dropped in silence.
  (Files of others are read by ``gitleaks``, rule by rule.)
- A rule is a value; engines compile it elsewhere.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence

from aesp_proxy.decide.secrets.boundary import behind_escapes
from aesp_proxy.decide.secrets.hyperscan import refusals
from aesp_proxy.decide.secrets.reference import compile_re2
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.rule_table import read_rule
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Severity

RULES_MAX = 5_000
KEY_PARTS_MAX = 32
"""Of a dotted key: what reads them needs the square of it in time and memory."""

_PACK_MUST_STATE = ("id", "description", "regex", "severity")
_NOT_IN_PACKS = ("path", "required", "skipReport")
_KEY_PART = rb"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')[ \t]*"""
_LONG_KEY = compile_re2(rb"(?:%s[.][ \t]*){%d}" % (_KEY_PART, KEY_PARTS_MAX))


def parse_rules(text: str, where: str, *, each_compiled: bool = True) -> tuple[Rule, ...]:
    """Return the rules of a pack; ``where`` is its name for messages.

    ``each_compiled`` tries Hyperscan on every rule alone, which names the one it
    refuses and takes a millisecond a rule; without it the set must still compile.
    ConfigError with file, line, rule id and reason.
    """
    document = read_toml(text, where)
    tables = tables_of_rules(document, where)
    document = {key: document[key] for key in document if key not in ("rules", "title")}
    if document:
        raise ConfigError(f"unknown key {next(iter(document))!r}", where=where)
    lines = id_lines(text)
    rules = []
    for table in tables:
        place = f"{where}:{lines.get(str(table.get('id')), 0)}"
        try:
            rules.append(_pack_rule(table, place))
        except ConfigError as error:
            named = f"rule {table.get('id', '(no id)')!r}: {error.message}"
            raise ConfigError(named, where=place) from error
    check_ids(rules)
    if each_compiled:
        check_each(rules)
    return tuple(rules)


def _pack_rule(table: Mapping[str, object], where: str) -> Rule:
    for key in _PACK_MUST_STATE:
        if not table.get(key):
            raise ConfigError(f"{key} is missing")
    for key in _NOT_IN_PACKS:
        if key in table:
            raise ConfigError(f"{key} has no place in a pack: bytes that flow have no such thing")
    return behind_escapes(read_rule(table, where))


def read_toml(text: str, where: str) -> dict[str, object]:
    """Return the document; ConfigError when it is not TOML, or takes too much to read."""
    if _LONG_KEY.search(text.encode()):
        raise ConfigError(f"a name of more than {KEY_PARTS_MAX} parts with dots", where=where)
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError("not TOML: nested too deep", where=where) from None
    except ValueError as error:  # TOMLDecodeError, and a number of too many digits
        raise ConfigError(f"not TOML: {error}", where=where) from error


def tables_of_rules(document: Mapping[str, object], where: str) -> Sequence[Mapping[str, object]]:
    """Return the ``[[rules]]`` of a document; ConfigError when there are none, or too many."""
    tables = document.get("rules", [])
    if not isinstance(tables, list) or not tables:
        raise ConfigError("there are no [[rules]]", where=where)
    if len(tables) > RULES_MAX:
        raise ConfigError(f"more than {RULES_MAX} rules", where=where)
    if not all(isinstance(table, Mapping) for table in tables):
        raise ConfigError("rules must be tables", where=where)
    return tables


def join_rules(*sets: Sequence[Rule]) -> tuple[Rule, ...]:
    """Return one set of several; ConfigError when an id stands twice."""
    joined = [rule for rules in sets for rule in rules]
    check_ids(joined)
    return tuple(joined)


def rule_from_policy(
    name: str,
    pattern: str,
    severity: Severity,
    description: str = "",
    *,
    more: Mapping[str, object] | None = None,
    where: str = "",
) -> Rule:
    """Return the rule for one of a policy's ``secret_leak.patterns``.

    ``pattern`` is the regex after YAML has been read, ``more`` further keys of
    ``rule_table``. ConfigError with the reason.
    """
    table = {"id": name, "regex": pattern, "description": description or name} | dict(more or {})
    try:
        rule = read_rule(table, where, severity=severity)
    except ConfigError as error:
        raise ConfigError(f"pattern {name!r}: {error.message}", where=where) from error
    rule = behind_escapes(rule)
    check_each([rule])
    return rule


def check_each(rules: Sequence[Rule]) -> None:
    """Try both engines on every rule alone; ConfigError names the first that one refuses."""
    looking = [rule for rule in rules if not rule.path_only]
    for rule in looking:
        compile_re2(rule.confirm)
        compile_re2(rule.whole)
    for index, reason in refusals([rule.expression for rule in looking]).items():
        rule = looking[index]
        raise ConfigError(f"rule {rule.id!r}: Hyperscan refuses it: {reason}", where=rule.where)


def check_ids(rules: Sequence[Rule]) -> None:
    """Refuse a set in which an id stands twice."""
    seen: dict[str, str] = {}
    for rule in rules:
        if rule.id in seen:
            first = f" (first at {seen[rule.id]})" if seen[rule.id] else ""
            raise ConfigError(f"rule {rule.id!r} stands twice{first}", where=rule.where)
        seen[rule.id] = rule.where


def table_lines(text: str) -> tuple[int, ...]:
    """Return the line of each ``[[rules]]``, for messages of a rule without a name of its own."""
    return tuple(
        number
        for number, line in enumerate(text.splitlines(), 1)
        if line.partition("#")[0].strip().lower() == "[[rules]]"
    )


def id_lines(text: str) -> dict[str, int]:
    """Return the line of each ``id = "..."``, for messages."""
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        key, _, value = line.partition("=")
        if key.strip() == "id":
            lines.setdefault(value.strip().strip("\"'"), number)
    return lines
