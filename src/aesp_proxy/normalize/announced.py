"""Announced attempts: JSON of ``check`` and of hooks to events.

Nothing here was seen happening; somebody says it is about to. The seed system's shape:
``{eventId, eventType, timestamp, sessionId, data, metadata}``, keys of ``data`` in
camelCase or snake_case. What is missing, stands twice with two values, or can be read
two ways is an ``InputError``; keys that nobody needs are ignored.

Paths: absolute, or relative with an absolute ``metadata.cwd``; ``~`` only with an
absolute ``metadata.home``; ``.`` and ``..`` are taken out by the text for ``path``,
and by the file system for ``resolved`` where the caller passes a ``resolve`` that can.
A ``network_egress`` without a port takes it from the URL or from the protocol.
"""

from __future__ import annotations

import base64
import binascii
import json
import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn

from aesp_proxy.errors import InputError
from aesp_proxy.model.event import (
    CustomEvent,
    Event,
    FileAccess,
    FileOperation,
    NetworkAccess,
    PatchApply,
    ToolCall,
)
from aesp_proxy.model.host import Host, parse_authority, parse_host
from aesp_proxy.model.principal import Principal
from aesp_proxy.normalize.http import DEFAULT_PORTS
from aesp_proxy.normalize.json_text import Json
from aesp_proxy.normalize.patch import other_file

_ID_CHARS_MAX = 256
_PATH_CHARS_MAX = 4096
_URL_CHARS_MAX = 65_536
_READS = {
    "": FileOperation.OPEN,
    "read": FileOperation.OPEN,
    "open": FileOperation.OPEN,
    "exec": FileOperation.EXEC,
    "execute": FileOperation.EXEC,
}
_WRITES = {
    "": FileOperation.WRITE,
    "write": FileOperation.WRITE,
    "append": FileOperation.WRITE,
    "create": FileOperation.CREATE,
    "delete": FileOperation.DELETE,
    "rename": FileOperation.RENAME,
}
_DATA_TYPES = {
    "file_read": "file",
    "file_write": "file",
    "network_egress": "network",
    "patch_apply": "patch",
    "tool_call": "tool",
    "custom": "custom",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """The envelope, read; ``data`` is still as it came."""

    event_id: str
    event_type: str
    time_ns: int
    principal: Principal
    data: Json
    metadata: Json


def event_id_of(value: Json) -> str:
    """Return the event's id, or nothing where it has none that can be told."""
    found = _pick(value, "eventId", "event_id")
    if isinstance(found, int) and not isinstance(found, bool):
        found = str(found)
    if not isinstance(found, str) or not found or len(found) > _ID_CHARS_MAX:
        _refuse("eventId is missing, or not a text of 1 to 256 characters")
    return found


def announcement(value: Json, *, time_ns: int) -> Announcement:
    """Read the envelope. ``time_ns`` (UTC) holds where the event has no timestamp."""
    event_id = event_id_of(value)
    event_type = _pick(value, "eventType", "event_type")
    if not isinstance(event_type, str) or event_type not in _DATA_TYPES:
        known = ", ".join(_DATA_TYPES)
        _refuse(f"eventType {_shown(event_type)} is not one of {known}")
    data = _mapping(value.get("data", {}), "data")
    metadata = _mapping(value.get("metadata", {}), "metadata")
    kind = data.get("type", _DATA_TYPES[event_type])
    if kind != _DATA_TYPES[event_type]:
        _refuse(f"data.type {_shown(kind)} does not fit eventType {event_type}")
    return Announcement(
        event_id=event_id,
        event_type=event_type,
        time_ns=_time_ns(value.get("timestamp"), time_ns),
        principal=_principal(value, metadata),
        data=data,
        metadata=metadata,
    )


def event_of(said: Announcement, *, resolve: Callable[[str], str] | None = None) -> Event:
    """Make the event of an announcement; ``InputError`` for what is missing or ambiguous.

    ``resolve`` follows symbolic links of an absolute path that may hold ``..``; without
    it the resolved path is the path.
    """
    match said.event_type:
        case "file_read" | "file_write":
            return _file(said, resolve)
        case "patch_apply":
            return _patch(said, resolve)
        case "network_egress":
            return _network(said)
        case "tool_call":
            return _tool(said)
        case _:
            return _custom(said)


def _custom(said: Announcement) -> CustomEvent:
    return CustomEvent(
        event_id=said.event_id,
        time_ns=said.time_ns,
        principal=said.principal,
        kind=_text(said.data, "customType", "custom_type", default=""),
    )


def _file(said: Announcement, resolve: Callable[[str], str] | None) -> FileAccess:
    path, resolved = _paths(said, resolve, "path", "filePath", "file_path")
    operations = _READS if said.event_type == "file_read" else _WRITES
    word = _text(said.data, "operation", default="")
    if word not in operations:
        _refuse(f"data.operation {_shown(word)} does not fit {said.event_type}")
    return FileAccess(
        event_id=said.event_id,
        time_ns=said.time_ns,
        principal=said.principal,
        operation=operations[word],
        path=path,
        resolved=resolved,
        content=_content(said.data),
    )


def _patch(said: Announcement, resolve: Callable[[str], str] | None) -> PatchApply:
    path, resolved = _paths(said, resolve, "filePath", "path", "file_path")
    patch = _text(said.data, "patchContent", "patch", "patch_content")
    other = other_file(patch, path)
    if other is not None:
        _refuse(f"data.patchContent names another file: {_shown(other)}")
    return PatchApply(
        event_id=said.event_id,
        time_ns=said.time_ns,
        principal=said.principal,
        path=path,
        resolved=resolved,
        patch=_utf8(patch),
    )


def _network(said: Announcement) -> NetworkAccess:
    url = _text(said.data, "url", default="")
    host_text = _text(said.data, "host", default="")
    port = _port(said.data)
    if url:
        url_host, url_port = split_url(url)
        if host_text and parse_host(host_text) != url_host:
            _refuse("data.host and the host of data.url are not the same")
        if port is not None and port != url_port:
            _refuse("data.port and the port of data.url are not the same")
        return _access(said, url_host, url_port, url)
    if not host_text:
        _refuse("data.host is missing")
    if port is None:
        port = DEFAULT_PORTS.get(_text(said.data, "protocol", default="").lower())
    if port is None:
        _refuse("data.port is missing, and no URL or protocol tells it")
    return _access(said, parse_host(host_text), port, "")


def _access(said: Announcement, host: Host, port: int, url: str) -> NetworkAccess:
    return NetworkAccess(
        event_id=said.event_id,
        time_ns=said.time_ns,
        principal=said.principal,
        host=host,
        port=port,
        url=url,
    )


def _tool(said: Announcement) -> ToolCall:
    arguments = _pick(said.data, "parameters", "arguments")
    return ToolCall(
        event_id=said.event_id,
        time_ns=said.time_ns,
        principal=said.principal,
        server=_text(said.data, "server", "serverName", "server_name", default=""),
        name=_text(said.data, "toolName", "tool", "tool_name"),
        arguments=b"" if arguments is None else _json_bytes(arguments),
    )


def split_url(url: str) -> tuple[Host, int]:
    """Return host and port of an absolute http, https, ws or wss URL (RFC 3986 section 3).

    Refused: user information, backslashes, spaces, control characters and anything that
    is not ASCII: two readers may find two hosts in those (threat row 10).
    """
    if len(url) > _URL_CHARS_MAX:
        _refuse(f"data.url is longer than {_URL_CHARS_MAX} characters")
    if not url.isascii() or any(character <= " " or character in "\\\x7f" for character in url):
        _refuse("data.url holds a character that does not belong in a URL")
    scheme, separator, rest = url.partition("://")
    default_port = DEFAULT_PORTS.get(scheme.lower())
    if not separator or default_port is None:
        _refuse("data.url is not an absolute http, https, ws or wss URL")
    end = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    if "@" in rest[:end]:
        _refuse("data.url holds user information")
    return parse_authority(rest[:end], default_port)


def _paths(
    said: Announcement, resolve: Callable[[str], str] | None, *names: str
) -> tuple[str, str]:
    text = _text(said.data, *names)
    where = f"data.{names[0]}"
    if not text or len(text) > _PATH_CHARS_MAX or "\x00" in text:
        _refuse(f"{where} is empty, longer than {_PATH_CHARS_MAX} characters, or holds NUL")
    absolute = _absolute(text, said.metadata, where)
    path = _normalised(absolute)
    if resolve is None:
        return path, path
    return path, _normalised(resolve(absolute))


def _absolute(text: str, metadata: Json, where: str) -> str:
    if text.startswith("/"):
        return text
    if text == "~" or text.startswith("~/"):
        return _base(metadata, "home", f"{where} begins with '~'") + text[1:]
    if text.startswith("~"):
        _refuse(f"{where} names another user's home; give the absolute path")
    return f"{_base(metadata, 'cwd', f'{where} is relative')}/{text}"


def _base(metadata: Json, name: str, why: str) -> str:
    base = metadata.get(name)
    good = isinstance(base, str) and base.startswith("/") and "\x00" not in base
    if not isinstance(base, str) or not good:
        _refuse(f"{why}, and metadata.{name} is not an absolute path")
    return base


def _normalised(path: str) -> str:
    # POSIX lets two leading slashes mean something else; on Linux they do not.
    return "/" + posixpath.normpath(path).lstrip("/")


def _content(data: Json) -> bytes | None:
    plain, encoded = data.get("content"), _pick(data, "contentBase64", "content_base64")
    if plain is not None and encoded is not None:
        _refuse("data.content and data.contentBase64 are both given")
    if encoded is not None:
        if not isinstance(encoded, str):
            _refuse("data.contentBase64 is not a text")
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            _refuse("data.contentBase64 is not base64")
    if plain is None:
        return None
    if not isinstance(plain, str):
        _refuse("data.content is not a text")
    return _utf8(plain)


def _port(data: Json) -> int | None:
    port = data.get("port")
    if port is None:
        return None
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65_535:
        _refuse("data.port is not a whole number from 1 to 65535")
    return port


def _time_ns(stamp: object, default_ns: int) -> int:
    """Read RFC 3339 text with an offset; nothing means now."""
    if stamp is None:
        return default_ns
    why = "timestamp is not RFC 3339 with an offset (2026-01-31T12:00:00Z)"
    if not isinstance(stamp, str) or len(stamp) > 64:
        _refuse(why)
    try:
        moment = datetime.fromisoformat(stamp)
        if moment.tzinfo is None:
            _refuse(why)
        delta = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError):
        _refuse(why)
    return (delta.days * 86_400 + delta.seconds) * 10**9 + delta.microseconds * 1000


def _principal(value: Json, metadata: Json) -> Principal:
    return Principal(
        principal_id=_id_of(metadata, "user", "principalId", "principal_id"),
        agent_id=_text(metadata, "agentId", "agent_id", default=""),
        agent_type=_text(metadata, "agentType", "agent_type", default="announced"),
        session_id=_text(value, "sessionId", "session_id", default=""),
        tenant_id=_id_of(metadata, "tenant", "tenantId", "tenant_id"),
    )


def _id_of(metadata: Json, section: str, *names: str) -> str:
    """Return an id that may stand by itself or in the object of what it is the id of."""
    own = _text(metadata, *names, default="")
    inner = _mapping(metadata.get(section), f"metadata.{section}").get("id")
    if inner is not None and not isinstance(inner, str):
        _refuse(f"metadata.{section}.id is not a text")
    if own and inner and own != inner:
        _refuse(f"metadata.{names[0]} and metadata.{section}.id say different things")
    return own or inner or ""


def _pick(value: Json, *names: str) -> object:
    """Return the value under the one of several names; two values are ambiguous."""
    found = [value[name] for name in names if name in value and value[name] is not None]
    if any(other != found[0] or type(other) is not type(found[0]) for other in found[1:]):
        _refuse(f"{' and '.join(name for name in names if name in value)} say different things")
    return found[0] if found else None


def _text(value: Json, *names: str, default: str | None = None) -> str:
    found = _pick(value, *names)
    if found is None and default is not None:
        return default
    if not isinstance(found, str):
        _refuse(f"{names[0]} is {'missing' if found is None else 'not a text'}")
    return found


def _mapping(value: object, name: str) -> Json:
    if value is None:
        return {}
    if not isinstance(value, dict):
        _refuse(f"{name} is not a JSON object")
    return value


def _json_bytes(value: object) -> bytes:
    if isinstance(value, str):
        return _utf8(value)
    return _utf8(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _shown(value: object) -> str:
    return ascii(value[:40]) if isinstance(value, str) else f"of type {type(value).__name__}"


def _refuse(why: str) -> NoReturn:
    raise InputError(why)
