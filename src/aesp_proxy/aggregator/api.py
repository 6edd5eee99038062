"""The HTTP interface: batches in, receipts out, and questions about what is stored.

``POST /v1/batches`` takes one encoded batch and answers with a signed receipt
(200), or a problem (RFC 9457) whose ``code`` is a word of ``ingest.Refusal``;
``code`` ``gap`` carries ``resume_from``. ``GET /v1/identity``, ``/v1/events``,
``/health`` and ``/ready`` answer JSON. TLS has let in only certificates of our
CA; which host or reader that is, the control store says.

Rules: a body is refused by its declared size before a byte is read, and by its
real size while it is read; every wait has a limit; a host sees its own events
only.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aesp_proxy.aggregator.ports import Identity, Role
from aesp_proxy.aggregator.query import parse_query
from aesp_proxy.aggregator.serving import PEER_EXTENSION
from aesp_proxy.aggregator.writer import Answer, Submission
from aesp_proxy.errors import AespError, ConfigError, InputError, RecordError, UnavailableError
from aesp_proxy.record.receipt import CONTENT_TYPE as RECEIPT_TYPE
from aesp_proxy.record.signature import public_to_pem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import ASGIApp, Receive, Scope, Send

    from aesp_proxy.aggregator.identity import ReceiptKey
    from aesp_proxy.aggregator.limits import ServerLimits
    from aesp_proxy.aggregator.ports import ControlStore, EventQuery

PROBLEM_TYPE = "application/problem+json"
RETRY_AFTER_S = "2"

log = structlog.get_logger(__name__)


class Sink(Protocol):
    """Where batches go: the writer."""

    failed: BaseException | None

    def submit(self, submission: Submission) -> None:
        """Queue one batch; UnavailableError when it cannot be."""


class Search(Protocol):
    """Where questions go: index and ledger, in a thread of its own."""

    def find(
        self, query: EventQuery, *, full: bool
    ) -> tuple[list[dict[str, Any]], str | None, int]:
        """Return events as JSON, the next cursor, and how many batches are not indexed yet."""

    def behind(self) -> int | None:
        """Return how many batches are stored and not indexed yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the routes need."""

    sink: Sink
    search: Search
    control: ControlStore
    receipt_key: ReceiptKey
    limits: ServerLimits
    now_ns: Callable[[], int]
    more_routes: tuple[Route, ...] = ()


class Refused(Exception):  # noqa: N818 - an answer, not an error
    """Ends a request with a problem."""

    def __init__(self, status: int, code: str, detail: str, **more: int) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.more = status, code, detail, more


async def peer_of(request: Request, control: ControlStore, *, now_ns: int) -> Identity:
    """Return who asks; Refused when the certificate is not enrolled."""
    peer = request.scope.get("extensions", {}).get(PEER_EXTENSION, {})
    fingerprint = peer.get("fingerprint", b"")
    if control.is_remote:
        identity = await run_in_threadpool(control.identity, fingerprint, now_ns=now_ns)
    else:
        identity = control.identity(fingerprint, now_ns=now_ns)
    if identity is None:
        raise Refused(403, "unknown_certificate", "this certificate is not enrolled")
    return identity


class Api:
    """The routes over their parts; one instance in one event loop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._inflight_bytes = 0
        self._queries = asyncio.Semaphore(parts.limits.queries_max)

    async def batches(self, request: Request) -> Response:
        """Take one batch; answer when it is durable, or say why not."""
        identity = await self._peer(request)
        limits = self._parts.limits
        bytes_max = limits.ingest.batch.batch_bytes_max
        declared = _declared_bytes(request, bytes_max)
        with self._reserve(bytes_max if declared is None else declared):
            data = await read_body(request, bytes_max=bytes_max, s_max=limits.body_s_max)
            answer = await self._submit(data, identity)
        if answer.receipt is not None:
            return Response(answer.receipt, media_type=RECEIPT_TYPE)
        refusal = answer.refusal
        if refusal is None:
            raise UnavailableError("the writer gave no answer")
        more = {} if refusal.resume_from is None else {"resume_from": refusal.resume_from}
        raise Refused(refusal.status, refusal.kind.value, refusal.message, **more)

    async def identity(self, request: Request) -> Response:
        """Say which key signs receipts, and who the asker is to us."""
        peer = await self._peer(request)
        key = self._parts.receipt_key
        return JSONResponse(
            {
                "key_id": key.key_id,
                "public_key": public_to_pem(key.public_key).decode("ascii"),
                "peer": {"role": peer.role.value, "name": peer.name},
            }
        )

    async def events(self, request: Request) -> Response:
        """Answer a question about events, newest first, a page at a time."""
        peer = await self._peer(request)
        parameters = dict(request.query_params)
        if len(parameters) != len(request.query_params.multi_items()):
            raise InputError("a parameter is given twice")
        query = parse_query(parameters, now_ns=self._parts.now_ns())
        if peer.role is not Role.READER:
            if query.origin not in {"", peer.name}:
                raise Refused(403, "not_a_reader", "a host may ask for its own events only")
            query = replace(query, origin=peer.name)
        full = parameters.get("full", "0") not in {"", "0", "false"}
        async with self._queries:
            events, cursor, behind = await run_in_threadpool(
                self._parts.search.find, query, full=full
            )
        return JSONResponse({"events": events, "cursor": cursor, "batches_not_indexed": behind})

    async def health(self, _: Request) -> Response:
        """Say that the process answers."""
        return JSONResponse({"status": "ok"})

    async def ready(self, _: Request) -> Response:
        """Say whether batches are taken, and how far the index is."""
        taking = self._parts.sink.failed is None
        behind = await run_in_threadpool(self._parts.search.behind)
        return JSONResponse(
            {"ready": taking, "batches_not_indexed": behind}, status_code=200 if taking else 503
        )

    async def _peer(self, request: Request) -> Identity:
        return await peer_of(request, self._parts.control, now_ns=self._parts.now_ns())

    @contextmanager
    def _reserve(self, size_bytes: int) -> Iterator[None]:
        if self._inflight_bytes + size_bytes > self._parts.limits.inflight_bytes_max:
            raise UnavailableError("too many bytes are on their way", remedy="try again later")
        self._inflight_bytes += size_bytes
        try:
            yield
        finally:
            self._inflight_bytes -= size_bytes

    async def _submit(self, data: bytes, identity: Identity) -> Answer:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Answer] = loop.create_future()

        def settle(answer: Answer | AespError) -> None:
            if done.done():
                return
            if isinstance(answer, AespError):
                done.set_exception(answer)
            else:
                done.set_result(answer)

        self._parts.sink.submit(
            Submission(
                data=data,
                identity=identity,
                answer=lambda answer: _tell(loop, settle, answer),
                fail=lambda error: _tell(loop, settle, error),
            )
        )
        return await done


def build_app(parts: Parts) -> ASGIApp:
    """Make the application."""
    api = Api(parts)
    app = Starlette(
        routes=[
            Route("/v1/batches", api.batches, methods=["POST"]),
            Route("/v1/identity", api.identity, methods=["GET"]),
            Route("/v1/events", api.events, methods=["GET"]),
            Route("/health", api.health, methods=["GET"]),
            Route("/ready", api.ready, methods=["GET"]),
            Route("/healthz", api.health, methods=["GET"]),
            Route("/readyz", api.ready, methods=["GET"]),
            *parts.more_routes,
        ],
        exception_handlers={
            Refused: _answer_refused,
            InputError: _answer_input_error,
            UnavailableError: _answer_unavailable,
            RecordError: _answer_unavailable,
            ConfigError: _answer_unavailable,
            404: _answer_no_route,
            405: _answer_no_route,
        },
    )
    return _Timed(app, request_s_max=parts.limits.request_s_max)


class _Timed:
    """Ends a request that takes too long in any way, a peer that does not read included."""

    def __init__(self, app: ASGIApp, *, request_s_max: float) -> None:
        self._app = app
        self._request_s_max = request_s_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._request_s_max):
                await self._app(scope, receive, send)
        except TimeoutError:
            log.warning("request_too_long", path=scope.get("path", ""))
            raise


def _declared_bytes(request: Request, bytes_max: int) -> int | None:
    text = request.headers.get("content-length")
    if text is None:
        return None
    declared = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else bytes_max + 1
    if declared > bytes_max:
        raise Refused(413, "oversize", f"a batch may have {bytes_max} bytes")
    return declared


async def read_body(request: Request, *, bytes_max: int, s_max: float) -> bytes:
    """Read a body of at most so many bytes in at most so many seconds, or end the request."""
    chunks: list[bytes] = []
    size_bytes = 0
    try:
        async with asyncio.timeout(s_max):
            async for chunk in request.stream():
                size_bytes += len(chunk)
                if size_bytes > bytes_max:
                    raise Refused(413, "oversize", f"a batch may have {bytes_max} bytes")
                chunks.append(chunk)
    except TimeoutError as error:
        raise Refused(408, "slow_body", f"the body did not come in {s_max:.0f} s") from error
    except ClientDisconnect as error:
        raise Refused(400, "cut_off", "the body ended early") from error
    return b"".join(chunks)


def _tell(
    loop: asyncio.AbstractEventLoop, settle: Callable[[Any], None], answer: Answer | AespError
) -> None:
    try:
        loop.call_soon_threadsafe(settle, answer)
    except RuntimeError:
        # The loop has ended: the peer is gone, the batch is stored and will be a duplicate.
        log.info("answer_not_needed")


def _problem(status: int, code: str, detail: str, **more: int) -> Response:
    content = {"type": "about:blank", "title": code, "status": status, "code": code}
    response = JSONResponse(
        content | {"detail": detail} | more, status_code=status, media_type=PROBLEM_TYPE
    )
    if status in {408, 413}:
        # The rest of the body is not read, so the connection is of no more use.
        response.headers["connection"] = "close"
    if status == 503:
        response.headers["retry-after"] = RETRY_AFTER_S
    return response


async def _answer_refused(_: Request, error: Exception) -> Response:
    refused = error if isinstance(error, Refused) else Refused(500, "internal", str(error))
    return _problem(refused.status, refused.code, refused.detail, **refused.more)


async def _answer_input_error(_: Request, error: Exception) -> Response:
    return _problem(400, "bad_parameter", str(error))


async def _answer_no_route(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405:
        answer = _problem(405, "method_not_allowed", "this resource takes another method")
        answer.headers.update(error.headers or {})
        return answer
    return _problem(404, "not_found", "there is no such resource")


async def _answer_unavailable(_: Request, error: Exception) -> Response:
    return _problem(503, "unavailable", str(error))
