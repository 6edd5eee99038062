"""What ``policy diff`` tells: each change with its direction, its witness and both answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from aesp_proxy.decide.policy.difference import Change, Direction
from aesp_proxy.decide.policy.policy import Policy
from aesp_proxy.decide.policy.witness_event import Witness
from aesp_proxy.model.decision import Decision

_ITEM_CHARS_MAX: Final = 120
_WORDS: Final = {
    Direction.WEAKER: ("!", "weaker: now passes"),
    Direction.STRICTER: ("✗", "stricter: now refused"),
    Direction.OTHER: ("·", "passes or is refused as before, otherwise told"),
    Direction.TEXT: ("·", "text only"),
    Direction.UNPROVED: ("·", "no difference found"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line for a person."""

    text: str
    mark: str = ""
    depth: int = 0
    bold: bool = False


def lines_of(before: Policy, after: Policy, changes: Sequence[Change]) -> Iterator[Line]:
    """Yield the lines for a person: the weaker ones first."""
    yield Line(text=f"{before.where} -> {after.where}", bold=True)
    if not changes:
        yield Line(text=f"no change in meaning (hash {after.hash[:12]})", mark="✓", bold=True)
        return
    counts = Counter(change.direction for change in changes)
    told = ", ".join(f"{counts[each]} {each.value}" for each in Direction if counts[each])
    yield Line(text=told, bold=True)
    for direction in Direction:
        chosen = [change for change in changes if change.direction is direction]
        if chosen:
            yield Line(text=_WORDS[direction][1], bold=True)
        for change in chosen:
            yield from _change(change)


def _change(change: Change) -> Iterator[Line]:
    item = change.item if len(change.item) <= _ITEM_CHARS_MAX else change.item[:117] + "..."
    mark = _WORDS[change.direction][0]
    yield Line(text=f"{change.key}: {change.what} {item} ({change.source})", mark=mark, depth=1)
    if change.why:
        yield Line(text=change.why, depth=2)
    if change.witness is not None:
        yield Line(text=words_of(change.witness), depth=2)
    if change.before is not None and change.after is not None:
        yield Line(text=f"was     {_decision(change.before)}", depth=2)
        yield Line(text=f"becomes {_decision(change.after)}", depth=2)


def words_of(witness: Witness) -> str:
    """Return a witness as ``policy explain`` takes it."""
    return " ".join(
        f"{name.removeprefix('request.')}={_value(value)}" for name, value in witness.facts.items()
    )


def _value(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    return text if len(text) <= _ITEM_CHARS_MAX else text[:117] + "..."


def _decision(decision: Decision) -> str:
    source = f" ({decision.source})" if decision.source else ""
    return f"{decision.verdict.value} {decision.reason.value}, {decision.guard}{source}"


def json_text(before: Policy, after: Policy, changes: Sequence[Change]) -> str:
    """Return everything as JSON, in ASCII."""
    told = {
        "before": {"where": before.where, "hash": before.hash},
        "after": {"where": after.where, "hash": after.hash},
        "sameMeaning": not changes,
        "weaker": any(change.direction is Direction.WEAKER for change in changes),
        "changes": [_json(change) for change in changes],
    }
    return json.dumps(told, indent=2) + "\n"


def _json(change: Change) -> dict[str, object]:
    return {
        "key": change.key,
        "what": change.what,
        "item": change.item,
        "source": change.source,
        "direction": change.direction.value,
        "why": change.why,
        "witness": None if change.witness is None else change.witness.facts,
        "before": _decided(change.before),
        "after": _decided(change.after),
    }


def _decided(decision: Decision | None) -> dict[str, str] | None:
    if decision is None:
        return None
    return {
        "verdict": decision.verdict.value,
        "reason": decision.reason.value,
        "guard": decision.guard,
        "source": decision.source,
    }
