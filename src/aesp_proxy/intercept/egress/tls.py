"""TLS on both sides: leaves from the host CA, upstream verified, HTTP/1.1 preferred.

mitmproxy's ``TlsConfig`` with four changes: ALPN picks HTTP/1.1 unless the
client offers only HTTP/2 (3.5 times the CPU a byte), upstream is offered what
the client will speak, upstream TLS sessions are resumed per (name, port), and a host may
be shown a client certificate of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, cast

from mitmproxy.addons import tlsconfig
from mitmproxy.certs import CertStore
from mitmproxy.connection import ConnectionState
from mitmproxy.net import tls as net_tls
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.tls import ClientTLSLayer, ServerTLSLayer, TLSLayer
from mitmproxy.proxy.tunnel import TunnelState
from OpenSSL import SSL

from aesp_proxy.errors import UnavailableError
from aesp_proxy.intercept.egress.tls_settings import TlsSettings
from aesp_proxy.model.host import parse_host

if TYPE_CHECKING:
    from pathlib import Path

    from mitmproxy.connection import Server
    from mitmproxy.tls import ClientHelloData, TlsData

# Beyond the stock 100 every new host rebuilds the dict and hashes all certificates.
_CERTS_MAX = 10_000
_SESSIONS_MAX = 1_000
_RECORD_BYTES = 16_384  # the largest TLS record (RFC 8446 section 5.1)
_CIPHERTEXT_BYTES = 262_144
# OpenSSL itself, as pyOpenSSL and mitmproxy use it.
_LIB: Any = SSL._lib  # type: ignore[attr-defined]  # noqa: SLF001
_FFI: Any = SSL._ffi  # type: ignore[attr-defined]  # noqa: SLF001


class EgressTls(tlsconfig.TlsConfig):
    """Supplies the OpenSSL connections of both sides."""

    name = "tlsconfig"

    def __init__(self, *, http2: bool, settings: TlsSettings | None = None) -> None:
        CertStore.STORE_CAP = _CERTS_MAX
        self._http2 = http2
        self._settings = settings or TlsSettings()
        self._fitted: set[SSL.Context] = set()
        self._identities: dict[Path, SSL.Context] = {}
        self._sessions: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    def configure(self, updated: set[str]) -> None:
        """Take options over; all but the versions, of which mitmproxy only warns.

        It asks the TLS library for SSL 3 to do so, which newer ones answer with an error.
        """
        configure: Any = super().configure
        configure(set(updated) - set(self._settings.options))

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

    def tls_start_client(self, data: TlsData) -> None:
        """Offer the agent what the operator allows."""
        super().tls_start_client(data)
        if self._fit(data.ssl_conn):
            data.ssl_conn = None
            super().tls_start_client(data)
        _keep_no_buffers(data.ssl_conn)

    def _fit(self, ssl_conn: SSL.Connection | None) -> bool:
        """Set the suites of TLS 1.3, which mitmproxy has no option for; True when they were not.

        Contexts are made once and kept by mitmproxy; a connection copies them when it is made.
        """
        suites = self._settings.ciphers.of_1_3
        if not suites or ssl_conn is None:
            return False
        context: Any = ssl_conn.get_context()
        if context in self._fitted:
            return False
        # pyOpenSSL lets nobody change a context in use, for the sake of threads; here is one.
        done = _LIB.SSL_CTX_set_ciphersuites(context._context, suites.encode("ascii"))  # noqa: SLF001
        if done != 1:
            raise UnavailableError("the suites of TLS 1.3 cannot be set")
        self._fitted.add(context)
        return True

    def tls_start_server(self, data: TlsData) -> None:
        """Verify upstream against the configured roots; resume where possible."""
        server = cast("Server", data.conn)
        if data.context.client.alpn == b"h2":
            server.alpn_offers = [b"h2", b"http/1.1"]
        else:
            server.alpn_offers = [b"http/1.1"]
        super().tls_start_server(data)
        if self._fit(data.ssl_conn):
            data.ssl_conn = None
            super().tls_start_server(data)
        _keep_no_buffers(data.ssl_conn)
        self._identify(server, data.ssl_conn)
        session = self._sessions.get(_session_key(server))
        if session is not None and data.ssl_conn is not None:
            data.ssl_conn.set_session(_session_of(session))

    def _identify(self, server: Server, ssl_conn: SSL.Connection | None) -> None:
        """Have a client certificate at hand for a host that has one in the settings."""
        name, port = _session_key(server)
        host = parse_host(f"[{name}]" if ":" in name else name)
        file = self._settings.certificates.file_for(host, port)
        if file is not None and ssl_conn is not None:
            ssl_conn.set_context(self._identities[file])

    def load_identities(self, upstream_roots: Path | None) -> None:
        """Load the client certificates, with the roots that upstream is verified against.

        A connection is given one as its context: it then takes certificate and roots from
        there, and keeps its own versions, ciphers and verification.
        """
        for file in self._settings.certificates.files.values():
            self._identities[file] = net_tls.create_proxy_server_context(
                method=net_tls.Method.TLS_CLIENT_METHOD,
                min_version=net_tls.Version[str(self._settings.options["tls_version_server_min"])],
                max_version=net_tls.DEFAULT_MAX_VERSION,
                cipher_list=None,
                ecdh_curve=None,
                verify=net_tls.Verify.VERIFY_PEER,
                ca_path=None,
                ca_pemfile=str(upstream_roots) if upstream_roots else None,
                client_cert=str(file),
                legacy_server_connect=False,
            )

    def remember(self, server: Server, ssl_conn: SSL.Connection | None) -> None:
        """Keep the session of a connection that carried a response (tickets come late)."""
        session = ssl_conn.get_session() if ssl_conn is not None else None
        if session is None:
            return
        key = _session_key(server)
        self._sessions[key] = _bytes_of(session)
        self._sessions.move_to_end(key)
        if len(self._sessions) > _SESSIONS_MAX:
            self._sessions.popitem(last=False)


def _keep_no_buffers(ssl_conn: SSL.Connection | None) -> None:
    """Let a connection that waits keep no room for records: 34 KiB that most never need again."""
    if ssl_conn is not None:
        _LIB.SSL_set_mode(ssl_conn._ssl, SSL.MODE_RELEASE_BUFFERS)  # noqa: SLF001


def _session_key(server: Server) -> tuple[str, int]:
    name, port = server.address[:2] if server.address else ("", 0)
    return (server.sni or name, port)


# Sessions are kept as bytes: OpenSSL makes a session unusable when a connection that has
# it is freed without having been shut down by both sides, which here is the rule.


def _bytes_of(session: SSL.Session) -> bytes:
    lib, ffi, kept = _LIB, _FFI, session._session  # noqa: SLF001
    size = lib.i2d_SSL_SESSION(kept, ffi.NULL)
    buffer = ffi.new("unsigned char[]", size)
    lib.i2d_SSL_SESSION(kept, ffi.new("unsigned char **", buffer))
    return bytes(ffi.buffer(buffer, size))


def _session_of(data: bytes) -> SSL.Session:
    lib, ffi = _LIB, _FFI
    buffer = ffi.new("unsigned char[]", data)
    read = lib.d2i_SSL_SESSION(ffi.NULL, ffi.new("const unsigned char **", buffer), len(data))
    session = SSL.Session()
    made: Any = session
    made._session = ffi.gc(read, lib.SSL_SESSION_free)  # noqa: SLF001 - as pyOpenSSL makes it
    return session


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
                # OpenSSL takes the peer's alert for its last word; nothing else will tell.
                self.conn.error = f"TLS error: {_told(error)}"
                finished = True
                break
        yield from self.tls_interact()
        if records:
            plain = records[0] if len(records) == 1 else b"".join(records)
            yield from self.event_to_child(events.DataReceived(self.conn, plain))
        if finished:
            self.conn.state &= ~ConnectionState.CAN_READ
            yield from self.event_to_child(events.ConnectionClosed(self.conn))

    def on_handshake_error(self, err: str) -> CommandGenerator[None]:
        """Send the alert that says why before the connection is closed."""
        yield from self.tls_interact()
        yield from super().on_handshake_error(err)

    def tls_interact(self) -> CommandGenerator[None]:
        """Send what OpenSSL has written, in one piece where possible."""
        while True:
            try:
                data = self.tls.bio_read(_CIPHERTEXT_BYTES)
            except SSL.WantReadError:
                return
            yield commands.SendData(self.conn, data)


def _told(error: SSL.Error) -> str:
    """Give OpenSSL's own words for what went wrong."""
    queue = error.args[0] if error.args else ()
    return str(queue[-1][-1]) if queue else "damaged"


class UpstreamTls(_Bulk, ServerTLSLayer):
    """TLS to one upstream connection; ``tls`` is the OpenSSL connection."""

    def on_handshake_error(self, err: str) -> CommandGenerator[None]:
        """Say why it came to nothing: what is known of the connection, else OpenSSL's words."""
        yield from super().on_handshake_error(self.conn.error or err)

    def _handshake_finished(self, err: str | None) -> CommandGenerator[None]:
        yield from super()._handshake_finished(err and (self.conn.error or err))


class AgentTls(_Bulk, ClientTLSLayer):
    """TLS with the agent, by a certificate of the host CA."""

    def close_notify(self) -> bytes:
        """Give the alert that nothing follows (RFC 8446 section 6.1); empty where TLS is not up."""
        if self.tunnel_state is not TunnelState.OPEN:
            return b""
        try:
            self.tls.shutdown()
            return self.tls.bio_read(_CIPHERTEXT_BYTES)
        except SSL.Error:
            return b""
