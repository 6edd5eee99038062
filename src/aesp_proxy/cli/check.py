"""``aesp-proxy check``: decide announced events by a policy, without doing anything.

One JSON object a decision on standard output, in the order of the events. A line that
is no event is refused as malformed and named; the others go on. Symbolic links are
followed on this machine before deciding.

Exit codes: 0 every event is allowed, 2 at least one is refused, 3 the policy cannot be
used, 5 wrong use (also: no event at all, which must not read as "allowed").
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import click

from aesp_proxy.cli.exits import ExitCode
from aesp_proxy.cli.output import line as notice
from aesp_proxy.daemon.policy_files import load_snapshot
from aesp_proxy.daemon.rule_cache import shared_cache_dir
from aesp_proxy.decide.engine import decide
from aesp_proxy.decide.snapshot import Snapshot
from aesp_proxy.errors import InputError
from aesp_proxy.model.decision import Decision, Reason, Severity, Verdict
from aesp_proxy.normalize.announced import (
    announcement,
    event_id_of,
    event_of,
)
from aesp_proxy.normalize.announced_context import context_of
from aesp_proxy.normalize.json_text import EVENT_BYTES_MAX, read_json

_PROGRESS_BYTES_MIN: Final = 4 * 1024 * 1024
_STDIN: Final = "-"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--policy",
    "policy_path",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The policy to decide by.",
)
@click.option(
    "--event",
    "event_text",
    metavar="JSON",
    help="One event as JSON; '-' reads it from standard input, '@FILE' from a file.",
)
@click.option(
    "--events",
    "events_path",
    metavar="FILE.jsonl",
    help="A file with one event a line; '-' reads standard input.",
)
@click.pass_context
def check(
    ctx: click.Context, policy_path: Path, event_text: str | None, events_path: str | None
) -> None:
    """Decide one event or a file of events by a policy, and do nothing else.

    Prints one JSON object a decision. Exit code: 0 all allowed, 2 any refused, 3 the policy
    cannot be used, 5 wrong use.
    """
    if (event_text is None) == (events_path is None):
        raise click.UsageError("give either --event or --events", ctx)
    snapshot = load_snapshot(
        policy_path, fingerprint_key=os.urandom(32), serial=1, cache_dir=shared_cache_dir()
    )
    for warning in snapshot.warnings:
        notice(f"warning: {warning}")
    if event_text is not None:
        decisions = iter([_decide_one(_event_bytes(event_text), "", snapshot)])
    else:
        decisions = _decide_lines(str(events_path), snapshot)
    ctx.exit(_print_all(decisions, flush=events_path == _STDIN))


def _print_all(decisions: Iterator[tuple[str, Decision]], *, flush: bool) -> ExitCode:
    code, count = ExitCode.DONE, 0
    for event_id, decision in decisions:
        count += 1
        if not decision.verdict.passes:
            code = ExitCode.REFUSED
        sys.stdout.write(_told(event_id, decision))
        if flush:
            sys.stdout.flush()
    if not count:
        raise InputError("there is no event to decide", remedy="give one JSON object a line")
    return code


def _decide_lines(events_path: str, snapshot: Snapshot) -> Iterator[tuple[str, Decision]]:
    with _opened(events_path) as (file, length), _progress(length) as advance:
        for number, line in enumerate(_lines(file), start=1):
            if line.strip():
                yield _decide_one(line, f"line {number}: ", snapshot)
            advance(len(line))


def _decide_one(data: bytes, place: str, snapshot: Snapshot) -> tuple[str, Decision]:
    """Return the event's id and the decision; what is no event is denied as malformed."""
    event_id = ""
    try:
        value = read_json(data)
        event_id = event_id_of(value)
        said = announcement(value, time_ns=time.time_ns())
        event = event_of(said, resolve=os.path.realpath)
        context = context_of(said)
    except InputError as error:
        return event_id, _malformed(f"{place}{error}", snapshot)
    return event_id, decide(event, snapshot, context)


def _malformed(message: str, snapshot: Snapshot) -> Decision:
    return Decision(
        verdict=Verdict.DENY,
        reason=Reason.MALFORMED,
        guard="normalize",
        severity=Severity.WARNING,
        message=message,
        policy_name=snapshot.policy_name,
        policy_hash=snapshot.policy_hash,
    )


def _told(event_id: str, decision: Decision) -> str:
    """Return a decision as one line of JSON, in ASCII: nothing in it drives a terminal."""
    line: dict[str, object] = {
        "eventId": event_id,
        "verdict": decision.verdict.value,
        "reason": decision.reason.value,
        "guard": decision.guard,
        "severity": decision.severity.word,
        "message": decision.message,
    }
    if decision.source:
        line["source"] = decision.source
    if decision.findings:
        line["findings"] = [
            {
                "rule": finding.rule,
                "severity": finding.severity.word,
                "location": finding.where,
                "offset": finding.offset,
                "masked": finding.masked,
                "fingerprint": finding.fingerprint,
            }
            for finding in decision.findings
        ]
    if decision.rules:
        line["rules"] = list(decision.rules)
    if decision.rule_errors:
        line["ruleErrors"] = list(decision.rule_errors)
    if decision.remediation:
        line["remediation"] = list(decision.remediation)
    return json.dumps(line) + "\n"


def _event_bytes(text: str) -> bytes:
    if text == _STDIN:
        return sys.stdin.buffer.read(EVENT_BYTES_MAX + 1)
    if text.startswith("@"):
        with _opened(text[1:]) as (file, _):
            return file.read(EVENT_BYTES_MAX + 1)
    return text.encode("utf-8", "surrogateescape")


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield lines; of one longer than an event may be, only as much as shows that."""
    while line := file.readline(EVENT_BYTES_MAX + 1):
        yield line
        while len(line) > EVENT_BYTES_MAX and not line.endswith(b"\n"):
            line = file.readline(EVENT_BYTES_MAX + 1)
            if not line:
                return


@contextmanager
def _opened(path: str) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file of events, or standard input; with its length, 0 where it has none."""
    if path == _STDIN:
        yield sys.stdin.buffer, 0
        return
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - closed below, where reading may fail too
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path is not valid"
        raise InputError(f"events cannot be read: {reason}", where=path) from None
    with file:
        try:
            yield file, os.fstat(file.fileno()).st_size
        except OSError as error:
            raise InputError(f"events cannot be read: {error.strerror}", where=path) from None


@contextmanager
def _progress(length: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on standard error for a long file, where a person sees it and nothing else."""
    if length < _PROGRESS_BYTES_MIN or not sys.stderr.isatty() or sys.stdout.isatty():
        yield lambda _bytes: None
        return
    with click.progressbar(length=length, label="deciding", file=sys.stderr) as bar:
        yield bar.update
