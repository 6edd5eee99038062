"""What was refused lately, out of the record: for ``aesp-proxy why`` and the control socket.

Reading takes no lock and changes nothing. Everything told comes from records and may hold
terminal escapes: who shows it escapes them.
"""

from __future__ import annotations

import shlex
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from aesp_proxy.daemon.policy_files import located
from aesp_proxy.daemon.policy_parents import BUILT_IN
from aesp_proxy.model.record import Outcome, Record, RecordId
from aesp_proxy.record.reader import StateReader
from aesp_proxy.record.state import AuditPaths

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
_OF_CONTENT: Final = frozenset(
    {"secret_found", "unscannable", "patch_too_large", "patch_unbalanced", "patch_forbidden"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One refusal. ``remedy`` would let it pass, ``question`` is the command that explains it."""

    id: RecordId
    record: Record
    remedy: str
    question: str

    def told(self) -> dict[str, object]:
        """Return it as JSON has it."""
        record = self.record
        return {
            "id": str(self.id),
            "time_ns": record.time_ns,
            "action": record.action,
            "resource": record.resource,
            "reason": record.reason,
            "message": record.message,
            "guard": record.guard,
            "policy": record.policy_name,
            "source": record.policy_source,
            "remedy": self.remedy,
        }


def remedy_of(reason: str) -> str:
    """Return what would let pass what was refused for this reason, empty for nothing to say."""
    return _REMEDIES.get(reason, "")


def last_refusals(paths: AuditPaths, what: str = "", *, last: int) -> list[Refusal]:
    """Return the last refusals, oldest first; those that have to do with ``what``, if given.

    ``what`` is a part of a path, host, reason or action. RecordError, InputError for a
    record that cannot be read.
    """
    found = deque(_refused(paths, what.lower()), maxlen=last)
    return [
        Refusal(
            id=record_id,
            record=record,
            remedy=remedy_of(record.reason),
            question=_question(record),
        )
        for record_id, record in found
    ]


def _refused(paths: AuditPaths, what: str) -> Iterator[tuple[RecordId, Record]]:
    reader = StateReader(paths)
    reader.skip_to_last(_LOOKED_AT_MAX)
    for record_id, record in reader.new_entries():
        if record.outcome is Outcome.DENIED and (not what or _speaks_of(record, what)):
            yield record_id, record


def _speaks_of(record: Record, what: str) -> bool:
    texts = (record.resource, record.target_path, record.target_host, record.reason, record.action)
    return any(what in text.lower() for text in texts)


def _question(record: Record) -> str:
    """Return the command that explains the decision, where its facts are in the record.

    What a content was refused for is in no record, so there is nothing to ask with.
    """
    file = record.policy_source.partition(" (")[0].rpartition(":")[0]
    facts = [
        f"{name}={value}"
        for name, value in (
            ("action", record.action),
            ("host", record.target_host),
            ("port", record.target_port),
            (_path_fact(record.action), record.target_path),
        )
        if value
    ]
    if not file or len(facts) == 1 or record.reason in _OF_CONTENT:
        return ""
    if file == located(None)[1]:
        return f"aesp-proxy policy explain {shlex.join(facts)}"
    if file.startswith(BUILT_IN):
        return ""  # the policy extends one that comes along, and is not named in the record
    return f"aesp-proxy policy explain --policy {shlex.quote(file)} {shlex.join(facts)}"


def _path_fact(action: str) -> str:
    return "resource.path" if action.startswith("file.") else "path"
