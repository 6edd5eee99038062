"""Suites: what a policy is expected to answer, as text and as a value with places.

A suite is read as strictly as a policy: no unknown key, no null, no key twice, and the
place of every fact is kept, so that what is wrong with one is told by its line.
``defaults`` stand under every case: tables are joined, anything else is the case's.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from dataclasses import dataclass

from aesp_proxy.decide.policy.document import Mapping, Node, Scalar, Sequence, at, parse_document
from aesp_proxy.decide.policy.field import Field, Kind
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.decide.policy.suite_schema import CASE, EXPECT, FACTS, SUITE
from aesp_proxy.decide.policy.table import Table
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Reason, Verdict

_NAME_CHARS_MAX = 200
_DIGITS_MAX = 16
_WORDS: MappingOf[str, object] = {
    "true": True, "True": True, "false": False, "False": False,
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Expect:
    """What a decision must be; only what is stated is compared.

    ``rule`` is the id of a rule that must match, ``guard`` who must decide, ``finding``
    the rule of a secret that must be found.
    """

    where: str
    verdict: Verdict
    reason: Reason | None = None
    rule: str = ""
    guard: str = ""
    finding: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One attempt and what is expected. ``facts`` hold the defaults too.

    ``where`` is FILE:LINE:COL; ``places`` is that of each stated fact, by dotted name.
    """

    name: str
    where: str
    facts: MappingOf[str, object]
    places: MappingOf[str, str]
    expect: Expect

    def place_of(self, fact: str) -> str:
        """Return FILE:LINE:COL of a fact, or of the nearest one above it that is stated."""
        while fact:
            if fact in self.places:
                return self.places[fact]
            fact = fact.rpartition(".")[0]
        return self.where


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """The cases of one file, and what they are tried on, as stated.

    ``policy`` is a file; ``over`` the policy that it lies over as an overlay; ``root`` and
    ``scope`` name a hierarchy and a scope instead. ``now`` is RFC 3339.
    """

    where: str
    policy: Sourced[str] | None
    over: Sourced[str] | None
    root: Sourced[str] | None
    scope: Sourced[str] | None
    now: Sourced[str] | None
    cases: tuple[Case, ...]


def parse_suite(text: str, where: str) -> Suite:
    """Read a suite. ``where`` names the file in errors; raises ``ConfigError``."""
    document = parse_document(text, where)
    top = Table(document, SUITE, path="suite")
    suite = Suite(
        where=where,
        policy=top.text("policy"),
        over=top.text("over"),
        root=top.text("root"),
        scope=top.text("scope"),
        now=top.text("now"),
        cases=_cases(document),
    )
    _check_subject(suite)
    return suite


def parse_facts(text: str, where: str) -> MappingOf[str, object]:
    """Read the facts of one attempt alone, as a case states them; raises ``ConfigError``."""
    document = parse_document(text, where)
    Table(document, FACTS, path="facts")
    facts = _Facts()
    facts.read(document)
    return facts.values


def _check_subject(suite: Suite) -> None:
    """A suite is about one policy: a file, an overlay over a file, or a scope of a hierarchy."""
    for one, other in ((suite.root, suite.policy), (suite.root, suite.over)):
        if one is not None and other is not None:
            raise ConfigError(
                "root and scope name the policy; policy and over do not go with them",
                where=other.where,
            )
    alone = suite.root or suite.scope
    if alone is not None and (suite.root is None or suite.scope is None):
        raise ConfigError("root and scope go together", where=alone.where)


def _cases(document: Mapping) -> tuple[Case, ...]:
    under = _Facts()
    defaults = document.table("defaults")
    if defaults is not None:
        under.read(defaults)
    items = document.items("cases")
    if not items:
        raise ConfigError(
            "a suite without a case tries nothing", where=at(document.key("cases") or document)
        )
    return tuple(
        _case(item, number, under)
        for number, item in enumerate(items, start=1)
        if isinstance(item, Mapping)
    )


def _case(node: Mapping, number: int, under: _Facts) -> Case:
    table = Table(node, CASE, path="case")
    name = table.text("name")
    facts = _Facts()
    facts.read(node)
    return Case(
        name=name.value[:_NAME_CHARS_MAX] if name is not None else f"case {number}",
        where=at(node),
        facts=_joined(under.values, facts.values),
        places={**under.places, **facts.places},
        expect=_expect(node.get("expect") or node),
    )


def _expect(node: Node) -> Expect:
    if isinstance(node, Scalar):
        words = [verdict.value for verdict in Verdict]
        if node.text not in words:
            raise ConfigError(
                f"case.expect: expected {' or '.join(words)}, found {node.text[:60]!a}",
                where=at(node),
            )
        return Expect(where=at(node), verdict=Verdict(node.text))
    if not isinstance(node, Mapping):
        raise ConfigError("case.expect: expected a verdict or keys", where=at(node))
    table = Table(node, EXPECT, path="case.expect")
    stated = {name: text.value for name in EXPECT if (text := table.text(name)) is not None}
    return Expect(
        where=at(node),
        verdict=Verdict(stated["verdict"]),
        reason=Reason(stated["reason"]) if "reason" in stated else None,
        rule=stated.get("rule", ""),
        guard=stated.get("guard", ""),
        finding=stated.get("finding", ""),
    )


class _Facts:
    """Typed values of checked nodes, and where each stands."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}
        self.places: dict[str, str] = {}

    def read(self, node: Mapping) -> None:
        """Read the facts among the keys of a mapping whose types are checked."""
        self.values = self._table(node, FACTS, "")

    def _table(self, node: Mapping, fields: MappingOf[str, Field], path: str) -> dict[str, object]:
        values: dict[str, object] = {}
        for key, value in node.entries:
            field = fields.get(key.text)
            if field is None:
                continue
            dotted = f"{path}.{key.text}" if path else key.text
            self.places[dotted] = at(key)
            values[key.text] = self._value(value, field, dotted)
        return values

    def _value(self, node: Node, field: Field, dotted: str) -> object:
        if field.kind is Kind.TABLE and isinstance(node, Mapping):
            return self._table(node, field.keys, dotted)
        if isinstance(node, Sequence):
            return [self._value(item, field, dotted) for item in node.items]
        if isinstance(node, Mapping):
            return _by_name(node, texts=dotted == "request.headers")
        if field.kind is Kind.ANY:
            return _plain(node)
        return _leaf(node.text, field.kind)


def _leaf(text: str, kind: Kind) -> object:
    match kind:
        case Kind.FLAG:
            return _WORDS.get(text, text == "TRUE")
        case Kind.COUNT:
            return int(text)
        case Kind.RATIO:
            return float(text)
        case _:
            return text


def _by_name(node: Mapping, *, texts: bool) -> dict[str, object]:
    """Return a mapping of the suite's own names; ``texts`` leaves every leaf a text."""
    return {key.text: _plain(value, texts=texts) for key, value in node.entries}


def _plain(node: Node, *, texts: bool = False) -> object:
    """Return what JSON would hold in the place of a node that no schema describes."""
    match node:
        case Mapping():
            return _by_name(node, texts=texts)
        case Sequence(items=items):
            return [_plain(item, texts=texts) for item in items]
        case Scalar(text=text, style="plain") if not texts:
            return _WORDS[text] if text in _WORDS else _number(text)
        case Scalar(text=text):
            return text


def _number(text: str) -> object:
    """Return the number that a plain scalar is in JSON's short forms; else the text."""
    whole, point, part = text.removeprefix("-").partition(".")
    digits = whole + part
    if not (digits.isascii() and digits.isdigit()) or len(digits) > _DIGITS_MAX:
        return text
    if not whole or (len(whole) > 1 and whole[0] == "0") or (point and not part):
        return text
    return float(text) if point else int(text)


def _joined(under: MappingOf[str, object], over: MappingOf[str, object]) -> dict[str, object]:
    joined = dict(under)
    for name, value in over.items():
        below = joined.get(name)
        if isinstance(below, dict) and isinstance(value, dict):
            joined[name] = _joined(below, value)
        else:
            joined[name] = value
    return joined
