"""TLS on both sides: leaves from the host CA, upstream verified, HTTP/1.1 preferred.

mitmproxy's ``TlsConfig`` with three changes: ALPN picks HTTP/1.1 unless the
client offers only HTTP/2 (3.5 times the CPU a byte), upstream is offered what
the client will speak, and upstream TLS sessions are resumed per (name, port).
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, cast

from mitmproxy.addons import tlsconfig
from mitmproxy.certs import CertStore
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.tls import ClientTLSLayer, ServerTLSLayer, TLSLayer
from OpenSSL import SSL

if TYPE_CHECKING:
    from mitmproxy.connection import Server
    from mitmproxy.tls import ClientHelloData, TlsData

# Beyond the stock 100 every new host rebuilds the dict and hashes all certificates.
_CERTS_MAX = 10_000
_SESSIONS_MAX = 1_000
_RECORD_BYTES = 16_384  # the largest TLS record (RFC 8446 section 5.1)
_CIPHERTEXT_BYTES = 262_144


class EgressTls(tlsconfig.TlsConfig):
    """Supplies the OpenSSL connections of both sides."""

    name = "tlsconfig"

    def __init__(self, *, http2: bool) -> None:
        CertStore.STORE_CAP = _CERTS_MAX
        self._http2 = http2
        self._sessions: OrderedDict[tuple[str, int], SSL.Session] = OrderedDict()

    def tls_clienthello(self, data: ClientHelloData) -> None:
        """Choose the protocol before any handshake: decide first, connect lazily."""
        data.establish_server_tls_first = False
        client = data.context.client
        offers = client.alpn_offers or []
        if b"http/1.1" in offers or not offers or not self._http2:
            chosen = b"http/1.1"
        else:
            chosen = b"h2" if b"h2" in offers else b"http/1.1"
        client.alpn = chosen if offers else None

    def tls_start_server(self, data: TlsData) -> None:
        """Verify upstream against the configured roots; resume where possible."""
        server = cast("Server", data.conn)
        if data.context.client.alpn == b"h2":
            server.alpn_offers = [b"h2", b"http/1.1"]
        else:
            server.alpn_offers = [b"http/1.1"]
        super().tls_start_server(data)
        session = self._sessions.get(_session_key(server))
        if session is not None and data.ssl_conn is not None:
            data.ssl_conn.set_session(session)

    def remember(self, server: Server, ssl_conn: SSL.Connection | None) -> None:
        """Keep the session of a connection that carried a response (tickets come late)."""
        session = ssl_conn.get_session() if ssl_conn is not None else None
        if session is None:
            return
        key = _session_key(server)
        self._sessions[key] = session
        self._sessions.move_to_end(key)
        if len(self._sessions) > _SESSIONS_MAX:
            self._sessions.popitem(last=False)


def _session_key(server: Server) -> tuple[str, int]:
    name, port = server.address[:2] if server.address else ("", 0)
    return (server.sni or name, port)


class _Bulk(TLSLayer):
    """Moves bodies with fewer copies: records are joined once, ciphertext is read at once.

    Same behaviour as the stock layer, which grows a bytearray record by record,
    copies it, and hands ciphertext on in pieces of 64 KiB.
    """

    def receive_data(self, data: bytes) -> CommandGenerator[None]:
        """Decrypt what came and hand it to the child layer."""
        tls = self.tls
        if data:
            tls.bio_write(data)
        records: list[bytes] = []
        finished = False
        while True:
            try:
                records.append(tls.recv(_RECORD_BYTES))
            except SSL.WantReadError:
                break
            except SSL.ZeroReturnError:
                finished = True
                break
            except SSL.Error as error:  # an alert, or damage: what came before still counts
                yield commands.Log(f"TLS error: {error}", logging.WARNING)
                break
        yield from self.tls_interact()
        if records:
            plain = records[0] if len(records) == 1 else b"".join(records)
            yield from self.event_to_child(events.DataReceived(self.conn, plain))
        if finished:
            self.conn.state &= ~ConnectionState.CAN_READ
            yield from self.event_to_child(events.ConnectionClosed(self.conn))

    def tls_interact(self) -> CommandGenerator[None]:
        """Send what OpenSSL has written, in one piece where possible."""
        while True:
            try:
                data = self.tls.bio_read(_CIPHERTEXT_BYTES)
            except SSL.WantReadError:
                return
            yield commands.SendData(self.conn, data)


class UpstreamTls(_Bulk, ServerTLSLayer):
    """TLS to one upstream connection; ``tls`` is the OpenSSL connection."""


class AgentTls(_Bulk, ClientTLSLayer):
    """TLS with the agent, by a certificate of the host CA."""
