"""The log over HTTPS: ``/log/checkpoint`` and ``/log/tile/...`` as C2SP tlog-tiles says.

Every enrolled certificate may read checkpoint and tiles, which hold nothing but hashes; the
entries (headers: which host sealed how much and when) are for readers. ``GET /v1/log`` tells
the log's keys, signed by the receipt key; ``GET /v1/log/proof?origin=&batch=&since=`` gives
what a host needs to watch the log, a host of its own batches only.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aesp_proxy.aggregator.api import Refused, peer_of
from aesp_proxy.aggregator.log.keys import load_log_keys
from aesp_proxy.aggregator.log.prove import LogProver, watch_answer
from aesp_proxy.aggregator.log.store import CHECKPOINT_KEY, PREFIX, LogStore
from aesp_proxy.aggregator.ports import Role
from aesp_proxy.aggregator.stores import open_ledger_reader
from aesp_proxy.errors import InputError, TrustError
from aesp_proxy.record.tlog.key_list import sign_key_list
from aesp_proxy.record.tlog.note import parse_decimal
from aesp_proxy.record.tlog.tile import parse_tile_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from aesp_proxy.aggregator.identity import DataDir, ReceiptKey
    from aesp_proxy.aggregator.ports import ControlStore, ObjectStore

AT_ONCE_MAX: Final = 4
NOTE_TYPE: Final = "text/plain; charset=utf-8"
TILE_TYPE: Final = "application/octet-stream"

log = structlog.get_logger(__name__)

_FOR_EVER: Final = "private, max-age=31536000, immutable"
_NOT_LONG: Final = "no-cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogApi:
    """The routes of the log."""

    data: DataDir
    objects: ObjectStore
    control: ControlStore
    receipt_key: ReceiptKey
    now_ns: Callable[[], int]
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE_MAX))

    def routes(self) -> tuple[Route, ...]:
        """Give the routes."""
        return (
            Route("/log/checkpoint", self.checkpoint, methods=["GET"]),
            Route("/log/{path:path}", self.tile, methods=["GET"]),
            Route("/v1/log", self.keys, methods=["GET"]),
            Route("/v1/log/proof", self.proof, methods=["GET"]),
        )

    async def checkpoint(self, request: Request) -> Response:
        """Give the newest published checkpoint."""
        await peer_of(request, self.control, now_ns=self.now_ns())
        async with self.turns:
            found = await run_in_threadpool(self.objects.find, CHECKPOINT_KEY)
        return _static(found, media_type=NOTE_TYPE, caching=_NOT_LONG)

    async def tile(self, request: Request) -> Response:
        """Give a tile or a bundle of entries."""
        peer = await peer_of(request, self.control, now_ns=self.now_ns())
        try:
            tile = parse_tile_path(request.path_params["path"])
        except InputError as error:
            raise Refused(404, "no_tile", error.message) from error
        if tile.level is None and peer.role is not Role.READER:
            raise Refused(403, "not_a_reader", "the log's entries are for readers")
        async with self.turns:
            found = await run_in_threadpool(self.objects.find, PREFIX + tile.path)
        return _static(found, media_type=TILE_TYPE, caching=_FOR_EVER)

    async def keys(self, request: Request) -> Response:
        """Give the keys that sign the log, signed by the receipt key."""
        await peer_of(request, self.control, now_ns=self.now_ns())
        return Response(await run_in_threadpool(self._key_list), media_type=NOTE_TYPE)

    async def proof(self, request: Request) -> Response:
        """Prove that the log holds a batch, and that it begins as it did."""
        peer = await peer_of(request, self.control, now_ns=self.now_ns())
        asked = dict(request.query_params)
        if unknown := set(asked) - {"origin", "batch", "since"}:
            raise InputError("is not a parameter", where=min(unknown)[:40])
        origin = asked.get("origin", peer.name)
        if peer.role is not Role.READER and origin != peer.name:
            raise Refused(403, "not_a_reader", "a host may ask for its own batches only")
        batch_no = parse_decimal(asked.get("batch", "0"), "batch")
        since = parse_decimal(asked.get("since", "0"), "since")
        async with self.turns:
            try:
                answer = await run_in_threadpool(self._prove, origin, batch_no, since)
            except TrustError as error:
                log.critical("proof_failed", origin=origin, batch_no=batch_no, error=str(error))
                raise Refused(500, "proof_failed", str(error)) from error
        return JSONResponse(answer)

    def _key_list(self) -> bytes:
        key = self.receipt_key
        public = load_log_keys(self.data).public
        return sign_key_list(public, public_key=key.public_key, sign=key.sign)

    def _prove(self, origin: str, batch_no: int, since: int) -> dict[str, Any]:
        with ExitStack() as stack:
            ledger = open_ledger_reader(self.data, self.objects)
            stack.callback(ledger.close)
            prover = LogProver(ledger, LogStore(self.objects))
            place = ledger.find(origin, batch_no) if batch_no else None
            return watch_answer(prover, place, since, self._key_list())


def _static(found: bytes | None, *, media_type: str, caching: str) -> Response:
    if found is None:
        raise Refused(404, "no_tile", "there is no such resource")
    return Response(found, media_type=media_type, headers={"cache-control": caching})
