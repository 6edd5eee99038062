"""What was attempted, already canonical: normalize makes these, decide reads them.

An event never holds what could not be parsed without doubt; such bytes are an
``InputError`` before an event exists. Times are UTC nanoseconds, passed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from aesp_proxy.model.host import Host
from aesp_proxy.model.principal import Principal


class FileOperation(StrEnum):
    """What is done to a path; the value is the ``request.action`` of the facts."""

    OPEN = "file.open"
    WRITE = "file.write"
    CREATE = "file.create"
    DELETE = "file.delete"
    RENAME = "file.rename"
    EXEC = "file.exec"


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressConnect:
    """A connection to ``host``:``port``, before anything is known of what flows in it.

    ``raw``: bytes that are neither TLS nor HTTP will be relayed as they come. ``sealed``:
    TLS that the operator has listed will be relayed without being taken off. Neither is
    read, so neither may pass because requests might be allowed.
    """

    event_id: str
    time_ns: int
    principal: Principal
    host: Host
    port: int
    raw: bool = False
    sealed: bool = False

    @property
    def action(self) -> str:
        """The ``request.action`` of the facts."""
        return "tcp.connect"

    @property
    def unread(self) -> bool:
        """Whether what flows will not be read."""
        return self.raw or self.sealed


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRequest:
    """One HTTP request, headers complete, body not yet read.

    ``scheme`` is http, https, ws or wss. ``target`` is the origin-form target
    as sent (path and query, percent-encoding untouched), ``path`` the part
    before ``?``, ``query`` the part after it. ``headers`` keep order, names in
    lower case. ``content_length`` is bytes, None when chunked or absent.
    """

    event_id: str
    time_ns: int
    principal: Principal
    scheme: str
    method: str
    host: Host
    port: int
    target: str
    path: str
    query: str
    headers: tuple[tuple[bytes, bytes], ...]
    http_version: str
    sni: str = ""
    connect_host: str = ""
    content_length: int | None = None

    @property
    def action(self) -> str:
        """The ``request.action`` of the facts."""
        return "http." + self.method.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsQuery:
    """The agent asks for a name. ``record_type`` is a word (A, AAAA, TXT, TYPE999)."""

    event_id: str
    time_ns: int
    principal: Principal
    host: Host
    record_type: str

    @property
    def action(self) -> str:
        """The ``request.action`` of the facts."""
        return "dns.query"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkAccess:
    """An announced connection (``check``, hooks): a host and port, maybe a URL."""

    event_id: str
    time_ns: int
    principal: Principal
    host: Host
    port: int
    url: str = ""

    @property
    def action(self) -> str:
        """The ``request.action`` of the facts."""
        return "tcp.connect"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileAccess:
    """One access to a path.

    ``path`` is absolute and normalised as given; ``resolved`` the same after
    symbolic links, equal to ``path`` where nobody could resolve it.
    ``content`` is what is written, None when unknown.
    """

    event_id: str
    time_ns: int
    principal: Principal
    operation: FileOperation
    path: str
    resolved: str
    content: bytes | None = None

    @property
    def action(self) -> str:
        """The ``request.action`` of the facts."""
        return self.operation.value


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchApply:
    """A patch to one file, as text."""

    event_id: str
    time_ns: int
    principal: Principal
    path: str
    resolved: str
    patch: bytes

    @property
    def action(self) -> str:
        """The ``request.action`` of the facts."""
        return "file.write"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call of a tool (MCP or a framework's own). ``arguments`` is JSON text."""

    event_id: str
    time_ns: int
    principal: Principal
    server: str
    name: str
    arguments: bytes

    @property
    def action(self) -> str:
        """The ``request.action`` of the facts."""
        return "tool.call"


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomEvent:
    """An event of a kind no guard knows; it is refused unless a rule answers."""

    event_id: str
    time_ns: int
    principal: Principal
    kind: str

    @property
    def action(self) -> str:
        """The ``request.action`` of the facts."""
        return "custom"


Event = (
    EgressConnect
    | EgressRequest
    | DnsQuery
    | NetworkAccess
    | FileAccess
    | PatchApply
    | ToolCall
    | CustomEvent
)
