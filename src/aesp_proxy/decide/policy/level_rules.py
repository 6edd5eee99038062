"""The rules of a lower level: those that restrict are added, one that allows is not."""

from __future__ import annotations

from dataclasses import replace

from aesp_proxy.decide.policy.document import Mapping, Node, Scalar, at
from aesp_proxy.decide.policy.lists import identity, meaning, place_of, shown
from aesp_proxy.decide.policy.weakening import Weakening

_ID = "policy_id"
_TOLD = frozenset({"version", "description"})


def joined_rules(
    above: tuple[Node, ...], below: tuple[Node, ...], *, place: str
) -> tuple[tuple[Node, ...], list[Weakening]]:
    """Return the rules of both, and what would weaken.

    The same id may come again with the same rule, or switch off a rule that allows.
    ``place`` is FILE:LINE of what stands above.
    """
    rules = {identity(item, _ID): item for item in above}
    found = []
    for item in below:
        if not isinstance(item, Mapping):
            continue
        name = identity(item, _ID)
        first = rules.get(name)
        if first is None:
            if effect_of(item) == "ALLOW" and is_on(item):
                found.append(_allowing(item, place))
            else:
                rules[name] = item
        elif isinstance(first, Mapping) and _is_switched_off(first, item):
            rules[name] = item
        elif _said(first) != _said(item):
            found.append(_other(first, item))
    return tuple(rules.values()), found


def effect_of(rule: Mapping) -> str:
    """Return the word of a rule's effect."""
    body = rule.table("rule")
    return "" if body is None else body.word("effect")


def is_on(rule: Mapping) -> bool:
    """Tell whether a rule is on."""
    return rule.word("enabled").lower() != "false"


def _is_switched_off(above: Mapping, below: Mapping) -> bool:
    return (
        effect_of(above) == effect_of(below) == "ALLOW"
        and not is_on(below)
        and _said(above, but="enabled") == _said(below, but="enabled")
    )


def _said(rule: Node, *, but: str = "") -> object:
    """Return what a rule means, without what is only told to people."""
    if not isinstance(rule, Mapping):
        return meaning(rule)
    entries = [entry for entry in rule.entries if entry[0].text not in {*_TOLD, but}]
    on = [entry for entry in entries if entry[0].text != "enabled"]
    return meaning(replace(rule, entries=tuple(on))), bool(but) or is_on(rule)


def _allowing(rule: Mapping, place: str) -> Weakening:
    body = rule.table("rule")
    effect = body.get("effect") if body is not None else None
    named = rule.texts("applies_to")
    resource = named[0].text[:80] if named else "*"
    return Weakening(
        key=f"rules.{rule.word(_ID)[:80]}",
        what="a rule that allows is added",
        above=place,
        below=at(effect if isinstance(effect, Scalar) else rule),
        witness=f"an event on {resource!a} that meets its condition",
    )


def _other(above: Node, below: Mapping) -> Weakening:
    return Weakening(
        key=f"rules.{below.word(_ID)[:80]}",
        what=f"{shown(below, _ID)} is another rule above",
        above=place_of(above, _ID),
        below=at(below),
        witness="an event that the rule above refuses",
        remedy="give it an id of its own; a rule above stays as it is",
    )
