"""What replaying a record costs: real batches under a candidate policy, reading included.

``run`` writes the records into a state directory, seals them, and times ``policy
simulate``'s core over the files: inflating, unpacking with every check, judging, counting.
Two policies: one that sees hosts only, and one whose rules read the path of a request, so
that far fewer records look alike.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from aesp_proxy.cli.policy.record_rows import find_records, rows_of
from aesp_proxy.cli.policy.replay_rows import Replay
from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.decide.policy.policy import Policy
from aesp_proxy.decide.replay_judge import Judge
from aesp_proxy.model.decision import Severity
from aesp_proxy.record.files import OS_FILES
from aesp_proxy.record.journal import Journal
from aesp_proxy.record.keys import load_signing_key
from aesp_proxy.record.sealer import Sealer, SealerOptions, Stamp
from aesp_proxy.record.state import audit_paths, load_origin
from benchmarks import harness
from benchmarks.harness import Budget, Result
from benchmarks.record import sample_records

RECORDS: Final = 100_000
MILLION_S_MAX: Final = 60.0
_BATCH: Final = 20_000
_SEED: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayFigure:
    """One run: microseconds of CPU a record, everything included."""

    name: str
    records: int
    us_a_record: float

    @property
    def million_s(self) -> float:
        """Seconds of one core for a million records."""
        return self.us_a_record


def candidate(rules: int) -> Policy:
    """Make a policy of hosts; with ``rules``, such rules that read host and path."""
    allow = "".join(f"      - '*.example-{number}.test'\n" for number in range(0, 37, 2))
    stated = "".join(
        f"  - policy_id: r{number}\n"
        f"    rule: {{condition: \"request.path.startsWith('/v1/x{number}/')"
        f' && request.port == 443", effect: DENY}}\n'
        for number in range(rules)
    )
    text = f"version: '1.2.0'\nname: b\nguards:\n  egress_allowlist:\n    allow:\n{allow}"
    return load_policy(text + (f"rules:\n{stated}" if rules else ""), "b.yaml")


def write_records(state: Path, count: int) -> None:
    """Write and seal ``count`` records under ``state``."""
    for start in range(0, count, _BATCH):
        with Journal.open(state) as journal:
            for record in sample_records(min(_BATCH, count - start), _SEED + start):
                journal.append(replace(record, target_type="network"))
        paths = audit_paths(state)
        sealer = Sealer.open(
            paths,
            load_origin(paths),
            load_signing_key(paths),
            SealerOptions(heartbeat_s=0),
            files=OS_FILES,
            clock=_clock,
        )
        sealer.tick(drain=True)


def _clock() -> Stamp:
    return Stamp(wall_ns=time.time_ns(), mono_ns=time.monotonic_ns(), boot_id="bench")


def measure(state: Path, count: int, rules: int) -> ReplayFigure:
    """Replay everything under ``state`` once."""
    judge = Judge(candidate(rules), {"aws": Severity.CRITICAL})
    replay = Replay(judge)
    started = time.process_time()
    replay.feed(rows_of(find_records(state)))
    tally = replay.result()
    took = time.process_time() - started
    if tally.decisions != count:
        message = f"{tally.decisions} of {count} records were replayed"
        raise RuntimeError(message)
    return ReplayFigure(
        name=f"{rules} rules that read the path" if rules else "hosts only",
        records=count,
        us_a_record=took / count * 1e6,
    )


def run(count: int = RECORDS) -> list[ReplayFigure]:
    """Write ``count`` records and replay them under each policy."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        write_records(state, count)
        return [measure(state, count, rules) for rules in (0, 100)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, judge, print; 1 when the budget is missed."""
    given = sys.argv[1:] if arguments is None else arguments
    options = harness.options("replay", rounds=1, seconds=0.0, arguments=given)
    figures = run(RECORDS // 5 if options.quick else RECORDS)
    result = Result(name="replay")
    for figure in figures:
        result.figures[figure.name] = {"cpu_us_per_record": figure.us_a_record}
        result.budgets.append(
            Budget(
                name=f"seconds of a core for a million records, {figure.name}",
                value=figure.million_s,
                limit=MILLION_S_MAX,
            )
        )
    return harness.show(result, as_json=options.json)


if __name__ == "__main__":
    raise SystemExit(main())
