"""The short account at the end of a run: what passed, what did not and why.

Pure: records in, lines out. An allowed CONNECT is not counted, as the requests in
it are; an allowed attempt that was refused half way (a secret in its body) counts
as refused, once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from aesp_proxy.model.record import Outcome, Record, RecordKind

_TOP: Final = 5
_CONNECT: Final = "tcp.connect"
_FILES: Final = "file."


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Counts of a run; ``refusals`` is ((reason, host), count), most frequent first.

    ``broken`` counts allowed tunnels that ended before TLS stood: mostly a client that
    does not trust the host CA. ``files`` counts allowed accesses to files, each once.
    ``found`` is ((rule, place), count) of what was found and let pass.
    """

    allowed: int
    refused: int
    failed: int
    broken: int
    files: int
    refusals: tuple[tuple[tuple[str, str], int], ...]
    found: tuple[tuple[tuple[str, str], int], ...] = ()


def summarise(records: Iterable[Record]) -> Summary:
    """Count the records of one run; one pass, memory bounded by distinct refusals."""
    allowed = failed = broken = files = 0
    refusals: Counter[tuple[str, str]] = Counter()
    found: Counter[tuple[str, str]] = Counter()
    for record in records:
        if record.outcome is not Outcome.DENIED:
            found.update((finding.rule, _place(record)) for finding in record.findings)
        match record.kind:
            case RecordKind.DECISION if record.outcome is Outcome.DENIED:
                refusals[record.reason, _place(record)] += 1
            case RecordKind.DECISION if record.action.startswith(_FILES):
                files += 1
            case RecordKind.DECISION:
                allowed += record.action != _CONNECT
            case RecordKind.OUTCOME if record.outcome is Outcome.DENIED:
                allowed -= record.action != _CONNECT
            case RecordKind.OUTCOME if record.outcome is Outcome.FAILURE:
                if record.action == _CONNECT:
                    broken += 1
                else:
                    failed += 1
            case _:
                continue
    return Summary(
        allowed=allowed,
        refused=refusals.total(),
        failed=failed,
        broken=broken,
        files=files,
        refusals=_most_first(refusals),
        found=_most_first(found),
    )


def _most_first(counts: Counter[tuple[str, str]]) -> tuple[tuple[tuple[str, str], int], ...]:
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _place(record: Record) -> str:
    return record.target_host or record.resource or "-"


def render(summary: Summary, *, state_dir: str, epochs: Sequence[int]) -> list[str]:
    """Return the lines that a person sees."""
    failed = f", of these {summary.failed} did not come off" if summary.failed else ""
    files = f", of files {summary.files}" if summary.files else ""
    lines = [f"allowed {summary.allowed}{failed}{files}, refused {summary.refused}"]
    lines += _kinds(summary.refusals)
    if summary.broken:
        lines.append(f"  {summary.broken} tunnels ended before TLS stood: is the host CA trusted?")
    if summary.found:
        lines.append("found in what passed, recorded or masked as the policy says:")
        lines += _kinds(summary.found)
    if summary.refused:
        lines.append(f"why: aesp-proxy why --state {state_dir}")
    of = f"epoch {epochs[0]}" if len(epochs) == 1 else f"epochs {', '.join(map(str, epochs))}"
    lines.append(f"record: {state_dir} ({of}); verify: aesp-proxy audit verify {state_dir}")
    return lines


def _kinds(counted: tuple[tuple[tuple[str, str], int], ...]) -> list[str]:
    lines = [f"  {count} x {kind}: {place}" for (kind, place), count in counted[:_TOP]]
    more = len(counted) - _TOP
    return [*lines, f"  and {more} more kinds"] if more > 0 else lines
