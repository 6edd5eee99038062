"""The short account at the end of a run: what passed, what did not and why.

Pure: records in, lines out. An allowed CONNECT is not counted, as the requests in
it are; an allowed attempt that was refused half way (a secret in its body) counts
as refused, once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from aesp_proxy.model.record import Outcome, Record, RecordKind

_TOP: Final = 5
_CONNECT: Final = "tcp.connect"


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Counts of a run; ``refusals`` is ((reason, host), count), most frequent first."""

    allowed: int
    refused: int
    failed: int
    refusals: tuple[tuple[tuple[str, str], int], ...]


def summarise(records: Iterable[Record]) -> Summary:
    """Count the records of one run; one pass, memory bounded by distinct refusals."""
    allowed = failed = 0
    refusals: Counter[tuple[str, str]] = Counter()
    for record in records:
        match record.kind:
            case RecordKind.DECISION if record.outcome is Outcome.DENIED:
                refusals[record.reason, _place(record)] += 1
            case RecordKind.DECISION:
                allowed += record.action != _CONNECT
            case RecordKind.OUTCOME if record.outcome is Outcome.DENIED:
                allowed -= record.action != _CONNECT
            case RecordKind.OUTCOME if record.outcome is Outcome.FAILURE:
                failed += 1
            case _:
                continue
    top = tuple(sorted(refusals.items(), key=lambda item: (-item[1], item[0])))
    return Summary(allowed=allowed, refused=refusals.total(), failed=failed, refusals=top)


def _place(record: Record) -> str:
    return record.target_host or record.resource or "-"


def render(summary: Summary, *, state_dir: str, epoch: int) -> list[str]:
    """Return the lines that a person sees."""
    failed = f", of these {summary.failed} did not come off" if summary.failed else ""
    lines = [f"allowed {summary.allowed}{failed}, refused {summary.refused}"]
    for (reason, place), count in summary.refusals[:_TOP]:
        lines.append(f"  {count} x {reason}: {place}")
    more = len(summary.refusals) - _TOP
    if more > 0:
        lines.append(f"  and {more} more kinds")
    lines.append(
        f"record: {state_dir} (epoch {epoch}); verify: aesp-proxy audit verify {state_dir}"
    )
    lines.append(
        "only programs that heed the proxy variables passed through here; others are not caught yet"
    )
    return lines
