"""``aesp-proxy why``: what was refused lately, by what, and who could let it pass.

Reads the record of a host, while a command runs or after it. Inside a run, where there is
no record to read, it asks the run itself (``why_inside``). Everything shown comes from
records and may hold terminal escapes, so it goes out through ``printable``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aesp_proxy.cli.exits import ExitCode
from aesp_proxy.cli.output import error_line, printable
from aesp_proxy.cli.why_inside import ask_at_door
from aesp_proxy.daemon.config_values import WHY_VARIABLE

if TYPE_CHECKING:
    from aesp_proxy.daemon.refusals import Refusal


@click.command()
@click.argument("what", required=False)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="State directory; by default the one that `run` uses.",
)
@click.option("-n", "--last", type=click.IntRange(1, 1000), default=5, help="The last so many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a line each.")
def why(*, what: str | None, state: Path | None, last: int, as_json: bool) -> int:
    """Say why the last attempts were refused; WHAT is a part of a path, host or reason.

    Inside `aesp-proxy run` it says what was refused to this very command, by the names that
    it gave itself and the word of the reason. Exit code 0 when something is shown, 1 when
    nothing was refused.
    """
    if state is None and (door := os.environ.get(WHY_VARIABLE)):
        return _why_inside(door, what or "", last=last, as_json=as_json)
    from aesp_proxy.cli.audit import paths_of
    from aesp_proxy.daemon.refusals import last_refusals

    found = last_refusals(paths_of(state), what or "", last=last)
    for each in found:
        if as_json:
            click.echo(json.dumps(each.told()))
        else:
            click.echo("\n".join(map(printable, _lines(each))))
    return _shown(what, found)


def _why_inside(door: str, what: str, *, last: int, as_json: bool) -> int:
    found = ask_at_door(door, what, last=last)
    for each in found:
        lines = (json.dumps(each),) if as_json else map(printable, _lines_inside(each))
        click.echo("\n".join(lines))
    return _shown(what, found)


def _shown(what: str | None, found: Sequence[object]) -> int:
    if not found:
        of = f" that has to do with {what!a}" if what else ""
        error_line(f"nothing was refused{of}, as far as this record goes")
        return ExitCode.FINDINGS
    return ExitCode.DONE


def _lines_inside(told: dict[str, object]) -> Iterator[str]:
    from aesp_proxy.cli.audit import time_text

    time_ns = told.get("time_ns")
    at = time_text(time_ns)[:19] if isinstance(time_ns, int) else ""
    yield f"{at}Z {told.get('action')} {told.get('resource')}"
    yield f"  {told.get('reason')}: refused by the policy of this run"
    if told.get("remedy"):
        yield f"  would pass by: {told['remedy']}"


def _lines(refusal: Refusal) -> Iterator[str]:
    from aesp_proxy.cli.audit import time_text

    record = refusal.record
    yield f"{time_text(record.time_ns)[:19]}Z {record.action} {record.resource}"
    yield f"  {record.reason}: {record.message}"
    policy = f" of the policy {record.policy_name!r}" if record.policy_name else ""
    place = f", {record.policy_source}" if record.policy_source else ""
    yield f"  decided by {record.guard or 'the proxy'}{policy}{place}"
    if refusal.remedy:
        yield f"  would pass by: {refusal.remedy}"
    if refusal.question:
        yield f"  look closer: {refusal.question}"
    yield f"  record: {refusal.id.epoch}/{refusal.id.seq}"
