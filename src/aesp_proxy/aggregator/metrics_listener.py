"""Figures for a scraper on this machine, without a certificate: HTTP on loopback, nothing else.

Rules: off unless asked for; only a loopback address is bound, and only requests that name
one are answered, so no page in a browser here reads it under another name. It has a
thread, a loop and bounds of its own: whoever sits on it takes nothing from ingest.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from aesp_proxy.aggregator.metrics import CONTENT_TYPE, Meter, metrics_text
from aesp_proxy.aggregator.serving import AdmittedProtocol, bind
from aesp_proxy.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from starlette.requests import Request

    from aesp_proxy.aggregator.identity import DataDir
    from aesp_proxy.aggregator.limits import ServerLimits

CONNECTIONS_MAX: Final = 32
START_S_MAX: Final = 10.0
_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")


def bind_metrics(host: str, port: int) -> socket.socket:
    """Open the socket; ConfigError unless ``host`` is a loopback address."""
    try:
        is_loopback = ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ConfigError(
            f"{host!r} is not a loopback address", where="--metrics-listen",
            remedy="127.0.0.1 or ::1; from elsewhere scrape /metrics with a reader's certificate",
        )  # fmt: skip
    return bind(host, port, option="--metrics-listen")


class MetricsListener:
    """Serves ``/metrics``, ``/healthz`` and ``/readyz`` from :meth:`start` to :meth:`stop`."""

    def __init__(
        self,
        listener: socket.socket,
        *,
        data: DataDir,
        meter: Meter,
        is_ready: Callable[[], bool],
        limits: ServerLimits,
    ) -> None:
        self._listener, self._data, self._meter = listener, data, meter
        self._is_ready = is_ready
        self._turn = asyncio.Semaphore(1)
        protocol = type(
            "Protocol",
            (AdmittedProtocol,),
            {"limits": replace(limits, connections_max=CONNECTIONS_MAX)},
        )
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._app(),
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
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name="metrics", daemon=True
        )

    @property
    def url(self) -> str:
        """Where it answers."""
        host, port = self._listener.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End; connections are closed."""
        self._server.should_exit = True
        self._thread.join(START_S_MAX)
        if self._thread.is_alive():
            raise UnavailableError("the listener of figures does not end")

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/metrics", self._metrics, methods=["GET"]),
                Route("/health", self._health, methods=["GET"]),
                Route("/ready", self._ready, methods=["GET"]),
                Route("/healthz", self._health, methods=["GET"]),
                Route("/readyz", self._ready, methods=["GET"]),
            ],
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(_NAMES))],
        )

    async def _metrics(self, _: Request) -> Response:
        async with self._turn:
            text = await run_in_threadpool(metrics_text, self._data, self._meter)
        return Response(text, media_type=CONTENT_TYPE)

    async def _health(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _ready(self, _: Request) -> Response:
        is_ready = self._is_ready()
        return PlainTextResponse(
            "ready\n" if is_ready else "not ready\n", status_code=200 if is_ready else 503
        )
