"""The Open Cybersecurity Schema Framework, version 1.5.0, with the profile security_control.

| action | class |
|---|---|
| http.* | HTTP Activity 4002 |
| tcp.connect | Network Activity 4001 |
| dns.query | DNS Activity 4003 |
| file.exec | Process Activity 1007 |
| file.* | File System Activity 1001 |
| all else, and the life of the proxy itself | API Activity 6003 |

Rules: every value of an enumeration is one that 1.5.0 knows, with its caption; what the
schema has no field for is under ``unmapped.aesp``, so nothing is lost. Tests validate
each class against the published schema. Source: https://schema.ocsf.io/1.5.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aesp_proxy import __version__
from aesp_proxy.aggregator.export.event import (
    PRODUCT,
    VENDOR,
    correlated_id,
    details_of,
    passed,
    pruned,
    severity_of,
)
from aesp_proxy.aggregator.export.formats.ocsf_objects import (
    activity_of,
    target_objects,
)
from aesp_proxy.model.decision import Severity, Verdict
from aesp_proxy.model.record import Outcome, Record, RecordKind

if TYPE_CHECKING:
    from aesp_proxy.aggregator.export.event import ExportEvent

OCSF_VERSION: Final = "1.5.0"
_CATEGORIES: Final = {
    1: "System Activity",
    4: "Network Activity",
    6: "Application Activity",
}
_SEVERITY: Final = {
    Severity.INFO: (1, "Informational"),
    Severity.WARNING: (3, "Medium"),
    Severity.ERROR: (4, "High"),
    Severity.CRITICAL: (5, "Critical"),
}
# verdict -> action_id, action, disposition_id, disposition
_CONTROL: Final = {
    Verdict.ALLOW: (1, "Allowed", 1, "Allowed"),
    Verdict.AUDIT: (3, "Observed", 17, "Logged"),
    Verdict.REDACT: (4, "Modified", 11, "Corrected"),
    Verdict.ASK: (2, "Denied", 2, "Blocked"),
    Verdict.DENY: (2, "Denied", 2, "Blocked"),
}
_NO_CONTROL: Final = (0, "Unknown", 16, "No Action")


def ocsf_event(event: ExportEvent) -> dict[str, Any]:
    """Return the event in its OCSF class."""
    record = event.record
    activity = activity_of(record)
    severity_id, severity = _SEVERITY[severity_of(record)]
    succeeded = record.outcome is Outcome.SUCCESS
    return pruned(
        {
            "category_uid": activity.class_uid // 1000,
            "category_name": _CATEGORIES[activity.class_uid // 1000],
            "class_uid": activity.class_uid,
            "class_name": activity.class_name,
            "activity_id": activity.activity_id,
            "activity_name": activity.name,
            "type_uid": activity.class_uid * 100 + activity.activity_id,
            "type_name": f"{activity.class_name}: {activity.name}",
            "time": record.time_ns // 1_000_000,
            "duration": record.duration_us // 1000 or None,
            "severity_id": severity_id,
            "severity": severity,
            "status_id": 1 if succeeded else 2,
            "status": "Success" if succeeded else "Failure",
            "status_code": record.reason,
            "status_detail": record.message,
            "message": record.message,
            "metadata": _metadata(event),
            **_control(record),
            **target_objects(event, activity),
            "unmapped": {"aesp": details_of(event)},
        }
    )


def _metadata(event: ExportEvent) -> dict[str, Any]:
    record = event.record
    return {
        "version": OCSF_VERSION,
        "product": {"name": PRODUCT, "vendor_name": VENDOR, "version": __version__},
        "profiles": ["security_control"],
        "uid": event.id,
        "sequence": event.record_id.seq,
        "log_name": "aesp-proxy",
        "log_provider": event.record_id.origin,
        "event_code": record.event_type,
        "correlation_uid": correlated_id(event),
        "tenant_uid": record.tenant_id,
    }


def _control(record: Record) -> dict[str, Any]:
    """Return the fields of the profile security_control."""
    verdict = next((word for word in Verdict if word == record.verdict), None)
    if record.kind is RecordKind.LIFECYCLE or verdict is None:
        action_id, action, disposition_id, disposition = _NO_CONTROL
    else:
        action_id, action, disposition_id, disposition = _CONTROL[verdict]
    shown: dict[str, Any] = {
        "action_id": action_id,
        "action": action,
        "disposition_id": disposition_id,
        "disposition": disposition,
        "policy": _policy(record),
        "risk_details": "" if passed(record) else record.reason,
    }
    if record.guard:
        shown["firewall_rule"] = {
            "name": record.reason,
            "category": record.guard,
            "condition": record.policy_source,
        }
    return shown


def _policy(record: Record) -> dict[str, Any]:
    if not (record.policy_name or record.policy_hash):
        return {}
    return {"name": record.policy_name, "uid": record.policy_hash, "desc": record.policy_source}
