"""Rows of the record under a candidate policy: judged once a kind, counted many times.

Two records that agree in everything that a policy can see get one answer, so it is kept:
what a policy can see follows from the facts that its rules read. Memory is bounded; what
is dropped is counted first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final

from aesp_proxy.decide.policy.policy import Policy
from aesp_proxy.decide.replay_judge import Judge, Judgement, Standing
from aesp_proxy.decide.rules import Rules
from aesp_proxy.record.canonical import POSITION, decode_row, record_of

KEPT_MAX: Final = 65_536
HOSTS_MAX: Final = 10_000
_OTHER: Final = "(other)"
_DECISION: Final = "decision"
_ALWAYS: Final = (
    "action", "target_type", "target_host", "target_port", "verdict", "reason", "guard",
    "message", "policy_hash",
)  # fmt: skip
_SEEN: Final = {
    "request.source_ip": "source_ip", "request.user.id": "principal_id",
    "request.tenant.id": "tenant_id", "agent.id": "agent_id", "agent.type": "agent_type",
    "agent.session_id": "session_id",
}  # fmt: skip
_BY_PATH: Final = frozenset({"file", "tool", "custom"})
_OF_PATH: Final = frozenset({"request.path", "request.scheme"})
_KIND, _TIME = POSITION["kind"], POSITION["time_ns"]
_TYPE, _FINDINGS = POSITION["target_type"], POSITION["findings"]
_APPLIED, _HOST = POSITION["applied_policies"], POSITION["target_host"]
_IDENTITY: Final = itemgetter(POSITION["origin"], POSITION["epoch"], POSITION["seq"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One record that would be decided otherwise."""

    record_id: str
    time_ns: int
    resource: str
    action: str
    was: str
    was_reason: str
    verdict: str
    reason: str
    decider: str
    source: str


@dataclass(slots=True)
class _Cell:
    """What became of one kind of record, and how many there were."""

    judgement: Judgement
    was: str
    was_reason: str
    host: str
    count: int = 0

    @property
    def changes(self) -> bool:
        judged = self.judgement.standing is Standing.JUDGED
        return judged and self.judgement.verdict != self.was


@dataclass(slots=True, kw_only=True)
class Tally:
    """Everything counted. ``changed`` is by verdict, was and would be."""

    decisions: int = 0
    others: int = 0
    same: int = 0
    beyond: int = 0
    changed: Counter[tuple[str, str]] = field(default_factory=Counter)
    reason_only: Counter[tuple[str, str]] = field(default_factory=Counter)
    undecided: Counter[str] = field(default_factory=Counter)
    by_reason: Counter[tuple[str, str]] = field(default_factory=Counter)
    by_host: Counter[str] = field(default_factory=Counter)
    by_decider: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: list[Change] = field(default_factory=list)

    def add(self, cell: _Cell) -> None:
        """Count a kind of record in."""
        judgement, count = cell.judgement, cell.count
        match judgement.standing:
            case Standing.BEYOND:
                self.beyond += count
            case Standing.UNDECIDED:
                self.undecided[judgement.why] += count
            case Standing.JUDGED if cell.changes:
                self.changed[cell.was, judgement.verdict] += count
                self.by_reason[cell.was_reason, judgement.reason] += count
                self.by_decider[judgement.decider, judgement.source] += count
                known = cell.host in self.by_host or len(self.by_host) < HOSTS_MAX
                self.by_host[cell.host if known else _OTHER] += count
            case Standing.JUDGED if judgement.reason != cell.was_reason:
                self.reason_only[cell.was_reason, judgement.reason] += count
            case Standing.JUDGED:
                self.same += count


class Replay:
    """Feeds rows to a judge, and to the judge of another policy for what was.

    ``limit`` is how many changes are kept one by one; times are UTC nanoseconds, ``since``
    inclusive, ``until`` not.
    """

    def __init__(
        self,
        judge: Judge,
        against: Judge | None = None,
        *,
        limit: int = 20,
        since_ns: int = 0,
        until_ns: int = 2**63,
    ) -> None:
        self._judge, self._against, self._limit = judge, against, limit
        self._since_ns, self._until_ns = since_ns, until_ns
        self._cells: dict[object, _Cell] = {}
        self._shared: dict[object, _Cell] = {}
        self._tally = Tally()
        policies = [judge.policy] + ([against.policy] if against is not None else [])
        seen = frozenset().union(*(_facts_seen(each) for each in policies))
        self._keeps = "request.time" not in seen and not any(each.grants for each in policies)
        names = (*_ALWAYS, *(_SEEN[name] for name in sorted(seen) if name in _SEEN))
        by_path = (*names, "target_path", "resource")
        self._key_of = itemgetter(*(POSITION[name] for name in by_path))
        network = by_path if seen & _OF_PATH else names
        self._network_key_of = itemgetter(*(POSITION[name] for name in network))

    def feed(self, rows: Iterable[bytes], progress: Callable[[int], None] | None = None) -> None:
        """Judge and count rows; ``progress`` is told how many were read, now and then."""
        every = 4_095
        tally, cells, keeps = self._tally, self._cells, self._keeps
        for number, row in enumerate(rows, start=1):
            if progress is not None and not number & every:
                progress(number)
            values = decode_row(row)
            if values[_KIND] != _DECISION:
                tally.others += 1
                continue
            if not self._since_ns <= values[_TIME] < self._until_ns:
                continue
            tally.decisions += 1
            if not keeps or values[_FINDINGS]:
                cell = self._cell(values)
            else:
                key = self._key(values)
                known = cells.get(key)
                cell = self._keep(key, values) if known is None else known
            cell.count += 1
            if cell.changes and len(tally.first) < self._limit:
                tally.first.append(_change(values, cell))

    def result(self) -> Tally:
        """Return the counts."""
        self._count_kept()
        return self._tally

    def _key(self, values: Sequence[Any]) -> object:
        key = (self._key_of if values[_TYPE] in _BY_PATH else self._network_key_of)(values)
        return (key, tuple(values[_APPLIED])) if self._against is not None else key

    def _keep(self, key: object, values: list[Any]) -> _Cell:
        if len(self._cells) >= KEPT_MAX:
            self._cells.clear()
        cell = self._cells[key] = self._cell(values)
        return cell

    def _count_kept(self) -> None:
        for cell in self._shared.values():
            self._tally.add(cell)
        self._shared.clear()
        self._cells.clear()

    def _cell(self, values: list[Any]) -> _Cell:
        _, record = record_of(values)
        judgement = self._judge.judge(record)
        was, was_reason = record.verdict, record.reason
        if self._against is not None:
            before = self._against.judge(record)
            if before.standing is Standing.JUDGED:
                was, was_reason = before.verdict, before.reason
            elif judgement.standing is Standing.JUDGED:
                judgement = before
        host = record.target_host or record.target_path
        same = (judgement, was, was_reason, host)
        cell = self._shared.get(same)
        if cell is None:
            if len(self._shared) >= KEPT_MAX:
                self._count_kept()
            cell = self._shared[same] = _Cell(judgement, was, was_reason, host)
        return cell


def _facts_seen(policy: Policy) -> frozenset[str]:
    return frozenset().union(*(rule.condition.facts for rule in Rules(policy.rules).rules))


def _change(values: Sequence[Any], cell: _Cell) -> Change:
    origin, epoch, seq = _IDENTITY(values)
    judgement = cell.judgement
    return Change(
        record_id=f"{origin}/{epoch}/{seq}",
        time_ns=values[_TIME],
        resource=values[POSITION["resource"]],
        action=values[POSITION["action"]],
        was=cell.was,
        was_reason=cell.was_reason,
        verdict=judgement.verdict,
        reason=judgement.reason,
        decider=judgement.decider,
        source=judgement.source,
    )
