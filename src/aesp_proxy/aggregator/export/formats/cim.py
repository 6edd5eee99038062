"""SiemEvent of the deployment specification, with the names of Splunk's common information model.

``action`` is CIM's word (allowed, blocked), which searches and dashboards ask for;
what was attempted is ``vendor_action``. The names after ``region`` are CIM's, of the
data models Web, Network Traffic, Network Resolution and Endpoint.
Source: spec SiemEvent; https://docs.splunk.com/Documentation/CIM (Web, Endpoint).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aesp_proxy.aggregator.export.event import (
    PRODUCT,
    VENDOR,
    details_of,
    file_name,
    method_of,
    passed,
    pruned,
    scheme_of,
    severity_of,
    upstream_ip,
)
from aesp_proxy.aggregator.query import format_time
from aesp_proxy.model.decision import Severity, Verdict
from aesp_proxy.model.record import Outcome

if TYPE_CHECKING:
    from aesp_proxy.aggregator.export.event import ExportEvent

SOURCE: Final = "aesp-proxy"
# The scale of the specification, 1 to 10, and CIM's word for the same.
_SEVERITY: Final = {
    Severity.INFO: (2, "informational"),
    Severity.WARNING: (4, "medium"),
    Severity.ERROR: (6, "high"),
    Severity.CRITICAL: (9, "critical"),
}


def siem_event(event: ExportEvent) -> dict[str, Any]:
    """Return the event as SiemEvent, fields that are empty left out, with CIM's names."""
    record = event.record
    allowed = passed(record)
    number, word = _SEVERITY[severity_of(record)]
    return pruned(
        {
            "timestamp": format_time(record.time_ns),
            "source": SOURCE,
            "event_type": "action_allowed" if allowed else "action_blocked",
            "severity": number,
            "severity_id": word,
            "action": _cim_action(record.verdict, allowed=allowed),
            "outcome": "success" if record.outcome is Outcome.SUCCESS else "failure",
            "agent_id": record.agent_id,
            "agent_type": record.agent_type,
            "session_id": record.session_id,
            "target_type": record.target_type,
            "target_path": record.target_path,
            "target_host": record.target_host,
            "guard_name": record.guard,
            "policy_name": record.policy_name,
            "policy_version": record.policy_hash,
            "user": record.principal_id,
            "team": record.tenant_id,
            "region": event.region,
            **_cim_names(event),
            "raw_event": details_of(event),
        }
    )


def _cim_action(verdict: str, *, allowed: bool) -> str:
    if verdict == Verdict.REDACT:
        return "modified"
    return "allowed" if allowed else "blocked"


def _cim_names(event: ExportEvent) -> dict[str, Any]:
    record = event.record
    is_url = bool(scheme_of(record))
    is_file = record.target_type == "file"
    return {
        "vendor_product": f"{VENDOR} {PRODUCT}",
        "vendor_action": record.action,
        "signature": record.reason,
        "dvc": event.record_id.origin,
        "src": record.source_ip,
        "dest": record.target_host if not is_file else event.record_id.origin,
        "dest_ip": upstream_ip(record),
        "dest_port": record.target_port or None,
        "url": record.resource if is_url else "",
        "uri_path": record.target_path if is_url else "",
        "http_method": method_of(record),
        "http_user_agent": record.user_agent,
        "status": record.status or None,
        "bytes_in": record.bytes_in or None,
        "bytes_out": record.bytes_out or None,
        "duration": record.duration_us / 1e6 if record.duration_us else None,
        "file_path": record.target_path if is_file else "",
        "file_name": file_name(record.target_path) if is_file else "",
        "query": record.target_host if record.action == "dns.query" else "",
    }
