"""Events made of facts: what a witness is, and how it is told so that anybody can try it.

Facts are dotted names with the values a rule sees (``request.host``, levels, addresses,
UTC nanoseconds). What an event must have and no fact states is filled in plainly; what may
be unknown stays unknown. ``stated`` turns an event back into the facts of suites, so that
``policy explain`` and ``policy test`` take it as it is printed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Final, cast

from aesp_proxy.errors import InputError
from aesp_proxy.model.context import Claims, Context, Contract, Level, Resource, Session
from aesp_proxy.model.event import (
    CustomEvent,
    DnsQuery,
    EgressConnect,
    EgressRequest,
    Event,
    FileAccess,
    FileOperation,
    NetworkAccess,
    PatchApply,
    ToolCall,
)
from aesp_proxy.model.host import Host, parse_host
from aesp_proxy.model.principal import Principal

Facts = Mapping[str, object]
"""Dotted name of a fact to its value."""

PLAIN_TIME_NS: Final = 1_767_607_200 * 10**9  # Monday 2026-01-05T10:00:00Z
PLAIN_HOST: Final = "witness.example"
PLAIN_PATH: Final = "/witness"
PLAIN_TEXT: Final = "witness"
_PORTS: Final = {"https": 443, "http": 80, "wss": 443, "ws": 80}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TARGET: Final = frozenset(map(chr, range(0x21, 0x7F))) - frozenset('"<>\\^`{|}#')
_COUNT_MAX: Final = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """An event and what surrounds it, as proof of what a policy does."""

    event: Event
    context: Context

    @property
    def facts(self) -> dict[str, object]:
        """The facts that describe it, dotted, as suites write them."""
        return stated(self.event, self.context)


def event_for(kind: str, facts: Facts) -> tuple[Event, Context]:
    """Make an event of a kind (a word of ``EVENTS``) that has these facts.

    Raises ``InputError`` for facts that no event of the kind can have.
    """
    made = _Maker(facts).event(kind)
    return made, _context(facts)


class _Maker:
    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def _text(self, name: str, plain: str = "") -> str:
        found = self._facts.get(name)
        return plain if found is None else str(found)

    def _whole(self, name: str, plain: int) -> int:
        found = self._facts.get(name)
        if not isinstance(found, int) or isinstance(found, bool):
            return plain
        return _within(found, name)

    def event(self, kind: str) -> Event:
        match kind:
            case "request":
                return self._request()
            case "connect" | "network":
                return self._connect(kind)
            case "dns":
                return self._query()
            case "file":
                return self._file()
            case "patch":
                return self._patch()
            case "tool":
                return self._tool()
            case _:
                return CustomEvent(
                    event_id="", time_ns=self._time(), principal=self._principal(), kind=""
                )

    def _time(self) -> int:
        return self._whole("request.time", PLAIN_TIME_NS)

    def _principal(self) -> Principal:
        return Principal(
            principal_id=self._text("request.user.id"),
            agent_id=self._text("agent.id"),
            agent_type=self._text("agent.type"),
            session_id=self._text("agent.session_id"),
            tenant_id=self._text("request.tenant.id"),
            source_ip=self._text("request.source_ip"),
        )

    def _host(self) -> Host:
        address = self._facts.get("request.destination_ip")
        text = self._text("request.host", PLAIN_HOST if address is None else str(address))
        host = parse_host(text)
        if host.name != text or (address is not None and host.address != address):
            raise InputError("is no canonical host", where="request.host")
        return host

    def _port(self, plain: int) -> int:
        port = self._whole("request.port", plain)
        if not 1 <= port <= 65_535:
            raise InputError("is no port", where="request.port")
        return port

    def _method(self) -> str:
        method = self._facts.get("request.method")
        if method is None:
            return self._text("request.action", "http.get").removeprefix("http.").upper()
        if self._text("request.action", f"http.{str(method).lower()}") != (
            f"http.{str(method).lower()}"
        ):
            raise InputError("is not what the action says", where="request.method")
        return str(method)

    def _request(self) -> EgressRequest:
        method = self._method()
        if (
            not method.isascii()
            or not method.replace("-", "").isalnum()
            or method != (method.upper())
        ):
            raise InputError("is no method", where="request.method")
        scheme = self._text("request.scheme", "https")
        if scheme not in _PORTS:
            raise InputError("is no scheme", where="request.scheme")
        host = self._host()
        path, query = self._text("request.path", "/"), self._text("request.query")
        if not path.startswith("/") or "?" in path or not _TARGET.issuperset(path + query):
            raise InputError("is no path as it is sent", where="request.path")
        size = self._facts.get("request.size")
        plain_sni = host.name if scheme in ("https", "wss") and host.address is None else ""
        return EgressRequest(
            event_id="",
            time_ns=self._time(),
            principal=self._principal(),
            scheme=scheme,
            method=method,
            host=host,
            port=self._port(_PORTS[scheme]),
            target=f"{path}?{query}" if query else path,
            path=path,
            query=query,
            headers=self._headers(host),
            http_version="1.1",
            sni=self._text("request.sni", plain_sni),
            content_length=_within(size, "request.size") if isinstance(size, int) else None,
        )

    def _headers(self, host: Host) -> tuple[tuple[bytes, bytes], ...]:
        stated = cast("Mapping[str, str]", self._facts.get("request.headers") or {})
        fields = [] if "host" in stated else [(b"host", str(host).encode("ascii"))]
        fields += [(_field(name), _field(value)) for name, value in stated.items()]
        content_type = self._facts.get("request.content_type")
        if content_type and "content-type" not in stated:
            fields.append((b"content-type", _field(str(content_type))))
        return tuple(fields)

    def _connect(self, kind: str) -> EgressConnect | NetworkAccess:
        make = EgressConnect if kind == "connect" else NetworkAccess
        return make(
            event_id="",
            time_ns=self._time(),
            principal=self._principal(),
            host=self._host(),
            port=self._port(443),
        )

    def _query(self) -> DnsQuery:
        host = self._host()
        if host.address is not None:
            raise InputError("is no name to ask for", where="request.host")
        return DnsQuery(
            event_id="",
            time_ns=self._time(),
            principal=self._principal(),
            host=host,
            record_type="A",
        )

    def _path(self) -> str:
        path = self._text("request.resource.path", PLAIN_PATH)
        if not path.startswith("/") or "\0" in path or "//" in path:
            raise InputError("is no absolute path", where="request.resource.path")
        return path

    def _file(self) -> FileAccess:
        action = self._text("request.action", FileOperation.OPEN.value)
        try:
            operation = FileOperation(action)
        except ValueError:
            raise InputError("is nothing done to a file", where="request.action") from None
        size = self._facts.get("request.size")
        return FileAccess(
            event_id="",
            time_ns=self._time(),
            principal=self._principal(),
            operation=operation,
            path=self._path(),
            resolved=self._path(),
            content=b"w" * min(size, 2**20) if isinstance(size, int) else None,
        )

    def _patch(self) -> PatchApply:
        if self._text("request.action", "file.write") != "file.write":
            raise InputError("is no patch", where="request.action")
        text = self._text("patch", "--- a/witness\n+++ b/witness\n@@ -1 +1 @@\n-w\n+v\n")
        return PatchApply(
            event_id="",
            time_ns=self._time(),
            principal=self._principal(),
            path=self._path(),
            resolved=self._path(),
            patch=text.encode("utf-8", "surrogatepass"),
        )

    def _tool(self) -> ToolCall:
        name = self._text("tool.name", PLAIN_TEXT)
        if not name:
            raise InputError("is missing", where="tool.name")
        arguments, size = self._facts.get("tool.arguments"), self._facts.get("request.size")
        data = b"" if arguments is None else json.dumps(arguments).encode("ascii")
        if not data and isinstance(size, int) and 2 <= size <= 2**20:
            data = b'"' + b"w" * (size - 2) + b'"'
        return ToolCall(
            event_id="",
            time_ns=self._time(),
            principal=self._principal(),
            server=self._text("tool.server"),
            name=name,
            arguments=data,
        )


def _within(number: int, name: str) -> int:
    if not 0 <= number <= _COUNT_MAX * 2048:
        raise InputError("is out of range", where=name)
    return number


def _field(text: str) -> bytes:
    if not text.isascii() or not text.isprintable() or text.strip() != text:
        raise InputError("is no field of a header", where="request.headers")
    return text.encode("ascii")


_CLAIMS: Final = {
    **{f"request.user.{name}": name for name in (
        "roles", "groups", "permissions", "security_clearance", "mfa_verified",
        "spending_limit", "business_unit", "team")},
    "request.tenant.cost_center": "cost_center",
    "request.tenant.region": "region",
    "organization.id": "organization_id",
    "organization.approved_cost_centers": "approved_cost_centers",
}  # fmt: skip
_RESOURCE: Final = {f"request.resource.{name}": name
                    for name in ("classification", "labels", "estimated_cost")}  # fmt: skip
_SESSION: Final = {
    **{f"session.{name}": name for name in (
        "labels", "risk_score", "egress_count", "bytes_out", "spend", "denials")},
    "session.started_at": "started_ns",
}  # fmt: skip
_CONTRACT: Final = {f"tool.contract.{name}": name
                    for name in ("version", "approval_status", "required_roles")}  # fmt: skip


def _context(facts: Facts) -> Context:
    executable = facts.get("agent.executable")
    return Context(
        claims=Claims(**_some(facts, _CLAIMS)),  # type: ignore[arg-type]
        resource=Resource(**_some(facts, _RESOURCE)),  # type: ignore[arg-type]
        session=Session(**_some(facts, _SESSION)),  # type: ignore[arg-type]
        contract=Contract(**_some(facts, _CONTRACT)),  # type: ignore[arg-type]
        agent_executable=None if executable is None else str(executable),
    )


def _some(facts: Facts, names: Mapping[str, str]) -> dict[str, object]:
    return {own: facts[name] for name, own in names.items() if facts.get(name) is not None}


def stated(event: Event, context: Context) -> dict[str, object]:
    """Return the facts that describe an attempt, dotted and as suites write their values.

    What ``described`` fills in by itself is left out; so is a time that is the plain one.
    """
    found: dict[str, object] = {"request.action": event.action}
    found.update(_of_event(event))
    who = event.principal
    found.update(
        {
            "request.user.id": who.principal_id,
            "agent.id": who.agent_id,
            "agent.type": who.agent_type,
            "agent.session_id": who.session_id,
            "request.tenant.id": who.tenant_id,
            "request.source_ip": who.source_ip,
            "request.time": _moment(event.time_ns) if event.time_ns != PLAIN_TIME_NS else "",
        }
    )
    for values, names in (
        (context.claims, _CLAIMS),
        (context.resource, _RESOURCE),
        (context.session, _SESSION),
        (context.contract, _CONTRACT),
    ):
        found.update({name: _written(name, getattr(values, own)) for name, own in names.items()})
    found["agent.executable"] = context.agent_executable
    return {name: value for name, value in found.items() if value not in (None, "", {})}


def _of_event(event: Event) -> dict[str, object]:
    match event:
        case EgressRequest():
            headers = {n.decode("latin-1"): v.decode("latin-1") for n, v in event.headers}
            if headers.get("host") == str(event.host):
                del headers["host"]
            plain = event.scheme in ("https", "wss") and event.host.address is None
            return {
                "request.scheme": event.scheme if event.scheme != "https" else "",
                "request.host": event.host.name,
                "request.port": event.port if event.port != _PORTS[event.scheme] else None,
                "request.path": event.path if event.path != "/" else "",
                "request.query": event.query,
                "request.headers": headers,
                "request.sni": event.sni if event.sni != (event.host.name if plain else "") else "",
                "request.size": event.content_length,
            }
        case EgressConnect() | NetworkAccess():
            port = event.port if event.port != 443 else None
            return {"request.host": event.host.name, "request.port": port}
        case DnsQuery():
            return {"request.host": event.host.name}
        case FileAccess():
            content = None if event.content is None else event.content.decode("utf-8", "replace")
            return {**_paths(event.path, event.resolved), "content": content}
        case PatchApply():
            return {
                **_paths(event.path, event.resolved),
                "patch": event.patch.decode("utf-8", "replace"),
            }
        case ToolCall():
            arguments = event.arguments.decode("utf-8", "replace")
            return {
                "tool.server": event.server,
                "tool.name": event.name,
                "tool.arguments": arguments,
            }
        case _:
            return {}


def _paths(path: str, resolved: str) -> dict[str, object]:
    found: dict[str, object] = {"request.resource.path": path}
    if resolved != path:
        found["request.resource.resolved"] = resolved
    return found


def _written(name: str, value: object) -> object:
    if name == "session.started_at" and isinstance(value, int):
        return _moment(value)
    if isinstance(value, Level):
        return value.word
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, IPv4Address | IPv6Address) else value


def _moment(time_ns: int) -> str:
    moment = _EPOCH + timedelta(microseconds=time_ns // 1000)
    return moment.isoformat().replace("+00:00", "Z")
