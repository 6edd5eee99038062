"""Routes that only read: ``GET /v1/stats``, ``/v1/proof`` and ``/metrics``.

A reader may ask for everything; a host for counts and proofs of its own events.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aesp_proxy.aggregator.api import Refused, peer_of
from aesp_proxy.aggregator.metrics import CONTENT_TYPE, Meter, metrics_text
from aesp_proxy.aggregator.ports import Role
from aesp_proxy.aggregator.proof import event_proof
from aesp_proxy.aggregator.query import count_json, parse_count
from aesp_proxy.errors import InputError, TrustError

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from aesp_proxy.aggregator.identity import DataDir
    from aesp_proxy.aggregator.local import StoreSearch
    from aesp_proxy.aggregator.ports import ControlStore

AT_ONCE_MAX: Final = 2

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadApi:
    """The routes over the stores."""

    data: DataDir
    search: StoreSearch
    control: ControlStore
    meter: Meter
    now_ns: Callable[[], int]
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE_MAX))

    def routes(self) -> tuple[Route, ...]:
        """Give the routes."""
        return (
            Route("/v1/stats", self.stats, methods=["GET"]),
            Route("/v1/proof", self.proof, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        )

    async def stats(self, request: Request) -> Response:
        """Count events."""
        peer = await peer_of(request, self.control, now_ns=self.now_ns())
        parameters = dict(request.query_params)
        if len(parameters) != len(request.query_params.multi_items()):
            raise InputError("a parameter is given twice")
        query, by = parse_count(parameters, now_ns=self.now_ns())
        if peer.role is not Role.READER:
            if query.origin not in {"", peer.name}:
                raise Refused(403, "not_a_reader", "a host may ask for its own events only")
            query = replace(query, origin=peer.name)
        async with self.turns:
            counts = await run_in_threadpool(self.search.count, query, by)
        return JSONResponse({"counts": [count_json(count, by) for count in counts]})

    async def proof(self, request: Request) -> Response:
        """Give the inclusion proof of an event."""
        peer = await peer_of(request, self.control, now_ns=self.now_ns())
        event_id = request.query_params.get("id", "")
        if peer.role is not Role.READER and not event_id.startswith(f"{peer.name}/"):
            raise Refused(403, "not_a_reader", "a host may ask for its own events only")
        async with self.turns:
            try:
                return JSONResponse(await run_in_threadpool(event_proof, self.data, event_id))
            except TrustError as error:
                log.critical("proof_failed", event_id=event_id, error=str(error))
                raise Refused(500, "proof_failed", str(error)) from error

    async def metrics(self, request: Request) -> Response:
        """Give the figures."""
        peer = await peer_of(request, self.control, now_ns=self.now_ns())
        if peer.role is not Role.READER:
            raise Refused(403, "not_a_reader", "figures are for readers")
        async with self.turns:
            text = await run_in_threadpool(metrics_text, self.data, self.meter)
        return Response(text, media_type=CONTENT_TYPE)
