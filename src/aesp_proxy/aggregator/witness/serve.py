"""The witness over HTTP: ``POST /add-checkpoint`` with the status codes of C2SP tlog-witness.

There is no authentication beyond the signature on the checkpoint, as the protocol has it. TLS
where a certificate is given, else plain HTTP: what is said is signed either way.
"""

from __future__ import annotations

import ssl
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from aesp_proxy.aggregator.api import Refused as RequestRefused
from aesp_proxy.aggregator.api import read_body
from aesp_proxy.aggregator.identity import FileLock
from aesp_proxy.aggregator.limits import ServerLimits
from aesp_proxy.aggregator.serving import TlsServer, bind, ignore_raised_signals, say_ready, url_of
from aesp_proxy.aggregator.witness.state import WitnessState, open_state
from aesp_proxy.errors import AespError, ConfigError, InputError, UnavailableError
from aesp_proxy.record.tlog.witness import (
    REQUEST_BYTES_MAX,
    SIZE_TYPE,
    AddCheckpoint,
    Refused,
    parse_add_checkpoint,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp

BODY_S_MAX: Final = 10.0
SAY_EVERY_S: Final = 1.0
ORIGIN_CHARS_MAX: Final = 120

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessOptions:
    """How to serve; without ``tls_cert`` over plain HTTP."""

    root: Path
    host: str = "127.0.0.1"
    port: int = 8444
    tls_cert: Path | None = None
    tls_key: Path | None = None
    ready_file: Path | None = None
    ready_fd: int | None = None
    limits: ServerLimits = field(default_factory=ServerLimits)


def witness_app(state: WitnessState, *, time_s: Callable[[], int]) -> ASGIApp:
    """Make the application."""
    told = _Refusals()

    async def add_checkpoint(request: Request) -> Response:
        try:
            body = await read_body(request, bytes_max=REQUEST_BYTES_MAX, s_max=BODY_S_MAX)
            asked = parse_add_checkpoint(body)
        except RequestRefused as refused:
            return _plain(refused.status, refused.detail, close=True)
        except InputError as error:
            return _plain(400, error.message)
        try:
            answer = await run_in_threadpool(state.add, asked, time_s=time_s())
        except AespError as error:
            log.critical("not_cosigned", error=str(error))
            return _plain(500, "what is cosigned cannot be kept")
        if isinstance(answer, Refused):
            told.refused(asked, answer)
            if answer.size is not None:
                return Response(f"{answer.size}\n", status_code=409, media_type=SIZE_TYPE)
            return _plain(answer.status, answer.message)
        return PlainTextResponse(answer)

    async def health(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    return Starlette(
        routes=[
            Route("/add-checkpoint", add_checkpoint, methods=["POST"]),
            Route("/health", health, methods=["GET"]),
        ]
    )


class _Refusals:
    """Says what was refused, at most a line a second: strangers may ask, and fill no disk."""

    def __init__(self) -> None:
        self._untold, self._told_s = 0, float("-inf")

    def refused(self, asked: AddCheckpoint, answer: Refused) -> None:
        self._untold += 1
        now_s = time.monotonic()
        if now_s - self._told_s < SAY_EVERY_S:
            return
        log.warning(
            "checkpoint_refused",
            refusals=self._untold,
            origin=asked.checkpoint.origin[:ORIGIN_CHARS_MAX],
            size=asked.checkpoint.size,
            status=answer.status,
            message=answer.message,
        )
        self._untold, self._told_s = 0, now_s


def serve_witness(options: WitnessOptions, *, announce: Callable[[str, int], None]) -> None:
    """Serve until SIGTERM or SIGINT; ``announce`` is told the address and how many logs.

    ConfigError for what the operator must mend, UnavailableError when another process serves
    this witness, RecordError when what it has cosigned is damaged.
    """
    state = open_state(options.root)
    with ExitStack() as stack:
        lock = FileLock(state.place.lock)
        if not lock.take():
            raise UnavailableError("another process serves it", where=str(options.root))
        stack.callback(lock.release)
        context = _context(options)
        listener = bind(options.host, options.port)
        stack.callback(listener.close)
        scheme = "http" if context is None else "https"
        url = url_of(options.host, listener.getsockname()[1], scheme=scheme)

        def on_ready() -> None:
            say_ready(url, file=options.ready_file, descriptor=options.ready_fd)
            announce(url, len(state.logs))

        server = TlsServer(
            witness_app(state, time_s=lambda: int(time.time())),
            limits=options.limits,
            context=context,
            on_ready=on_ready,
            has_failed=lambda: False,
        )
        ignore_raised_signals()
        server.run(sockets=[listener])


def _context(options: WitnessOptions) -> ssl.SSLContext | None:
    if options.tls_cert is None and options.tls_key is None:
        return None
    if options.tls_cert is None or options.tls_key is None:
        raise ConfigError("--tls-cert and --tls-key belong together")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"cannot be used for TLS: {error}", where=str(options.tls_cert)
        ) from error
    return context


def _plain(status: int, message: str, *, close: bool = False) -> Response:
    headers = {"connection": "close"} if close else {}
    return PlainTextResponse(f"{message}\n", status_code=status, headers=headers)
