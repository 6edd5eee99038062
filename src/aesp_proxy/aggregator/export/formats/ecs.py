"""The Elastic Common Schema: one document an event, what has no field under ``aesp``.

Source: https://www.elastic.co/docs/reference/ecs, version 8.17; the allowed words of
``event.kind``, ``category``, ``type`` and ``outcome`` are those of that page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aesp_proxy.aggregator.export.event import (
    PRODUCT,
    VENDOR,
    address_of,
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
from aesp_proxy.model.record import Outcome, Record, RecordKind

if TYPE_CHECKING:
    from aesp_proxy.aggregator.export.event import ExportEvent

ECS_VERSION: Final = "8.17.0"
# action -> (category, type) where the family alone does not say it
_FILE_TYPES: Final = {
    "file.open": "access",
    "file.write": "change",
    "file.create": "creation",
    "file.delete": "deletion",
    "file.rename": "change",
}


def ecs_document(event: ExportEvent) -> dict[str, Any]:
    """Return the event as an ECS document, fields that are empty left out."""
    record = event.record
    return pruned(
        {
            "@timestamp": format_time(record.time_ns),
            "ecs": {"version": ECS_VERSION},
            "message": record.message or f"{record.action} {record.verdict}".strip(),
            "event": _event(event),
            "observer": {
                "vendor": VENDOR,
                "product": PRODUCT,
                "type": "proxy",
                "hostname": event.record_id.origin,
                "geo": {"region_name": event.region},
            },
            "user": {"id": record.principal_id},
            "organization": {"id": record.tenant_id},
            "trace": {"id": record.trace_id},
            "rule": {
                "name": record.reason,
                "category": record.guard,
                "ruleset": record.policy_name,
                "version": record.policy_hash,
                "reference": record.policy_source,
            },
            "related": _related(record),
            **_target(record),
            "aesp": details_of(event),
        }
    )


def _event(event: ExportEvent) -> dict[str, Any]:
    record = event.record
    category, kind_of = _category(record)
    types = [kind_of]
    if record.kind is not RecordKind.LIFECYCLE:
        types.append("allowed" if passed(record) else "denied")
    return {
        "kind": "event",
        "module": "aesp_proxy",
        "dataset": "aesp_proxy.audit",
        "provider": "aesp-proxy",
        "id": event.id,
        "sequence": event.record_id.seq,
        "category": category,
        "type": types,
        "action": record.action or record.event_type,
        "outcome": "success" if record.outcome is Outcome.SUCCESS else "failure",
        "reason": record.reason,
        "severity": int(severity_of(record)),
        "duration": record.duration_us * 1000 or None,
    }


def _category(record: Record) -> tuple[list[str], str]:
    family = record.action.partition(".")[0]
    if record.kind is RecordKind.LIFECYCLE:
        return ["configuration"], "change"
    match family:
        case "http":
            return ["network", "web"], "access"
        case "tcp":
            return ["network"], "connection"
        case "dns":
            return ["network"], "protocol"
        case "file" if record.action == "file.exec":
            return ["process"], "start"
        case "file":
            return ["file"], _FILE_TYPES.get(record.action, "access")
        case "tool":
            return ["api"], "access"
        case _:
            return ["intrusion_detection"], "info"


def _target(record: Record) -> dict[str, Any]:
    """Return the fields of what was aimed at, by its kind."""
    shown: dict[str, Any] = {
        "source": {"ip": address_of(record.source_ip), "bytes": record.bytes_out or None},
        "user_agent": {"original": record.user_agent},
    }
    if record.target_type == "file":
        path = record.target_path
        shown["file"] = {"path": path, "name": file_name(path) if path else ""}
        return shown
    if record.action == "dns.query":
        shown["dns"] = {
            "type": "query",
            "question": {"name": record.target_host, "type": record.target_path},
        }
        return shown
    if record.target_type != "network":
        return shown
    shown["destination"] = {
        "domain": "" if address_of(record.target_host) else record.target_host,
        "ip": upstream_ip(record) or address_of(record.target_host),
        "port": record.target_port or None,
        "bytes": record.bytes_in or None,
    }
    scheme = scheme_of(record)
    if scheme:
        shown["url"] = {
            "full": record.resource,
            "scheme": scheme,
            "domain": record.target_host,
            "port": record.target_port or None,
            "path": record.target_path,
        }
        shown["http"] = {
            "request": {"method": method_of(record), "body": {"bytes": record.bytes_out or None}},
            "response": {
                "status_code": record.status or None,
                "body": {"bytes": record.bytes_in or None},
            },
        }
    return shown


def _related(record: Record) -> dict[str, list[str]]:
    addresses = {
        address_of(record.source_ip),
        address_of(record.target_host),
        upstream_ip(record),
    } - {""}
    is_name = record.target_type in {"network", "name"} and not address_of(record.target_host)
    return {
        "ip": sorted(addresses),
        "hosts": [record.target_host] if is_name and record.target_host else [],
        "user": [record.principal_id] if record.principal_id else [],
    }
