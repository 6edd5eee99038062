"""Real processes, really killed: what was acknowledged is in the record, and it verifies."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

from aesp_proxy.record.reader import read_state
from aesp_proxy.record.verify import Pins, verify_place

WRITER = """
import os, sys
from pathlib import Path
from aesp_proxy.model.record import Outcome, Record, RecordKind
from aesp_proxy.record.journal import Journal, JournalOptions

journal = Journal.open(Path(sys.argv[1]), options=JournalOptions(segment_bytes_max=20_000))
number = 0
while True:
    number += 1
    record = Record(
        kind=RecordKind.DECISION, time_ns=number, event_type="t", action="http.get",
        outcome=Outcome.SUCCESS, verdict="allow", reason="allowed", guard="g", severity="info",
        message="", resource=f"https://h{number}.test/",
    )
    given = journal.append(record)
    os.write(1, b"%d/%d\\n" % (given.epoch, given.seq))
"""
ROUNDS = 6


def start(arguments: list[str], **options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, *arguments], **options)  # type: ignore[call-overload,no-any-return]


def start_sealer(state: Path) -> subprocess.Popen[bytes]:
    return start(
        [
            "-m", "aesp_proxy.record.sealer_process", "--state", str(state),
            "--seal-bytes-max", "3000", "--seal-s-max", "0.05",
        ],
        stdin=subprocess.PIPE,
    )  # fmt: skip


def write_and_kill(state: Path, lines: int) -> list[str]:
    """Let a writer acknowledge so many records and kill it; gives what it acknowledged."""
    writer = start(["-c", WRITER, str(state)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    try:
        acknowledged = [writer.stdout.readline() for _ in range(lines)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += writer.stdout.read().splitlines(keepends=True)
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
    return [line.decode().strip() for line in acknowledged if line.endswith(b"\n")]


def put_down(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def finish(sealer: subprocess.Popen[bytes]) -> int:
    try:
        assert sealer.stdin is not None
        sealer.stdin.close()
        return sealer.wait(60)
    finally:
        put_down(sealer)


def test_killed_writers_and_sealers_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    chance = random.Random(7)
    state = tmp_path / "state"
    acknowledged: list[str] = []
    sealer = start_sealer(state)
    try:
        for _ in range(ROUNDS):
            acknowledged += write_and_kill(state, chance.randrange(1, 400))
            put_down(sealer)
            report = verify_place(state, Pins())
            assert report.problems == []
            sealer = start_sealer(state)
    finally:
        assert finish(sealer) == 0
    report = verify_place(state, Pins())
    assert report.problems == []
    assert report.unsealed == 0
    read = [f"{i.epoch}/{i.seq}" for i, _ in read_state(state)]
    assert len(read) == len(set(read)) == report.records
    assert set(acknowledged) <= set(read)


def test_two_sealers_on_one_state_make_one_chain(tmp_path: Path) -> None:
    state = tmp_path / "state"
    sealers = [start_sealer(state) for _ in range(2)]
    try:
        acknowledged = write_and_kill(state, 300)
        assert finish(sealers[0]) == 0
        acknowledged += write_and_kill(state, 300)
    finally:
        codes = [finish(sealer) for sealer in sealers[1:]]
    assert codes == [0]
    report = verify_place(state, Pins())
    assert (report.problems, report.unsealed) == ([], 0)
    assert report.records >= len(acknowledged) == len(set(acknowledged))


def test_a_sealer_that_is_told_to_stop_seals_the_rest_first(tmp_path: Path) -> None:
    state = tmp_path / "state"
    acknowledged = write_and_kill(state, 50)
    sealer = start_sealer(state)
    sealer.send_signal(signal.SIGINT)
    sealer.send_signal(signal.SIGTERM)
    code = sealer.wait(30)
    assert sealer.stdin is not None
    sealer.stdin.close()
    report = verify_place(state, Pins())
    # A signal that comes before the handlers stand ends it at once: then nothing is sealed yet.
    assert code in {0, -signal.SIGINT, -signal.SIGTERM}
    assert report.problems == []
    assert report.records + report.unsealed >= len(acknowledged)
    assert report.unsealed == 0 or code != 0
