"""What ``policy simulate`` tells: counts, the first changes, and what nobody can know."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from aesp_proxy.cli.policy.replay_rows import Change, Tally
from aesp_proxy.decide.policy.policy import Policy

_ROWS_MAX: Final = 10
_PASSES: Final = frozenset({"allow", "audit"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line for a person."""

    text: str
    mark: str = ""
    depth: int = 0
    bold: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The counts of one replay. ``before`` is None where the record was compared with."""

    candidate: Policy
    before: Policy | None
    tally: Tally
    seconds: float


def notes_of(report: Report) -> Iterator[str]:
    """Yield what holds of every record and could hide a change."""
    policy, before = report.candidate, report.before
    known = {pattern.name for pattern in before.secrets.patterns} if before is not None else set()
    added = sorted(p.name for p in policy.secrets.patterns if p.name not in known)
    if added:
        yield (
            f"contents are not recorded: what {', '.join(added)} would find in them is not known"
        )
    if policy.egress is not None and any(r.network for r in policy.egress.block):
        yield "resolved addresses are not recorded: blocked networks are judged for raw addresses"
    if report.tally.decisions and (policy.paths is not None or policy.path_allow is not None):
        yield "of files the resolved path is recorded: the path as given is taken to be the same"


def lines_of(report: Report) -> Iterator[Line]:
    """Yield the lines for a person."""
    tally = report.tally
    changed = tally.changed.total()
    against = "as recorded" if report.before is None else f"under {report.before.where}"
    yield Line(
        text=f"{tally.decisions:,} decisions under {report.candidate.where}, against {against}",
        bold=True,
    )
    yield Line(text=f"{changed:,} would change", mark="✗" if changed else "✓", bold=True)
    for (was, verdict), count in tally.changed.most_common():
        yield Line(text=f"{count:>9,}  {was} -> {verdict}  ({_direction(was, verdict)})", depth=1)
    yield from _table("by reason", {f"{a} -> {b}": n for (a, b), n in tally.by_reason.items()})
    yield from _table("by host or path", tally.by_host)
    yield from _table(
        "by who would decide",
        {f"{who}{f' {source}' if source else ''}": n for (who, source), n
         in tally.by_decider.items()},
    )  # fmt: skip
    if tally.first:
        yield Line(text=f"The first {len(tally.first)}", bold=True)
        for change in tally.first:
            yield Line(text=_change(change), mark=_mark(change), depth=1)
    yield Line(text="The others", bold=True)
    yield Line(text=f"{tally.same:>9,}  the same", mark="✓", depth=1)
    for (was, reason), count in tally.reason_only.most_common(_ROWS_MAX):
        yield Line(text=f"{count:>9,}  the same verdict, {was} -> {reason}", mark="·", depth=1)
    if tally.beyond:
        text = f"{tally.beyond:>9,}  refused before any policy was asked"
        yield Line(text=text, mark="·", depth=1)
    for why, count in tally.undecided.most_common():
        yield Line(text=f"{count:>9,}  cannot be judged: {why}", mark="!", depth=1)
    for note in notes_of(report):
        yield Line(text=f"note: {note}", mark="!", depth=1)


def _table(title: str, counts: Mapping[str, int]) -> Iterator[Line]:
    if not counts:
        return
    yield Line(text=title, depth=1)
    rows = Counter(counts).most_common()
    for text, count in rows[:_ROWS_MAX]:
        yield Line(text=f"{count:>9,}  {text}", depth=2)
    if len(rows) > _ROWS_MAX:
        rest = sum(count for _, count in rows[_ROWS_MAX:])
        yield Line(text=f"{rest:>9,}  {len(rows) - _ROWS_MAX} more", depth=2)


def _direction(was: str, verdict: str) -> str:
    if was in _PASSES and verdict in _PASSES:
        return "passes both ways"
    if verdict in _PASSES:
        return "weaker: now allowed"
    return "stricter: now refused" if was in _PASSES else "refused both ways"


def _mark(change: Change) -> str:
    return "!" if change.verdict in _PASSES else "✗"


def _change(change: Change) -> str:
    source = f" ({change.source})" if change.source else ""
    return (
        f"{change.record_id} {change.action} {change.resource}: {change.was} {change.was_reason}"
        f" -> {change.verdict} {change.reason}, {change.decider}{source}"
    )


def json_text(report: Report) -> str:
    """Return everything as JSON, in ASCII."""
    tally = report.tally
    told = {
        "policy": {"where": report.candidate.where, "hash": report.candidate.hash},
        "against": None
        if report.before is None
        else {"where": report.before.where, "hash": report.before.hash},
        "decisions": tally.decisions,
        "otherRecords": tally.others,
        "changed": [
            {"was": was, "verdict": verdict, "count": count}
            for (was, verdict), count in tally.changed.most_common()
        ],
        "byReason": [
            {"was": was, "reason": reason, "count": count}
            for (was, reason), count in tally.by_reason.most_common()
        ],
        "byTarget": dict(tally.by_host.most_common()),
        "byDecider": [
            {"decider": decider, "source": source, "count": count}
            for (decider, source), count in tally.by_decider.most_common()
        ],
        "same": tally.same,
        "otherReason": [
            {"was": was, "reason": reason, "count": count}
            for (was, reason), count in tally.reason_only.most_common()
        ],
        "beyondPolicy": tally.beyond,
        "undecided": dict(tally.undecided.most_common()),
        "notes": list(notes_of(report)),
        "first": [_json(change) for change in tally.first],
        "seconds": round(report.seconds, 3),
    }
    return json.dumps(told, indent=2) + "\n"


def _json(change: Change) -> dict[str, object]:
    return {
        "record": change.record_id,
        "timeNs": change.time_ns,
        "action": change.action,
        "resource": change.resource,
        "was": {"verdict": change.was, "reason": change.was_reason},
        "wouldBe": {
            "verdict": change.verdict,
            "reason": change.reason,
            "decider": change.decider,
            "source": change.source,
        },
    }
