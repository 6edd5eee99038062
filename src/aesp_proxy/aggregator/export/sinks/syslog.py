"""Syslog (RFC 5424) over TLS, framed by octet counting (RFC 5425).

Syslog has no acknowledgement. A delivery returns when the receiver's kernel (through a
proxy: the proxy's) has acknowledged every byte and the connection still stands, and what
was sent last is sent again on the next connection after one broke; what the receiver had
read and lost in a crash of its own, nobody can tell: ``backfill`` sends it again.
Source: RFC 5424, RFC 5425; tcp(7), SIOCOUTQ.
"""

from __future__ import annotations

import fcntl
import select
import socket
import ssl
import struct
import termios
from typing import TYPE_CHECKING, Final

from aesp_proxy.aggregator.export.event import severity_of
from aesp_proxy.aggregator.export.sinks.http import packed
from aesp_proxy.aggregator.export.sinks.port import Delivery, LaterError
from aesp_proxy.aggregator.export.sinks.tls import sink_context
from aesp_proxy.aggregator.export.sinks.tunnel import connected
from aesp_proxy.aggregator.query import format_time
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aesp_proxy.aggregator.export.settings import SinkSettings
    from aesp_proxy.aggregator.export.sinks.port import Outgoing

TLS_PORT: Final = 6514
LOG_AUDIT: Final = 13
AGAIN_BYTES_MAX: Final = 256 * 1024
_POLL_S: Final = 0.01
_HOSTNAME_CHARS_MAX: Final = 255
_MSGID_CHARS_MAX: Final = 32
_SEVERITY: Final = {
    Severity.INFO: 6,
    Severity.WARNING: 4,
    Severity.ERROR: 3,
    Severity.CRITICAL: 2,
}


class SyslogSink:
    """One receiver and the connection to it."""

    def __init__(
        self,
        settings: SinkSettings,
        *,
        now_s: Callable[[], float],
        wait: Callable[[float], None],
    ) -> None:
        self._settings = settings
        self._now_s = now_s
        self._wait = wait
        self._context = None if settings.plain else sink_context(settings)
        self._host, self._port = _address(settings)
        self._socket: socket.socket | None = None
        self._sent_last = b""
        self._broke = False

    def close(self) -> None:
        """Let the connection go."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def deliver(self, events: Sequence[Outgoing]) -> Delivery:
        """Send events; return when the receiver's kernel has them all."""
        number = self._settings.enterprise_number
        data = b"".join(framed(event, enterprise_number=number) for event in events)
        try:
            connection = self._connected()
            again = self._sent_last if self._broke else b""
            connection.sendall(again + data)
            self._confirm(connection)
        except LaterError:
            self.close()
            raise
        except (OSError, ssl.SSLError) as error:
            self.close()
            self._broke = True
            reason = error.strerror or getattr(error, "reason", "") or type(error).__name__
            where = self._settings.address
            raise LaterError(f"not sent: {reason}", where=where) from error
        self._broke = False
        self._sent_last = data if len(data) <= AGAIN_BYTES_MAX else b""
        return Delivery()

    def _connected(self) -> socket.socket:
        if self._socket is not None:
            if not _is_closed(self._socket):
                return self._socket
            self.close()
            self._broke = True
        plain = connected(self._settings, self._host, self._port)
        if self._context is None:
            self._socket = plain
            return plain
        try:
            self._socket = self._context.wrap_socket(plain, server_hostname=self._host)
        except (OSError, ssl.SSLError):
            plain.close()
            raise
        return self._socket

    def _confirm(self, connection: socket.socket) -> None:
        """Wait until no byte is unacknowledged; OSError when the peer has gone."""
        end_s = self._now_s() + self._settings.timeout_s
        while _unacknowledged_bytes(connection):
            if self._now_s() > end_s:
                raise TimeoutError
            self._wait(_POLL_S)
        if _is_closed(connection):
            raise ConnectionResetError


def framed(outgoing: Outgoing, *, enterprise_number: int) -> bytes:
    """Return the message with its length before it (RFC 5425 section 4.3)."""
    message = syslog_message(outgoing, enterprise_number=enterprise_number)
    return b"%d %s" % (len(message), message)


def syslog_message(outgoing: Outgoing, *, enterprise_number: int) -> bytes:
    """Return one RFC 5424 message; its text is UTF-8, which the BOM says."""
    event = outgoing.event
    record = event.record
    priority = LOG_AUDIT * 8 + _SEVERITY[severity_of(record)]
    # Six decimals are the most the grammar allows.
    stamp = format_time(record.time_ns)[:26] + "Z" if record.time_ns else "-"
    header = (
        f"<{priority}>1 {stamp}",
        _name(event.record_id.origin, _HOSTNAME_CHARS_MAX),
        "aesp-proxy",
        str(event.record_id.epoch),
        _name(record.action or record.event_type, _MSGID_CHARS_MAX),
    )
    place = (
        f'[aesp@{enterprise_number} id="{_parameter(event.id)}"'
        f' origin="{_parameter(event.record_id.origin)}" batch="{event.batch_no}"'
        f' seq="{event.record_id.seq}"]'
    )
    body = outgoing.body
    text = body.encode("utf-8", "replace") if isinstance(body, str) else packed(body)
    return f"{' '.join(header)} {place} ".encode("ascii", "replace") + b"\xef\xbb\xbf" + text


def _name(text: str, chars_max: int) -> str:
    """Return a header field: printable ASCII without spaces, or the nil value."""
    return "".join(char for char in text if "!" <= char <= "~")[:chars_max] or "-"


def _parameter(text: str) -> str:
    return "".join(f"\\{char}" if char in '"\\]' else char for char in text)


def _address(settings: SinkSettings) -> tuple[str, int]:
    host, colon, port = settings.address.rpartition(":")
    if not colon:
        return settings.address, TLS_PORT
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ConfigError("address must be HOST:PORT", where=f"sinks.{settings.name}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _unacknowledged_bytes(connection: socket.socket) -> int:
    packed_count = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0" * 4)
    return int(struct.unpack("i", packed_count)[0])


def _is_closed(connection: socket.socket) -> bool:
    """Whether the peer has ended the connection; what a receiver says else is not for us."""
    readable, _, _ = select.select([connection], [], [], 0)
    if not readable:
        return False
    timeout_s = connection.gettimeout()
    connection.settimeout(0)
    try:
        return not connection.recv(4096)
    except (ssl.SSLWantReadError, BlockingIOError):
        return False  # a session ticket, or half of one
    except OSError:
        return True
    finally:
        connection.settimeout(timeout_s)
