"""The egress interceptor: listens, makes a conversation for each client, enforces limits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from aesp_proxy.intercept.egress.master import EgressMaster  # isort: skip - stubs mitmproxy.addons
from mitmproxy.connection import Client, ConnectionState
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator, Layer, NextLayer
from mitmproxy.proxy.mode_specs import ProxyMode

from aesp_proxy.act.denial import http1_response
from aesp_proxy.decide.policy.hosts import HostIndex
from aesp_proxy.errors import InputError
from aesp_proxy.intercept.egress.conversation import Conversation
from aesp_proxy.intercept.egress.corporate import CorporateProxy
from aesp_proxy.intercept.egress.dialler import Dialler, Lookup, StaticAddress
from aesp_proxy.intercept.egress.edge import Edge
from aesp_proxy.intercept.egress.http1 import Http1
from aesp_proxy.intercept.egress.patience import expire
from aesp_proxy.intercept.egress.pool import Pool, PoolLimits
from aesp_proxy.intercept.egress.room import Room, RoomLimits
from aesp_proxy.intercept.egress.sealed import NOTHING_SEALED
from aesp_proxy.intercept.egress.stock_layer import GuardedHttp
from aesp_proxy.intercept.egress.tls import AgentTls
from aesp_proxy.intercept.egress.transparent import Captured, NamesOf, original_destination
from aesp_proxy.intercept.egress.upstream import Upstream
from aesp_proxy.intercept.egress.wire import Wire
from aesp_proxy.intercept.socket_owner import OwnerOf, Place
from aesp_proxy.model.host import Host, parse_host, unwrap_address
from aesp_proxy.normalize.http import Tunnel
from aesp_proxy.normalize.http_head import HeadLimits

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from aesp_proxy.intercept.port import Gate

log = logging.getLogger(__name__)

_SWEEP_S = 1.0
_BACKLOG = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressSettings:
    """What bounds the interceptor. Seconds and bytes as the names say."""

    head: HeadLimits
    head_s_max: float = 10.0
    idle_s_max: float = 600.0
    room: RoomLimits = field(default_factory=RoomLimits)
    connect_s_max: float = 10.0
    lookup: Lookup | None = None
    corporate: CorporateProxy | None = None
    frame_bytes_max: int = 16 * 1024 * 1024
    silence_s: float = 0.3
    sealed: HostIndex = NOTHING_SEALED
    pool: PoolLimits = field(default_factory=PoolLimits)
    own: frozenset[Place] = frozenset()
    """Where the proxy itself listens, which nothing is connected to."""
    static: Mapping[tuple[str, int | None], StaticAddress]


class _ClientWire(Wire):
    """A client's socket; its conversation begins when it is connected."""

    def __init__(self, interceptor: EgressInterceptor, *, captured: bool = False) -> None:
        self._interceptor = interceptor
        self._captured = captured
        super().__init__(None, None)  # type: ignore[arg-type]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._interceptor.begin(self, captured=self._captured)


class EgressInterceptor:
    """All client connections of one worker."""

    def __init__(
        self,
        *,
        gate: Gate,
        master: EgressMaster,
        settings: EgressSettings,
        names_of: NamesOf = lambda _: (),
        owner_of: OwnerOf = lambda _, __: None,
    ) -> None:
        self._gate = gate
        self._master = master
        self._settings = settings
        self._dialler = Dialler(
            static=settings.static,
            connect_s_max=settings.connect_s_max,
            lookup=settings.lookup,
            corporate=settings.corporate,
            own=settings.own,
        )
        self._pool = Pool(settings.pool)
        self._room = Room(settings.room)
        self._conversations: set[Conversation] = set()
        self._mode = ProxyMode.parse("regular")
        self._names_of = names_of
        self._owner_of = owner_of
        self._destination_of = original_destination
        self._servers: list[asyncio.Server] = []
        self.silence_s = settings.silence_s
        self._sweeper: asyncio.Task[None] | None = None
        self._emptied = asyncio.Event()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._conversations)

    async def listen(self, sock: socket.socket) -> None:
        """Accept on a bound TCP socket (made with IPPROTO_TCP, or Nagle costs 44 ms)."""
        await self._accept(sock, lambda: _ClientWire(self))

    async def listen_transparent(self, sock: socket.socket) -> None:
        """Accept on a bound TCP socket whose connections were meant for somewhere else.

        Where to, each connection tells by itself (see ``transparent``); may be called for
        several sockets.
        """
        await self._accept(sock, lambda: _ClientWire(self, captured=True))

    async def _accept(self, sock: socket.socket, wire: Callable[[], Wire]) -> None:
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_server(wire, sock=sock, backlog=_BACKLOG))
        if self._sweeper is None:
            self._sweeper = loop.create_task(self._sweep())

    async def stop(self, grace_s: float) -> None:
        """Stop accepting, give what is under way ``grace_s`` seconds, then end it, recorded."""
        for server in self._servers:
            server.close()
        if self._conversations and grace_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._emptied.wait()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._pool.close()
        for conversation in list(self._conversations):
            conversation.close()

    def _closed(self, conversation: Conversation) -> None:
        if conversation in self._conversations:
            self._conversations.remove(conversation)
            self._room.leave(conversation.principal)
        if not self._conversations:
            self._emptied.set()

    @property
    def open_connections(self) -> int:
        """Client connections that are open now."""
        return len(self._conversations)

    def begin(self, wire: Wire, *, captured: bool = False) -> None:
        """Start the conversation of a client that has just connected."""
        transport = wire.transport
        if transport is None:
            return
        peername = transport.get_extra_info("peername") or ("", 0)
        destination = self._meant(transport) if captured else None
        owner = self._owner(transport, destination)
        principal = self._gate.principal(peername[0], owner)
        client = Client(
            peername=peername,
            sockname=transport.get_extra_info("sockname") or ("", 0),
            timestamp_start=time.time(),
            proxy_mode=self._mode,
            state=ConnectionState.OPEN,
        )
        context = Context(client, self._master.options)
        conversation = Conversation(
            context=context,
            principal=principal,
            gate=self._gate,
            dialler=self._dialler,
            pool=self._pool,
            on_closed=self._closed,
        )
        wire.conversation, wire.conn = conversation, client
        conversation.adopt_client(wire)
        text = self._room.objection(principal)
        if text:
            denial = self._gate.limited(principal, text, "")
            if not captured:
                transport.write(http1_response(denial, close=True))
            conversation.close()
            return
        self._conversations.add(conversation)
        self._room.enter(principal)
        self._emptied.clear()
        hooks = self._master.tls
        conversation.hooks.update(
            tls_clienthello=hooks.tls_clienthello,
            tls_start_client=hooks.tls_start_client,
            tls_start_server=hooks.tls_start_server,
        )
        conversation.head_since = asyncio.get_running_loop().time()
        if not captured:
            conversation.start(self._edge(conversation), b"")
        elif destination is None:
            conversation.close()
        elif owner == os.geteuid():
            text = "the proxy's own connection came back to it: its user is captured itself"
            self._gate.unsupported(principal, text, f"{destination[0]}:{destination[1]}")
            conversation.close()
        else:
            conversation.start(self._captured(conversation, destination), b"")

    def _edge(self, conversation: Conversation) -> Layer:
        return Edge(conversation.context, conversation, self, self._settings.head)

    def _captured(self, conversation: Conversation, destination: Place) -> Layer:
        context = conversation.context
        return Captured(context, conversation, self, destination, self._names_of)

    def resolved(self, conversation: Conversation, host: Host, port: int) -> Layer | None:
        """For a client that resolves names itself, and names to the proxy what it was told."""
        if host.address is None or not self._names_of(host.address):
            return None
        destination = host.address, port
        return Captured(conversation.context, conversation, self, destination, self._names_of)

    def _meant(self, transport: asyncio.Transport) -> Place | None:
        """Return where a captured connection was to go; None when the client has gone already."""
        try:
            return self._destination_of(transport.get_extra_info("socket").fileno())
        except OSError:
            return None

    def _owner(self, transport: asyncio.Transport, destination: Place | None) -> int | None:
        """Return the user of the client's socket, which thinks it is at ``destination``."""
        peer, here = _place(transport, "peername"), _place(transport, "sockname")
        if peer is None or here is None:
            return None
        return self._owner_of(peer, destination or here)

    def is_sealed(self, host: Host, port: int) -> bool:
        """Whether the operator has listed a host as one whose TLS is passed through."""
        return self._settings.sealed.find(host, port) is not None

    # the layers that follow the edge ------------------------------------------------

    def plain(self, conversation: Conversation) -> Layer:
        """For absolute-form requests to the proxy itself."""
        return self._http1(conversation, None)

    def cleartext(self, conversation: Conversation, tunnel: Tunnel) -> Layer:
        """For HTTP inside a tunnel without TLS."""
        return self._http1(conversation, tunnel)

    def tls(self, conversation: Conversation, tunnel: Tunnel) -> Layer:
        """For a tunnel that starts with a TLS handshake: TLS, then HTTP by ALPN."""

        def choose(next_layer: NextLayer) -> None:
            client = next_layer.context.client
            try:
                sni = parse_host(client.sni).name if client.sni else ""
            except InputError:
                sni = str(client.sni)  # not a host: it will not equal the CONNECT name
            inner = Tunnel(scheme="https", host=tunnel.host, port=tunnel.port, sni=sni)
            if client.alpn == b"h2":
                next_layer.layer = self._stock(next_layer.context, conversation, inner)
            else:
                next_layer.layer = self._http1(conversation, inner, next_layer.context)

        conversation.hooks["next_layer"] = choose
        conversation.hooks["tls_established_client"] = lambda _: conversation.await_head(
            waiting=False
        )
        layer = AgentTls(conversation.context)
        conversation.close_notify = layer.close_notify
        return layer

    def _http1(
        self, conversation: Conversation, tunnel: Tunnel | None, context: Context | None = None
    ) -> Layer:
        context = context or conversation.context

        def upgrade(data: bytes) -> CommandGenerator[None]:
            if tunnel is None:
                return
            stock = self._stock(context, conversation, tunnel)
            yield from _replace(layer, stock, data)

        layer = Http1(
            context,
            conversation,
            tunnel,
            limits=self._settings.head,
            upgrade=upgrade if tunnel is not None else None,
            remember=self._remember,
        )
        return layer

    def _stock(self, context: Context, conversation: Conversation, tunnel: Tunnel) -> GuardedHttp:
        return GuardedHttp(
            context,
            conversation,
            tunnel,
            frame_bytes_max=self._settings.frame_bytes_max,
            limits=self._settings.head,
            remember=lambda server, tls: self._master.tls.remember(server, tls.tls),
        )

    def _remember(self, upstream: Upstream) -> None:
        if upstream.tls is not None:
            self._master.tls.remember(upstream.server, upstream.tls.tls)

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = loop.time()
            self._pool.expire()
            for conversation in list(self._conversations):
                expire(
                    conversation,
                    now,
                    idle_s_max=self._settings.idle_s_max,
                    head_s_max=self._settings.head_s_max,
                )


def _replace(old: Layer, new: Layer, data: bytes) -> CommandGenerator[None]:
    """Put another layer in the place of ``old`` and replay the unread bytes to it."""
    from mitmproxy.proxy import events  # noqa: PLC0415 - only on an upgrade

    replaced: Any = old
    replaced.handle_event = new.handle_event
    replaced._handle_event = new.handle_event  # noqa: SLF001 - mitmproxy's NextLayer does the same
    yield from new.handle_event(events.Start())
    yield from new.handle_event(events.DataReceived(old.context.client, data))


def _place(transport: asyncio.Transport, which: str) -> Place | None:
    name = transport.get_extra_info(which)
    return (unwrap_address(ip_address(name[0].partition("%")[0])), name[1]) if name else None
