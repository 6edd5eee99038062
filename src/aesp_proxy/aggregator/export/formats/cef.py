r"""ArcSight's Common Event Format: one line an event, with every escape it asks for.

Rules: in the header ``\`` and ``|`` are escaped and there is no line end; in values
``\``, ``=`` and line ends are; every other control character, and what Unicode counts
as a line or paragraph end, becomes a space. So no value can end its field, begin
another, or begin another event. Values are cut to the dictionary's lengths.
Source: ArcSight CEF Implementation Standard, version 25.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aesp_proxy import __version__
from aesp_proxy.aggregator.export.event import (
    PRODUCT,
    VENDOR,
    address_of,
    correlated_id,
    file_name,
    method_of,
    scheme_of,
    severity_of,
    upstream_ip,
)
from aesp_proxy.model.decision import Severity

if TYPE_CHECKING:
    from aesp_proxy.aggregator.export.event import ExportEvent

_VALUE_CHARS_MAX: Final = 1023
_HEADER_CHARS_MAX: Final = 512
_SEVERITY: Final = {
    Severity.INFO: 2,
    Severity.WARNING: 5,
    Severity.ERROR: 7,
    Severity.CRITICAL: 10,
}
_BREAKS: Final = frozenset("\x85\u2028\u2029")
_SPECIAL: Final = {
    "\\": "\\\\",
    "=": "\\=",
    "\n": "\\n",
    "\r": "\\r",
}


def cef_line(event: ExportEvent) -> str:
    """Return the event as one line of CEF, without a line end."""
    record = event.record
    header = (
        "CEF:0",
        VENDOR,
        PRODUCT,
        __version__,
        record.reason or record.event_type,
        record.message or record.action or record.event_type,
    )
    shown = "|".join((header[0], *(_header(text) for text in header[1:])))
    pairs = [f"{name}={_value(text)}" for name, text in _extension(event).items() if text]
    return f"{shown}|{_SEVERITY[severity_of(record)]}|{' '.join(pairs)}"


def _extension(event: ExportEvent) -> dict[str, str]:
    record = event.record
    is_file = record.target_type == "file"
    return {
        "rt": str(record.time_ns // 1_000_000),
        "externalId": event.id,
        "dvchost": event.record_id.origin,
        "act": record.verdict,
        "outcome": record.outcome.value,
        "reason": record.reason,
        "cat": record.action,
        "src": address_of(record.source_ip),
        "dst": upstream_ip(record) or address_of(record.target_host),
        "dhost": "" if is_file else record.target_host,
        "dpt": str(record.target_port or ""),
        "suser": record.principal_id,
        "sproc": record.agent_id,
        "request": record.resource if scheme_of(record) else "",
        "requestMethod": method_of(record),
        "requestClientApplication": record.user_agent,
        "filePath": record.target_path if is_file else "",
        "fname": file_name(record.target_path) if is_file else "",
        "in": str(record.bytes_in or ""),
        "out": str(record.bytes_out or ""),
        "msg": record.message,
        **_labelled(1, "session", record.session_id),
        **_labelled(2, "guard", record.guard),
        **_labelled(3, "policy", record.policy_name),
        **_labelled(4, "tenant", record.tenant_id),
        **_labelled(5, "findings", ",".join(finding.rule for finding in record.findings)),
        **_labelled(6, "decision", correlated_id(event)),
        "cn1": str(event.record_id.seq),
        "cn1Label": "seq",
        "cn2": str(event.batch_no),
        "cn2Label": "batch",
        "cn3": str(event.record_id.epoch),
        "cn3Label": "epoch",
    }


def _labelled(number: int, label: str, text: str) -> dict[str, str]:
    return {f"cs{number}": text, f"cs{number}Label": label} if text else {}


def _header(text: str) -> str:
    plain = "".join(_visible(char) for char in text[:_HEADER_CHARS_MAX])
    return plain.replace("\\", "\\\\").replace("|", "\\|")


def _value(text: str) -> str:
    return "".join(_SPECIAL.get(char) or _visible(char) for char in text[:_VALUE_CHARS_MAX])


def _visible(char: str) -> str:
    is_control = char < " " or "\x7f" <= char <= "\x9f"
    return " " if is_control or char in _BREAKS else char
