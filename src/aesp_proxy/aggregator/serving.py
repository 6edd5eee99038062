"""The HTTPS listener: uvicorn with mutual TLS 1.3, time-outs it lacks, and the peer's certificate.

uvicorn does not hand the client certificate to the application; a subclass of
its protocol reads it from the transport once per connection and puts its
SHA-256 into ``scope["extensions"]["aesp.peer"]``. The subclass also ends
connections that do not finish their headers, and the server sets a time limit
on handshakes. A contract test holds these overrides to the installed uvicorn.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import ssl
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from aesp_proxy import keys
from aesp_proxy.aggregator.handshakes import watch
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.address import host_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from starlette.types import ASGIApp
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from aesp_proxy.aggregator.identity import DataDir
    from aesp_proxy.aggregator.limits import ServerLimits

PEER_EXTENSION: Final = "aesp.peer"
BACKLOG: Final = 2048


def server_context(data: DataDir) -> ssl.SSLContext:
    """Make the TLS side: 1.3 or newer, and no handshake without a certificate of our CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_verify_locations(cafile=data.ca)
        if data.client_ca.exists():
            context.load_verify_locations(cafile=data.client_ca)
        context.load_cert_chain(data.server, data.server_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"cannot be used for TLS: {error}", where=str(data.server), remedy="remove it"
        ) from error
    watch(context)
    return context


def bind(host: str, port: int, *, option: str = "--listen") -> socket.socket:
    """Open the listening socket; ConfigError when the address is taken or not ours."""
    where = host_port(host, port)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"cannot be resolved: {error}", where=where) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen: {error.strerror}", where=where, remedy=f"choose another {option}"
        ) from error
    return listener


def url_of(name: str, port: int, *, scheme: str = "https") -> str:
    """Return the address of a server by its name, an IPv6 address in brackets."""
    return f"{scheme}://{host_port(name, port)}"


def say_ready(url: str, *, file: Path | None, descriptor: int | None) -> None:
    """Say to whoever waits that the server accepts: one line of JSON; ConfigError."""
    line = f'{{"url":"{url}"}}\n'.encode()
    if file is not None:
        keys.write_atomic(file, line, mode=0o644)
    if descriptor is not None:
        try:
            os.write(descriptor, line)
            os.close(descriptor)
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}", where="--ready-fd") from error


def ignore_raised_signals() -> None:
    """Let uvicorn stop on a signal: it raises it again, which must not end us before the stores."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)


def allow_many_descriptors() -> None:
    """Raise this process's soft limit of open files to its hard limit (setrlimit(2))."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class AdmittedProtocol(HttpToolsProtocol):
    """One connection of a peer whose certificate our CA has signed."""

    limits: ServerLimits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Read the certificate, and begin to count the time to the first request."""
        super().connection_made(transport)
        self._late: asyncio.TimerHandle | None = None
        tls = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        self._peer = sha256(certificate).digest() if certificate else b""
        if len(self.connections) > self.limits.connections_max:
            transport.abort()
            return
        self._expect_request()

    def data_received(self, data: bytes) -> None:
        """Count time from the first byte of each further request on this connection."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None before the first request
        if self._late is None and (cycle is None or cycle.response_complete):
            self._expect_request()
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Put the peer's fingerprint where the application finds it."""
        super().on_message_begin()
        self.scope["extensions"] = {PEER_EXTENSION: {"fingerprint": self._peer}}

    def on_headers_complete(self) -> None:
        """Stop counting: the rest has limits of its own."""
        self._request_came()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the timer go with the connection."""
        self._request_came()
        super().connection_lost(exc)

    def _expect_request(self) -> None:
        self._late = self.loop.call_later(self.limits.headers_s_max, self.transport.abort)

    def _request_came(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class TlsServer(uvicorn.Server):
    """uvicorn's server on one socket, with a limit on handshakes, and a word when it accepts.

    Without a context it speaks plain HTTP.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: ServerLimits,
        context: ssl.SSLContext | None,
        on_ready: Callable[[], None],
        has_failed: Callable[[], bool],
    ) -> None:
        protocol = type("Protocol", (AdmittedProtocol,), {"limits": limits})
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol,
                ws="none",
                loop="uvloop",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=limits.keep_alive_s_max,
                timeout_graceful_shutdown=limits.shutdown_s_max,
            )
        )
        self._limits = limits
        self._context = context
        self._on_ready = on_ready
        self._has_failed = has_failed

    async def on_tick(self, counter: int) -> bool:
        """End when told to, or when what the server is for has ended."""
        return await super().on_tick(counter) or self._has_failed()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on the sockets given; uvicorn's own way has no limit on handshakes."""
        loop = asyncio.get_running_loop()

        def connect() -> asyncio.Protocol:
            made: Any = self.config.http_protocol_class
            protocol: asyncio.Protocol = made(
                config=self.config, server_state=self.server_state, app_state={}, _loop=loop
            )
            return protocol

        limits: dict[str, Any] = {}
        if self._context is not None:
            limits["ssl_handshake_timeout"] = self._limits.handshake_s_max
            limits["ssl_shutdown_timeout"] = self._limits.goodbye_s_max
        await self.lifespan.startup()
        self.servers = [
            await loop.create_server(
                connect,
                sock=listener,
                ssl=self._context,
                backlog=BACKLOG,
                **limits,
            )
            for listener in sockets or []
        ]
        self.started = True
        self._on_ready()
