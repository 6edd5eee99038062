"""Described attempts: the facts of suites, of explanations and of witnesses to an event.

The same names as a rule sees (``request.host``, ``request.user.roles``, ...), nested, in
plain typed values as YAML or JSON gives them. Nothing is followed, looked up or guessed:
a fact that is not stated is not known, and a fact that the kind of attempt cannot have
is an ``InputError`` whose ``where`` is the dotted name.

What an ordinary request has is filled in: the scheme is https, the port that of the
scheme, the path ``/``, the Host field and the TLS name those of the host.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping

from aesp_proxy.errors import InputError
from aesp_proxy.model.context import Context
from aesp_proxy.model.event import (
    CustomEvent,
    DnsQuery,
    EgressConnect,
    EgressRequest,
    Event,
    FileAccess,
    FileOperation,
    PatchApply,
    ToolCall,
)
from aesp_proxy.model.host import Host, parse_host
from aesp_proxy.normalize.described_context import context_of, principal_of
from aesp_proxy.normalize.fact_table import FactTable, refuse
from aesp_proxy.normalize.http import DEFAULT_PORTS, Target, Tunnel, egress_request
from aesp_proxy.normalize.http_head import Headers, check_method
from aesp_proxy.normalize.patch import other_file

_HTTP = "http."
_PORT_MAX = 65_535
_PATH_CHARS_MAX = 4096
_TARGET = frozenset(map(chr, range(0x21, 0x7F))) - frozenset('"<>\\^`{|}#')
_NAME = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_TOP = ("request", "organization", "agent", "session", "tool", "content", "patch")
_WHO = ("action", "time", "source_ip", "user", "resource", "tenant")
_TLS = frozenset({"https", "wss"})
_CONNECT_FACTS = ("host", "port", "sni")
_HTTP_FACTS = (
    *_CONNECT_FACTS, "scheme", "method", "path", "query", "headers", "content_type", "size",
)  # fmt: skip


def described(facts: Mapping[str, object], *, time_ns: int) -> tuple[Event, Context]:
    """Return the event and what surrounds it, as ``facts`` describe them.

    ``time_ns`` (UTC) holds where ``request.time`` is not stated. ``content`` is what is
    written to a file, or the body of a request: an event holds no body, so of a body only
    the length goes into it. Raises ``InputError`` for what is missing or cannot be.
    """
    top = FactTable(facts)
    top.only(*_TOP)
    request = top.table("request")
    action = request.text("action")
    if action is None:
        refuse("is missing (http.get, tcp.connect, file.open, tool.call ...)", "request.action")
    moment = request.moment_ns("time")
    attempt = _Attempt(top, request, action, time_ns if moment is None else moment)
    return attempt.event(), context_of(top, request)


class _Attempt:
    """The facts of one attempt while its event is made."""

    def __init__(self, top: FactTable, request: FactTable, action: str, time_ns: int) -> None:
        self._top = top
        self._request = request
        self._action = action
        self._time_ns = time_ns
        self._principal = principal_of(top, request)

    def event(self) -> Event:
        action = self._action
        if action.startswith(_HTTP) and action == action.lower():
            self._only(_HTTP_FACTS, beside=("content",))
            return self._http(action.removeprefix(_HTTP).upper())
        if action == "tcp.connect":
            self._only(_CONNECT_FACTS)
            return self._connect()
        if action == "dns.query":
            self._only(("host",))
            return self._query()
        if action in _OPERATIONS:
            self._only((), beside=("content", "patch"))
            return self._file(_OPERATIONS[action])
        if action == "tool.call":
            self._only((), beside=("tool",))
            return self._tool()
        if action != "custom":
            refuse("is no action that is decided", "request.action", remedy=f"known: {_ACTIONS}")
        self._only(())
        return self._custom()

    def _only(self, facts: tuple[str, ...], beside: tuple[str, ...] = ()) -> None:
        """Refuse facts of other kinds of attempts; first those that no attempt has."""
        self._request.only(*_WHO, *_HTTP_FACTS)
        why = f"is no fact of {self._action}" if self._action in _PLAIN else "is no fact of it"
        self._request.only(*_WHO, *facts, why=why)
        self._top.only("request", "organization", "agent", "session", *beside, why=why)
        if self._action not in _OPERATIONS:
            resource = self._request.table("resource")
            for name in ("path", "resolved"):
                if resource.has(name):
                    refuse(why, resource.where(name))

    def _http(self, method: str) -> EgressRequest:
        request = self._request
        try:
            check_method(method.encode("ascii", "replace"))
        except InputError as error:
            refuse(error.message, "request.action")
        if request.text("method") not in {None, method}:
            refuse(f"is not {method}, as the action says", "request.method")
        scheme = request.text("scheme") or "https"
        if scheme not in DEFAULT_PORTS:
            refuse(f"is none of {', '.join(DEFAULT_PORTS)}", "request.scheme")
        host = self._host()
        port = request.count("port", _PORT_MAX, 1) or DEFAULT_PORTS[scheme]
        sni = request.text("sni")
        if sni is None:
            sni = host.name if scheme in _TLS and host.address is None else ""
        return egress_request(
            method=method,
            target=Target(scheme=scheme, host=host, port=port, origin_form=self._target()),
            headers=self._headers(host, port, scheme),
            content_length=self._size(),
            http_version="1.1",
            tunnel=Tunnel(scheme=scheme, host=host, port=port, sni=sni) if scheme in _TLS else None,
            principal=self._principal,
            time_ns=self._time_ns,
        )

    def _custom(self) -> CustomEvent:
        return CustomEvent(event_id="", time_ns=self._time_ns, principal=self._principal, kind="")

    def _connect(self) -> EgressConnect:
        port = self._request.count("port", _PORT_MAX, 1)
        return EgressConnect(
            event_id="",
            time_ns=self._time_ns,
            principal=self._principal,
            host=self._host(),
            port=443 if port is None else port,
        )

    def _query(self) -> DnsQuery:
        host = self._host()
        if host.address is not None:
            refuse("is an address, and no name to ask for", "request.host")
        return DnsQuery(
            event_id="",
            time_ns=self._time_ns,
            principal=self._principal,
            host=host,
            record_type="A",
        )

    def _host(self) -> Host:
        text = self._request.text("host")
        if text is None:
            refuse("is missing", "request.host")
        try:
            return parse_host(text)
        except InputError as error:
            refuse(error.message, "request.host")

    def _target(self) -> str:
        path, query = self._request.text("path"), self._request.text("query")
        path = "/" if path is None else path
        if not path.startswith("/") or "?" in path or not _TARGET.issuperset(path):
            refuse("is not a path as it is sent (/v1/files, %20 for a space)", "request.path")
        if query is not None and not _TARGET.issuperset(query):
            refuse("is not a query as it is sent (a=1&b=%20)", "request.query")
        return f"{path}?{query}" if query else path

    def _headers(self, host: Host, port: int, scheme: str) -> Headers:
        stated = self._request.mapping("headers")
        fields: list[tuple[bytes, bytes]] = []
        for name, value in stated.items():
            where = f"request.headers.{name[:60]}"
            if not name or not _NAME.issuperset(name):
                refuse("is not the name of a header in lower case", where)
            values = value if isinstance(value, list | tuple) else (value,)
            fields.extend((name.encode("ascii"), _field_value(one, where)) for one in values)
        content_type = self._request.text("content_type")
        if content_type is not None:
            if "content-type" in stated:
                refuse("stands twice", "request.content_type")
            fields.append((b"content-type", _field_value(content_type, "request.content_type")))
        if "host" not in stated:
            named = str(host) if port == DEFAULT_PORTS[scheme] else f"{host}:{port}"
            fields.insert(0, (b"host", named.encode("ascii")))
        return tuple(fields)

    def _size(self) -> int | None:
        size, content = self._request.count("size"), self._top.text("content")
        if content is None:
            return size
        length = len(_utf8(content))
        if size is not None and size != length:
            refuse(f"is not the length of content, which is {length}", "request.size")
        return length

    def _file(self, operation: FileOperation) -> FileAccess | PatchApply:
        path, resolved = self._paths()
        content, patch = self._top.text("content"), self._top.text("patch")
        if patch is None:
            return FileAccess(
                event_id="",
                time_ns=self._time_ns,
                principal=self._principal,
                operation=operation,
                path=path,
                resolved=resolved,
                content=None if content is None else _utf8(content),
            )
        if operation is not FileOperation.WRITE or content is not None:
            refuse("goes with file.write, and without content", "patch")
        if other_file(patch, path) is not None:
            refuse("names another file than request.resource.path", "patch")
        return PatchApply(
            event_id="",
            time_ns=self._time_ns,
            principal=self._principal,
            path=path,
            resolved=resolved,
            patch=_utf8(patch),
        )

    def _paths(self) -> tuple[str, str]:
        resource = self._request.table("resource")
        path, resolved = resource.text("path"), resource.text("resolved")
        if path is None:
            refuse("is missing", resource.where("path"))
        given = _normalised(path, resource.where("path"))
        return given, given if resolved is None else _normalised(
            resolved, resource.where("resolved")
        )

    def _tool(self) -> ToolCall:
        tool = self._top.table("tool")
        tool.only("server", "name", "arguments", "contract")
        name = tool.text("name")
        if name is None:
            refuse("is missing", "tool.name")
        return ToolCall(
            event_id="",
            time_ns=self._time_ns,
            principal=self._principal,
            server=tool.text("server") or "",
            name=name,
            arguments=_arguments(tool.value("arguments")),
        )


_OPERATIONS = {operation.value: operation for operation in FileOperation}
_ACTIONS = f"http.get ..., tcp.connect, dns.query, {', '.join(_OPERATIONS)}, tool.call, custom"
_PLAIN = frozenset({"tcp.connect", "dns.query", "tool.call", "custom", *_OPERATIONS})


def _normalised(path: str, where: str) -> str:
    if not path.startswith("/") or len(path) > _PATH_CHARS_MAX or "\x00" in path:
        refuse(f"is not an absolute path of at most {_PATH_CHARS_MAX} characters", where)
    return "/" + posixpath.normpath(path).lstrip("/")


def _arguments(value: object) -> bytes:
    if value is None:
        return b""
    if isinstance(value, str):
        return _utf8(value)
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        refuse("cannot be written as JSON", "tool.arguments")
    return _utf8(text)


def _field_value(value: object, where: str) -> bytes:
    good = isinstance(value, str) and value.isascii() and value.strip() == value
    if not isinstance(value, str) or not good or not value.replace("\t", " ").isprintable():
        refuse("is not the value of a header", where)
    return value.encode("ascii")


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
