"""``aesp-proxy why``: what was refused lately, by what, and who could let it pass.

Reads the record of a host, while a command runs or after it. Everything shown comes from
records and may hold terminal escapes, so it goes out through ``printable``.
"""

from __future__ import annotations

import json
import shlex
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from aesp_proxy.cli.exits import ExitCode
from aesp_proxy.cli.output import error_line, printable

if TYPE_CHECKING:
    from aesp_proxy.model.record import Record, RecordId

_LOOKED_AT_MAX: Final = 200_000
_REMEDIES: Final = {
    "host_not_allowed": "guards.egress_allowlist.allow",
    "host_blocked": "guards.egress_allowlist.block no longer names it",
    "address_forbidden": "guards.egress_allowlist.allow with the address or its network",
    "path_forbidden": "guards.forbidden_path.exceptions; never, where others run or trust the file",
    "path_not_allowed": "guards.path_allowlist",
    "secret_found": "nothing: take the secret out. A credential on its way home: "
    "guards.secret_leak.credentials",
    "unscannable": "sending it less wrapped, or guards.secret_leak.unscannable: record",
    "patch_too_large": "guards.patch_integrity.max_additions or max_deletions",
    "patch_unbalanced": "guards.patch_integrity.require_balance or max_imbalance_ratio",
    "patch_forbidden": "guards.patch_integrity.forbidden_patterns no longer has the pattern",
    "tool_not_allowed": "guards.mcp_tool.allow",
    "tool_blocked": "guards.mcp_tool.block no longer names it",
    "rule_denied": "the rule that is named, or an exception",
    "limit_exceeded": "a higher limit in the settings (docs/settings.md)",
    "record_failed": "nothing: the record cannot be written, see `aesp-proxy audit verify`",
}
"""What would let it pass, by the reason."""


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

    Exit code 0 when something is shown, 1 when nothing was refused.
    """
    found = deque(_refusals(state, what), maxlen=last)
    for record_id, record in found:
        if as_json:
            click.echo(json.dumps(_told(record_id, record)))
        else:
            click.echo("\n".join(map(printable, _lines(record_id, record))))
    if not found:
        of = f" that has to do with {what!a}" if what else ""
        error_line(f"nothing was refused{of}, as far as this record goes")
        return ExitCode.FINDINGS
    return ExitCode.DONE


def _refusals(state: Path | None, what: str | None) -> Iterator[tuple[RecordId, Record]]:
    from aesp_proxy.cli.audit import paths_of
    from aesp_proxy.model.record import Outcome
    from aesp_proxy.record.reader import StateReader

    reader = StateReader(paths_of(state))
    reader.skip_to_last(_LOOKED_AT_MAX)
    for record_id, record in reader.new_entries():
        if record.outcome is Outcome.DENIED and (what is None or _speaks_of(record, what)):
            yield record_id, record


def _speaks_of(record: Record, what: str) -> bool:
    texts = (record.resource, record.target_path, record.target_host, record.reason, record.action)
    return any(what.lower() in text.lower() for text in texts)


def _told(record_id: RecordId, record: Record) -> dict[str, object]:
    return {
        "id": str(record_id),
        "time_ns": record.time_ns,
        "action": record.action,
        "resource": record.resource,
        "reason": record.reason,
        "message": record.message,
        "guard": record.guard,
        "policy": record.policy_name,
        "source": record.policy_source,
        "remedy": _REMEDIES.get(record.reason, ""),
    }


def _lines(record_id: RecordId, record: Record) -> Iterator[str]:
    from aesp_proxy.cli.audit import time_text

    yield f"{time_text(record.time_ns)[:19]}Z {record.action} {record.resource}"
    yield f"  {record.reason}: {record.message}"
    policy = f" of the policy {record.policy_name!r}" if record.policy_name else ""
    place = f", {record.policy_source}" if record.policy_source else ""
    yield f"  decided by {record.guard or 'the proxy'}{policy}{place}"
    if remedy := _REMEDIES.get(record.reason):
        yield f"  would pass by: {remedy}"
    if asked := _question(record):
        yield f"  look closer: {asked}"
    yield f"  record: {record_id.epoch}/{record_id.seq}"


def _question(record: Record) -> str:
    """Return the command that explains the decision, where its facts are in the record."""
    file = record.policy_source.partition(" (")[0].rpartition(":")[0]
    facts = [
        f"{name}={value}"
        for name, value in (
            ("action", record.action),
            ("host", record.target_host),
            ("port", record.target_port),
            ("path", record.target_path),
        )
        if value
    ]
    if not file or len(facts) == 1:
        return ""
    return f"aesp-proxy policy explain --policy {shlex.quote(file)} {shlex.join(facts)}"
