"""Real system calls of a real process fail or kill it (strace): what was acknowledged stays.

The calls are enumerated first: which of them, by number, touch the state. Then four of them,
or ``AESP_SYSCALL_RUNS``, spread from first to last, fail in a run each. After it the process has
said in a line what is wrong, or gone on; the state heals without help; everything verifies.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aesp_proxy.aggregator.enrolment import enrol_host, host_of_state
from aesp_proxy.aggregator.identity import prepare as prepare_region
from aesp_proxy.model.record import Outcome, Record, RecordKind
from aesp_proxy.record.journal import Journal
from aesp_proxy.record.reader import read_state
from aesp_proxy.record.sealer import SealerOptions
from aesp_proxy.record.sealer_process import open_sealer
from aesp_proxy.record.signature import public_from_pem
from aesp_proxy.record.state import audit_paths, ensure_origin, numbered_batches, prepare
from aesp_proxy.record.verify import Pins, verify_place

STRACE = shutil.which("strace")
pytestmark = pytest.mark.skipif(STRACE is None, reason="strace is not installed")

CALLS = ("openat", "write", "fdatasync", "fsync", "rename", "unlink")
RUNS_MAX = int(os.environ.get("AESP_SYSCALL_RUNS", "4"))
WRITER = """
import os, sys
from pathlib import Path
from aesp_proxy.errors import AespError, RecordError
from aesp_proxy.model.record import Outcome, Record, RecordKind
from aesp_proxy.record import rotation
from aesp_proxy.record.journal import Journal, JournalOptions
from aesp_proxy.record.sealer import SealerOptions
from aesp_proxy.record.sealer_process import open_sealer
from aesp_proxy.record.state import audit_paths, load_origin

state = Path(sys.argv[1])

def journalled(number):
    with Journal.open(state, background=False, options=JournalOptions(segment_bytes_max=700)) as j:
        for at in range(4):
            record = Record(
                kind=RecordKind.DECISION, time_ns=number + at, event_type="t", action="http.get",
                outcome=Outcome.SUCCESS, verdict="allow", reason="allowed", guard="g",
                severity="info", message="", resource="r",
            )
            given = j.append(record)
            os.write(1, b"%d/%d\\n" % (given.epoch, given.seq))
            j.sync()

def sealed():
    paths = audit_paths(state)
    open_sealer(paths, load_origin(paths), SealerOptions(heartbeat_s=0)).tick(drain=True)

code = 0
for step in (lambda: journalled(1), sealed, lambda: rotation.ask(audit_paths(state)), sealed,
             lambda: journalled(10), sealed):
    try:
        step()
    except AespError as error:
        sys.stderr.write(str(error) + "\\n")
        code = 4
sys.exit(code)
"""


REGION = """
import sys
from pathlib import Path
from aesp_proxy.aggregator.identity import DataDir, load_receipt_key
from aesp_proxy.aggregator.ingest import IngestLimits
from aesp_proxy.aggregator.ports import Identity, Role
from aesp_proxy.aggregator.store.control import SqliteControl
from aesp_proxy.aggregator.store.ledger import SqliteLedger
from aesp_proxy.aggregator.store.objects import DirectoryObjects
from aesp_proxy.aggregator.writer import Stores, Submission, Writer
from aesp_proxy.aggregator.process import log_to_stderr
from aesp_proxy.errors import AespError

log_to_stderr()
data = DataDir(Path(sys.argv[1]))
code = 0

def told(answer):
    global code
    if isinstance(answer, AespError) or answer.receipt is None:
        code = 4
    else:
        print(number, flush=True)

try:
    objects = DirectoryObjects(data.root)
    ledger, control = SqliteLedger(data.ledger, objects), SqliteControl(data.control)
    ledger.remove_unpromised(["h-test"])
    writer = Writer(
        Stores(ledger=ledger, control=control, objects=objects),
        receipt_key=load_receipt_key(data), limits=IngestLimits(), now_ns=lambda: 2 * 10**18,
        on_stored=lambda: None,
    )
    for number, path in enumerate(sorted((data.root.parent / "sent").iterdir()), start=1):
        writer._serve([
            Submission(data=path.read_bytes(), identity=Identity(role=Role.HOST, name="h-test"),
                       answer=told, fail=told)
        ])
    for store in (ledger, control, objects):
        store.close()
except AespError as error:
    sys.stderr.write(str(error) + "\\n")
    code = 4
sys.exit(code)
"""


def started(state: Path) -> Path:
    """Make a state with its origin and a first record, so that a run only goes on."""
    ensure_origin(prepare(state), wanted="h-test")
    go_on(state)
    return state


def go_on(state: Path) -> None:
    """Write and seal with nothing failing."""
    with Journal.open(state, background=False) as journal:
        journal.append(
            Record(
                kind=RecordKind.DECISION, time_ns=1, event_type="t", action="a",
                outcome=Outcome.SUCCESS, verdict="allow", reason="allowed", guard="g",
                severity="info", message="", resource="r",
            )
        )  # fmt: skip
    open_sealer(audit_paths(state), "h-test", SealerOptions(heartbeat_s=0)).tick(drain=True)


def run(state: Path, *options: str, script: str = WRITER) -> subprocess.CompletedProcess[bytes]:
    assert STRACE is not None
    log = state.parent / "strace.log"
    command = [STRACE, "-f", "-y", "-o", str(log), *options, sys.executable, "-I", "-c", script]
    return subprocess.run(
        [*command, str(state)],
        capture_output=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=120,
        check=False,
    )


def numbers_of(call: str, state: Path, *, script: str = WRITER) -> list[int]:
    """Which calls of this name, counted from 1, touch the state in a run where none fails."""
    done = run(state, "-e", f"trace={call}", script=script)
    if b"PTRACE" in done.stderr or b"ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    found, count = [], Counter[str]()
    for line in (state.parent / "strace.log").read_text(errors="replace").splitlines():
        if f" {call}(" in line:
            count[call] += 1
            if str(state) in line:
                found.append(count[call])
    return found


def spread(numbers: list[int], count: int) -> list[int]:
    """At most so many of them, from the first to the last."""
    if len(numbers) <= count:
        return numbers
    return [numbers[round(at * (len(numbers) - 1) / (count - 1))] for at in range(count)]


@pytest.mark.parametrize("fault", ["error=EIO", "error=ENOSPC", "signal=KILL"])
@pytest.mark.parametrize("call", CALLS)
def test_a_system_call_that_fails_loses_nothing_that_was_acknowledged(
    tmp_path: Path, call: str, fault: str
) -> None:
    numbers = numbers_of(call, started(tmp_path / "clean" / "state"))
    if not numbers:
        pytest.skip(f"a run makes no {call} on its state")
    for number in spread(numbers, RUNS_MAX):
        told = f"{call} {number} {fault}"
        state = started(tmp_path / f"{number}" / "state")
        done = run(state, "-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={number}")
        assert done.returncode in ({-9, 137} if "KILL" in fault else {0, 4}), (told, done.stderr)
        assert b"Traceback" not in done.stderr, (told, done.stderr)
        assert_whole(state, done.stdout.decode().split(), told)


def assert_whole(state: Path, acknowledged: list[str], told: str) -> None:
    assert verify_place(state, Pins()).problems == [], told
    go_on(state)
    report = verify_place(state, Pins())
    assert (report.problems, report.unsealed) == ([], 0), told
    read = [f"{record_id.epoch}/{record_id.seq}" for record_id, _ in read_state(state)]
    assert len(read) == len(set(read)), told
    assert set(acknowledged) <= set(read), told


def region_of(place: Path) -> Path:
    """Make an aggregator's data directory with one host, and five batches of it to take."""
    state, data = place / "host", prepare_region(place / "data", now=datetime.now(UTC))
    ensure_origin(prepare(state), wanted="h-test")
    for _ in range(5):
        go_on(state)
    (place / "sent").mkdir()
    for number, path in numbered_batches(audit_paths(state).batches):
        (place / "sent" / f"{number:03d}").write_bytes(path.read_bytes())
    enrol_host(
        data, host_of_state(state), out=place / "forward", url="https://x", tenants=(),
        now=datetime.now(UTC),
    )  # fmt: skip
    return data.root


@pytest.mark.parametrize("fault", ["error=EIO", "signal=KILL"])
@pytest.mark.parametrize("call", ["openat", "write", "pwrite64", "fdatasync", "fsync", "rename"])
def test_an_aggregator_whose_system_call_fails_promises_only_what_it_keeps(
    tmp_path: Path, call: str, fault: str
) -> None:
    numbers = numbers_of(call, region_of(tmp_path / "clean"), script=REGION)
    if not numbers:
        pytest.skip(f"a run makes no {call} on its data")
    for number in spread(numbers, max(2, RUNS_MAX - 1)):
        told = f"{call} {number} {fault}"
        root = region_of(tmp_path / f"{number}")
        inject = f"inject={call}:{fault}:when={number}"
        done = run(root, "-e", f"trace={call}", "-e", inject, script=REGION)
        assert done.returncode in ({-9, 137} if "KILL" in fault else {0, 3, 4}), (told, done.stderr)
        assert b"Traceback" not in done.stderr, (told, done.stderr)
        promised = [int(word) for word in done.stdout.split()]
        stored = root / "batches" / "h-test"
        kept = [found for found, _ in numbered_batches(stored)] if stored.is_dir() else []
        assert set(promised) <= set(kept), told
        again = run(root, "-e", "trace=none", script=REGION)
        assert (again.returncode, b"Traceback" in again.stderr) == (0, False), told
        assert again.stdout.split() == [b"1", b"2", b"3", b"4", b"5"], told
        assert verify_place(stored, Pins(key=key_of(root))).problems == [], told


def key_of(root: Path) -> bytes:
    return public_from_pem((root / "origins" / "h-test.pub").read_bytes())
