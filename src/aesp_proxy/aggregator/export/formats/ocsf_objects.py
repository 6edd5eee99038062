"""Which OCSF class and activity a record is, and the objects that class asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aesp_proxy.aggregator.export.event import (
    PRODUCT,
    address_of,
    file_name,
    method_of,
    scheme_of,
    upstream_ip,
)

if TYPE_CHECKING:
    from aesp_proxy.aggregator.export.event import ExportEvent
    from aesp_proxy.model.record import Record

HTTP: Final = 4002
NETWORK: Final = 4001
DNS: Final = 4003
FILE: Final = 1001
PROCESS: Final = 1007
API: Final = 6003
_OTHER: Final = 99
_NAMES: Final = {
    HTTP: "HTTP Activity",
    NETWORK: "Network Activity",
    DNS: "DNS Activity",
    FILE: "File System Activity",
    PROCESS: "Process Activity",
    API: "API Activity",
}
# PATCH came with 1.8; methods that 1.5.0 does not list are "Other" and named.
_METHODS: Final = {
    "CONNECT": 1,
    "DELETE": 2,
    "GET": 3,
    "HEAD": 4,
    "OPTIONS": 5,
    "POST": 6,
    "PUT": 7,
    "TRACE": 8,
}
_FILES: Final = {
    "file.create": (1, "Create"),
    "file.write": (3, "Update"),
    "file.delete": (4, "Delete"),
    "file.rename": (5, "Rename"),
    "file.open": (14, "Open"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """A class of OCSF and one of its activities."""

    class_uid: int
    activity_id: int
    name: str

    @property
    def class_name(self) -> str:
        """The class's caption."""
        return _NAMES[self.class_uid]


def activity_of(record: Record) -> Activity:
    """Return the class and activity of a record by its action."""
    family, _, verb = record.action.partition(".")
    match family:
        case "http":
            number = _METHODS.get(verb.upper(), _OTHER)
            name = verb.capitalize() or "Other"
            return Activity(class_uid=HTTP, activity_id=number, name=name)
        case "tcp":
            return Activity(class_uid=NETWORK, activity_id=1, name="Open")
        case "dns":
            return Activity(class_uid=DNS, activity_id=1, name="Query")
        case "file" if verb == "exec":
            return Activity(class_uid=PROCESS, activity_id=1, name="Launch")
        case "file":
            number, name = _FILES.get(record.action, (_OTHER, verb.capitalize() or "Other"))
            return Activity(class_uid=FILE, activity_id=number, name=name)
        case _:
            name = record.action or record.event_type or "Other"
            return Activity(class_uid=API, activity_id=_OTHER, name=name)


def _actor(record: Record) -> dict[str, Any]:
    """Return who acted: the agent as an application, its person, its session."""
    shown: dict[str, Any] = {
        "app_name": record.agent_type or record.agent_id or PRODUCT,
        "app_uid": record.agent_id,
    }
    if record.principal_id:
        shown["user"] = _user(record)
    if record.session_id:
        shown["session"] = {"uid": record.session_id}
    return shown


def _user(record: Record) -> dict[str, Any]:
    return {"uid": record.principal_id, "name": record.principal_id}


def target_objects(event: ExportEvent, activity: Activity) -> dict[str, Any]:
    """Return the objects of the class: endpoints, request, file, process, query or call."""
    record = event.record
    match activity.class_uid:
        case 4001 | 4002 | 4003:
            return {"src_endpoint": _source(event), **_network(record, activity)}
        case 1001:
            return {"actor": _actor(record), "device": _device(event), "file": _file(record)}
        case 1007:
            program = _file(record)
            return {
                "actor": _actor(record),
                "device": _device(event),
                "process": {"name": program["name"], "file": program, "uid": event.id},
            }
        case _:
            return {
                "actor": _actor(record),
                "src_endpoint": _source(event),
                "api": {
                    "operation": record.target_path or record.action or record.event_type,
                    "service": {"name": record.target_host or PRODUCT},
                },
            }


def _network(record: Record, activity: Activity) -> dict[str, Any]:
    if activity.class_uid == DNS:
        query = {"hostname": record.target_host or record.resource, "type": record.target_path}
        return {"query": query}
    shown: dict[str, Any] = {
        "dst_endpoint": _destination(record),
        "traffic": {"bytes_in": record.bytes_in or None, "bytes_out": record.bytes_out or None},
    }
    if activity.class_uid == HTTP:
        shown |= _http(record, activity)
    return shown


def _http(record: Record, activity: Activity) -> dict[str, Any]:
    method = method_of(record)
    shown: dict[str, Any] = {
        "http_request": {
            "http_method": method if activity.activity_id != _OTHER else "",
            "user_agent": record.user_agent,
            "url": {
                "scheme": scheme_of(record),
                "hostname": record.target_host,
                "port": record.target_port or None,
                "path": record.target_path or "/",
                "url_string": record.resource,
            },
        }
    }
    if record.status:
        shown["http_response"] = {"code": record.status}
    return shown


def _destination(record: Record) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "ip": upstream_ip(record) or address_of(record.target_host),
        "port": record.target_port or None,
    }
    if not address_of(record.target_host):
        # A refusal before there was a name has what was aimed at as a resource only.
        shown["hostname"] = record.target_host or record.resource or "unknown"
    return shown


def _source(event: ExportEvent) -> dict[str, Any]:
    return {
        "name": event.record_id.origin,
        "hostname": event.record_id.origin,
        "ip": address_of(event.record.source_ip),
        "uid": event.record.agent_id,
        "owner": _user(event.record),
    }


def _device(event: ExportEvent) -> dict[str, Any]:
    return {
        "type_id": 0,
        "type": "Unknown",
        "hostname": event.record_id.origin,
        "uid": event.record_id.origin,
        "region": event.region,
    }


def _file(record: Record) -> dict[str, Any]:
    return {
        "name": file_name(record.target_path),
        "path": record.target_path,
        "type_id": 0,
        "type": "Unknown",
    }
