"""``aesp-proxy audit``: read, verify and ship the record of a host.

Everything that is shown comes from records and may hold terminal escapes, so it
goes out through ``printable``. Verifying needs no network and changes nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from aesp_proxy.cli.exits import ExitCode
from aesp_proxy.cli.output import error_line, line, printable
from aesp_proxy.errors import ConfigError, InputError

if TYPE_CHECKING:
    from aesp_proxy.model.record import Record, RecordId
    from aesp_proxy.record.chain import Problem
    from aesp_proxy.record.state import AuditPaths
    from aesp_proxy.record.verify import Report

_FOLLOW_S: Final = 0.25
_PROGRESS_BATCHES_MIN: Final = 50
_CELL_CHARS_MAX: Final = 160

_state_option = click.option(
    "--state",
    "state",
    type=click.Path(path_type=Path),
    help="State directory; by default the one that `run` uses.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def audit() -> None:
    """Read, verify and ship the record."""


def _state_dir(state: Path | None) -> Path:
    if state is not None:
        return state
    from aesp_proxy.daemon.config_load import default_state_dir

    return default_state_dir(os.environ, is_root=os.geteuid() == 0)


def paths_of(state: Path | None) -> AuditPaths:
    """Return where the record of a state directory is; ConfigError where it is none."""
    from aesp_proxy.record.verify import locate

    directory = _state_dir(state)
    place = locate(directory)
    if place.audit is None:
        raise ConfigError("is no state directory", where=str(directory))
    return place.audit


@audit.command()
@_state_option
@click.option("-f", "--follow", is_flag=True, help="Wait for more.")
@click.option("-n", "--lines", type=click.IntRange(0), default=20, help="The last so many.")
@_json_option
def tail(*, state: Path | None, follow: bool, lines: int, as_json: bool) -> None:
    """Show the newest records, sealed or not."""
    from collections import deque

    from aesp_proxy.record.reader import StateReader

    reader = StateReader(paths_of(state))
    reader.skip_to_last(lines)
    last: deque[tuple[RecordId, Record]] = deque(reader.new_entries(), maxlen=lines)
    _show_entries(iter(last), as_json=as_json)
    try:
        while follow:
            time.sleep(_FOLLOW_S)
            _show_entries(reader.new_entries(), as_json=as_json)
    except KeyboardInterrupt:
        return


def _show_entries(entries: Iterator[tuple[RecordId, Record]], *, as_json: bool) -> None:
    for record_id, record in entries:
        if as_json:
            click.echo(json.dumps(record_dict(record_id, record)))
        else:
            click.echo(_as_line(record_id, record))
    sys.stdout.flush()


def _as_line(record_id: RecordId, record: Record) -> str:
    stamp = time_text(record.time_ns)[11:23]
    place = f"{record_id.epoch}/{record_id.seq}"
    verdict = record.verdict or record.kind.value
    cells = [record.action, record.resource, record.reason]
    if record.status:
        cells.append(str(record.status))
    if record.message and record.reason != "allowed":
        cells.append(record.message)
    told = " ".join(_cell(cell) for cell in cells if cell)
    return f"{stamp} {place:>10} {_cell(record.kind.value):<9} {_cell(verdict):<6} {told}"


def _cell(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= _CELL_CHARS_MAX else shown[: _CELL_CHARS_MAX - 1] + "…"


def time_text(time_ns: int) -> str:
    """Return nanoseconds since 1970 as RFC 3339 in UTC."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    try:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{time_ns}ns"
    return f"{moment}.{nanoseconds:09d}Z"


def record_dict(record_id: RecordId, record: Record) -> dict[str, Any]:
    """Give a record as JSON says it, its identity and time first."""
    from dataclasses import asdict

    # json.dumps escapes every control character and everything that is not ASCII.
    values = {**asdict(record), "metadata": dict(record.metadata)}
    for finding in values["findings"]:
        finding["severity"] = finding["severity"].word
    return {"id": str(record_id), "time": time_text(record.time_ns), **values}


@audit.command()
@click.argument("directory", type=click.Path(path_type=Path), required=False)
@click.option("--key", type=click.Path(path_type=Path), help="The origin's public key (PEM).")
@click.option("--receipt", type=click.Path(path_type=Path), help="A receipt you kept.")
@click.option(
    "--aggregator-key", type=click.Path(path_type=Path), help="The aggregator's key (PEM)."
)
@click.option(
    "--proof", type=click.Path(path_type=Path), help="One event: what `aggregator proof` prints."
)
@click.option("--log-key", "log_keys", multiple=True, metavar="KEY", help="The log's, or a file.")
@click.option("--witness-key", "witness_keys", multiple=True, metavar="KEY", help="Who cosigned.")
@click.option("--witnesses", "need", type=int, metavar="N", help="So many of them; else all.")
@click.option("--log-policy", type=click.Path(path_type=Path), help="Instead, a C2SP tlog-policy.")
@_json_option
def verify(
    *,
    directory: Path | None,
    key: Path | None,
    receipt: Path | None,
    aggregator_key: Path | None,
    proof: Path | None,
    log_keys: tuple[str, ...],
    witness_keys: tuple[str, ...],
    need: int | None,
    log_policy: Path | None,
    as_json: bool,
) -> int:
    """Prove the record in DIRECTORY, off line, or say which record is wrong and how.

    DIRECTORY is a state directory, its audit directory, or a directory with the
    .batch files of one origin (an aggregator's copy). With --proof instead, prove one
    event: that its host signed it, and with --log-key that the log holds it. Exit code
    0: it holds; 1: it does not; 3: no record or no key there; 4: a file cannot be read.
    """
    from aesp_proxy.cli.audit_proof import LogWords, verify_proof_file
    from aesp_proxy.keys import read_bounded
    from aesp_proxy.record.signature import public_from_pem
    from aesp_proxy.record.verify import Pins, verify_place

    pinned = public_from_pem(read_bounded(key), where=str(key)) if key else None
    if (directory is None) == (proof is None):
        raise click.UsageError("give one of DIRECTORY and --proof FILE")
    log_words = LogWords(log_keys=log_keys, witness_keys=witness_keys, need=need, policy=log_policy)
    if proof is not None:
        return verify_proof_file(proof, key=pinned, words=log_words, as_json=as_json)
    if directory is None or log_words != LogWords():
        raise click.UsageError("--log-key and its like belong to --proof")
    pins = Pins(
        key=pinned,
        receipt=read_bounded(receipt) if receipt else None,
        aggregator_key=public_from_pem(read_bounded(aggregator_key), where=str(aggregator_key))
        if aggregator_key
        else None,
    )
    progress = _Progress(shown=sys.stderr.isatty() and not as_json)
    report = verify_place(directory, pins, progress=progress.at)
    progress.clear()
    if as_json:
        click.echo(json.dumps(_report_dict(report)))
    else:
        _show_report(report, directory)
    return ExitCode.FINDINGS if report.problems else ExitCode.DONE


class _Progress:
    """A bar on standard error, for records long enough to wait for."""

    def __init__(self, *, shown: bool) -> None:
        self._shown, self._drawn_s, self._is_drawn = shown, 0.0, False

    def at(self, done: int, total: int) -> None:
        now = time.monotonic()
        if not self._shown or total < _PROGRESS_BATCHES_MIN or now - self._drawn_s < 0.1:
            return
        self._drawn_s, self._is_drawn = now, True
        bar = "█" * (30 * done // total)
        sys.stderr.write(f"\r{bar:<30} {done}/{total} batches")
        sys.stderr.flush()

    def clear(self) -> None:
        if self._is_drawn:
            sys.stderr.write("\r" + " " * 70 + "\r")


def _show_report(report: Report, directory: Path) -> None:
    for problem in report.problems:
        click.echo(f"WRONG {_problem_text(problem)}")
    for note in report.notes:
        click.echo(f"note  {_problem_text(note)}")
    told = f"{_count(report.records, 'record')} in {_count(report.batches, 'batch', 'es')}"
    if report.origin:
        told += f" of {report.origin}"
    if report.unsealed:
        told += f", and {report.unsealed} not sealed yet"
    if report.lost:
        told += f"; {_count(report.lost, 'record')} lost, says the host itself"
    wrong = len(report.problems)
    verdict = "holds:" if not wrong else f"{_count(wrong, 'problem')}; what holds:"
    click.echo(printable(f"{verdict} {told}"))
    if not report.key_is_pinned:
        line(
            f"the key came from {directory} itself; to prove whose record it is, "
            "give the key you know with --key"
        )


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{'' if number == 1 else plural}"


def _problem_text(problem: Problem) -> str:
    where = [problem.place]
    if problem.batch_no and f"{problem.batch_no:010d}" not in problem.place:
        where.append(f"batch {problem.batch_no}")
    if problem.record:
        where.append(f"record {problem.record}")
    return printable(f"{problem.kind.value}: {', '.join(where)}: {problem.message}")


def _report_dict(report: Report) -> dict[str, Any]:
    return {
        "ok": not report.problems,
        "origin": report.origin,
        "batches": report.batches,
        "records": report.records,
        "unsealed": report.unsealed,
        "lost": report.lost,
        "newest_batch": report.newest_batch,
        "receipt_batch": report.receipt_batch,
        "key_is_pinned": report.key_is_pinned,
        "problems": [_problem_dict(problem) for problem in report.problems],
        "notes": [_problem_dict(note) for note in report.notes],
    }


def _problem_dict(problem: Problem) -> dict[str, Any]:
    return {
        "kind": problem.kind.value,
        "place": problem.place,
        "batch": problem.batch_no,
        "record": problem.record,
        "message": problem.message,
    }


@audit.command()
@click.argument("record_id")
@_state_option
@_json_option
def show(*, record_id: str, state: Path | None, as_json: bool) -> None:
    """Show one record, EPOCH/SEQ or ORIGIN/EPOCH/SEQ, and the batch that holds it."""
    from aesp_proxy.model.record import RecordId
    from aesp_proxy.record.chain import declared_losses
    from aesp_proxy.record.reader import find_record
    from aesp_proxy.record.state import load_origin

    paths = paths_of(state)
    origin = load_origin(paths)
    epoch, seq = _parse_id(record_id, origin)
    record, header = find_record(paths, epoch, seq)
    shown = record_dict(RecordId(origin=origin, epoch=epoch, seq=seq), record)
    shown["batch"] = header.batch_no if header else None
    if header and (header.lost or header.dropped):
        shown["batch_declares"] = declared_losses(header)
    if as_json:
        click.echo(json.dumps(shown))
        return
    for name, value in shown.items():
        if value not in ("", 0, (), {}, None):
            text = value if isinstance(value, str) else json.dumps(value)
            click.echo(f"{name:<18} {printable(text)}")
    if header is None:
        click.echo("not sealed yet")


def _parse_id(text: str, origin: str) -> tuple[int, int]:
    parts = text.split("/")
    named, numbers = (parts[0], parts[1:]) if len(parts) == 3 else (origin, parts)
    if len(numbers) != 2 or not all(part.isascii() and part.isdigit() for part in numbers):
        raise InputError(f"{text!r} is no record id", remedy="write EPOCH/SEQ, such as 3/17")
    if named != origin:
        raise InputError(f"this is the record of {origin}, not of {named!r}")
    return int(numbers[0]), int(numbers[1])


@audit.command()
@_state_option
@click.option("--rotate", is_flag=True, help="Hand over to a new key, which the old one signs.")
@_json_option
def keys(*, state: Path | None, rotate: bool, as_json: bool) -> None:
    """List the keys that signed this record, and the one that signs now."""
    from aesp_proxy.cli import audit_keys

    paths = paths_of(state)
    if rotate:
        audit_keys.rotate(paths)
    audit_keys.show_keys(paths, as_json=as_json)


@audit.command()
@_state_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "csv"]),
    default="jsonl",
    show_default=True,
    help="JSON lines, or a table in which no cell is a formula.",
)
@click.option("--since", metavar="TIME", help="From here on: 2026-01-31T12:00:00Z.")
@click.option("--until", metavar="TIME", help="Up to here, not included.")
@click.option("--out", type=click.Path(path_type=Path), help="A new file; else standard output.")
def export(
    *, state: Path | None, form: str, since: str | None, until: str | None, out: Path | None
) -> None:
    """Write the records, sealed or not, for other programs to read."""
    from aesp_proxy.cli.audit_export import Span, export_records

    span = Span.of(since, until)
    count = export_records(paths_of(state), form=form, span=span, out=out)
    line(f"{_count(count, 'record')} exported")


@audit.command()
@_state_option
@click.option(
    "--forward",
    "forward",
    type=click.Path(path_type=Path),
    help="What enrolment wrote; by default STATE/forward.",
)
@_json_option
def ship(*, state: Path | None, forward: Path | None, as_json: bool) -> int:
    """Send what is sealed to the aggregator now, once."""
    from aesp_proxy.errors import UnavailableError
    from aesp_proxy.forward.ship_process import make_shipper, take_turn

    paths = paths_of(state)
    lock = take_turn(paths)
    if lock is None:
        raise UnavailableError("another process is shipping this record", remedy="let it")
    try:
        shipper, transport = make_shipper(paths, forward or paths.root.parent / "forward")
        try:
            shipped = shipper.ship_once()
        finally:
            transport.close()
    finally:
        lock.release()
    if as_json:
        click.echo(
            json.dumps(
                {"sent": shipped.sent, "covered": shipped.covered, "waiting": shipped.waiting}
            )
        )
    else:
        click.echo(
            f"{_count(shipped.sent, 'batch', 'es')} sent, a receipt covers batch "
            f"{shipped.covered}, {shipped.waiting} waiting"
        )
    if shipped.waiting:
        error_line("not everything is covered yet")
    return ExitCode.FINDINGS if shipped.waiting else ExitCode.DONE
