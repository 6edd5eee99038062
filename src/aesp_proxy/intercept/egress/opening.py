"""The first bytes of a client's stream, whichever way it came: TLS, HTTP or other TCP.

One path for every entry. A tunnel (CONNECT, SOCKS) has named its host before; a captured
connection has not, and ``transparent`` finds the name. Other TCP passes only where the
policy says its port (``Gate.raw``), and TLS unread only for hosts on the operator's list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layer import CommandGenerator, Layer

from aesp_proxy.act.denial import Denial, http1_response
from aesp_proxy.errors import InputError
from aesp_proxy.intercept.egress.relay import Unread
from aesp_proxy.model.decision import Reason
from aesp_proxy.model.host import Host, parse_host
from aesp_proxy.model.record import Ending
from aesp_proxy.normalize import first_bytes
from aesp_proxy.normalize.tls_hello import ClientHello, HelloReader

if TYPE_CHECKING:
    from mitmproxy.proxy.context import Context

    from aesp_proxy.intercept.egress.conversation import Conversation
    from aesp_proxy.intercept.port import Exchange
    from aesp_proxy.normalize.http import Tunnel

WEB_PORTS: Final = frozenset({80, 443})
_ACCESS_DENIED, _DECODE_ERROR = 49, 50  # RFC 8446 section 6


class Layers(Protocol):
    """Makes the layers that may follow, and holds what bounds them."""

    silence_s: float
    """Seconds of a client's silence after which the server is taken to speak first."""

    def plain(self, conversation: Conversation) -> Layer:
        """For absolute-form requests to the proxy itself."""

    def cleartext(self, conversation: Conversation, tunnel: Tunnel) -> Layer:
        """For HTTP inside a tunnel without TLS."""

    def tls(self, conversation: Conversation, tunnel: Tunnel) -> Layer:
        """For a tunnel whose first byte is a TLS handshake."""

    def resolved(self, conversation: Conversation, host: Host, port: int) -> Layer | None:
        """For an address that our resolver has told the client: as captured. None for others."""

    def is_sealed(self, host: Host, port: int) -> bool:
        """Whether the operator has listed a host as one whose TLS is passed through."""


class _Silence(events.Event):
    """The client has said nothing for a while."""


class Opening(Layer):
    """Waits for as many bytes as it takes, then becomes what follows."""

    _status = 0
    """The HTTP status that the client has been answered, for outcomes."""

    def __init__(
        self, context: Context, conversation: Conversation, layers: Layers, port: int
    ) -> None:
        super().__init__(context)
        self._conversation = conversation
        self._layers = layers
        self._port = port
        self._data = b""
        self._hello = HelloReader()
        self._over = False

    # what the entries do differently ------------------------------------------------

    def _tls(self, new: bytes) -> CommandGenerator[None]:
        raise NotImplementedError

    def _http1(self) -> CommandGenerator[None]:
        raise NotImplementedError

    def _host_of_raw(self) -> Host:
        raise NotImplementedError

    def _where(self) -> str:
        raise NotImplementedError

    def _watch_handshake(self, exchange: Exchange) -> None:
        """Note in the outcome that the client would not have our certificate (it pins, say)."""

        def failed(data: object) -> None:
            error = getattr(getattr(data, "conn", None), "error", None)
            detail = f"TLS with the agent failed: {error}"
            exchange.end(Ending(reason=Reason.CLIENT_GONE, status=self._status, detail=detail))

        self._conversation.hooks["tls_failed_client"] = failed

    def _answers_in_http(self) -> bool:
        """Whether what is no HTTP is answered in HTTP nevertheless."""
        return False

    # events -----------------------------------------------------------------------

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if self._over:
            return
        if isinstance(event, events.Start):
            if self._port not in WEB_PORTS:
                self._conversation.at(self._layers.silence_s, self._silent)
        elif isinstance(event, events.DataReceived):
            self._data += event.data
            yield from self._read(event.data)
        elif isinstance(event, events.ConnectionClosed):
            yield from self._closed()
        elif isinstance(event, _Silence):
            yield from self._other()

    def _closed(self) -> CommandGenerator[None]:
        if not self._data:
            self._over = True
            yield commands.CloseConnection(self.context.client)
            return
        error = InputError("the client closed before its first bytes told what it speaks")
        denial = self._conversation.object_to(error, self._where())
        yield from self._refuse(denial, http=self._answers_in_http())

    def _silent(self) -> None:
        if self._conversation.layer is self and not (self._data or self._over):
            self._conversation.happen(_Silence())

    def _read(self, new: bytes) -> CommandGenerator[None]:
        protocol = first_bytes.recognise(self._data)
        self._conversation.await_head(waiting=True)
        try:
            match protocol:
                case first_bytes.Protocol.TLS:
                    yield from self._tls(new)
                case first_bytes.Protocol.HTTP1:
                    yield from self._http1()
                case first_bytes.Protocol.HTTP2:
                    text = "HTTP/2 without TLS is not spoken; use HTTP/1.1"
                    conversation = self._conversation
                    yield from self._refuse(
                        conversation.gate.unsupported(conversation.principal, text, self._where()),
                        http=True,
                    )
                case first_bytes.Protocol.OTHER:
                    yield from self._other()
                case None:
                    pass
        except InputError as error:
            yield from self._refuse(self._conversation.object_to(error, self._where()))

    # what follows -----------------------------------------------------------------

    def _other(self) -> CommandGenerator[None]:
        """Relay what is neither TLS nor HTTP, where the policy says its port."""
        conversation = self._conversation
        host = self._host_of_raw()
        exchange = conversation.gate.raw(conversation.principal, host, self._port)
        if exchange.denial is not None:
            yield from self._refuse(exchange.denial, http=self._answers_in_http())
            return
        yield from self._relay(host, exchange, reread=not self._data)

    def _relay(self, host: Host, exchange: Exchange, *, reread: bool) -> CommandGenerator[None]:
        unread = Unread(
            self.context,
            self._conversation,
            host=host,
            port=self._port,
            exchange=exchange,
            reread=self._spoke_after_all if reread else None,
        )
        yield from self._become(unread, self._data)

    def _spoke_after_all(self, data: bytes) -> CommandGenerator[None]:
        self._conversation.layer = self
        self._over, self._data = False, data
        yield from self._read(data)

    def _pass_through(self, host: Host, hello: ClientHello) -> CommandGenerator[None]:
        """Relay the TLS of a host on the operator's list; only what names it in the open."""
        conversation = self._conversation
        exchange = conversation.gate.sealed(conversation.principal, host, self._port)
        if exchange.denial is None:
            _hold_to(exchange, host, hello)
        if exchange.denial is not None:
            yield from self._refuse(exchange.denial)
            return
        yield from self._relay(host, exchange, reread=False)

    def _become(self, layer: Layer, data: bytes) -> CommandGenerator[None]:
        self._over = True
        self._data = b""
        self._conversation.layer = layer
        yield from layer.handle_event(events.Start())
        if data:
            yield from layer.handle_event(events.DataReceived(self.context.client, data))

    def _refuse(self, denial: Denial, *, http: bool = False) -> CommandGenerator[None]:
        """Answer as far as the protocol has words for it, then close."""
        self._over = True
        if http:
            yield commands.SendData(self.context.client, http1_response(denial, close=True))
        elif self._data and first_bytes.recognise(self._data) is first_bytes.Protocol.TLS:
            malformed = denial.decision.reason is Reason.MALFORMED
            word = _DECODE_ERROR if malformed else _ACCESS_DENIED
            yield commands.SendData(self.context.client, b"\x15\x03\x03\x00\x02\x02%c" % word)
        self._conversation.linger()


def _hold_to(exchange: Exchange, host: Host, hello: ClientHello) -> None:
    """Refuse a ClientHello that does not name ``host``, or could hide another name."""
    if hello.has_ech:
        text = "the ClientHello may hide another name (ECH), and this host is passed through"
        exchange.refuse(Reason.UNSUPPORTED, text)
    elif parse_host(hello.server_name or "(none)") != host if hello.server_name else True:
        text = f"the names disagree: {host} is passed through, SNI {hello.server_name or '(none)'}"
        exchange.refuse(Reason.NAME_MISMATCH, text)
