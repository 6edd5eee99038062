"""The routes of enrolment: ``GET /v1/ca``, ``POST /v1/enroll``, ``POST /v1/renew``.

TLS has let in only certificates of our CA: a token's own for ``enroll``, which opens nothing
else, and a host's or reader's for ``renew``. What is refused is a problem with a code, is
logged, and is counted under the name ``enrolment``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aesp_proxy import keys
from aesp_proxy.aggregator.admission import enrol_by_token, renew
from aesp_proxy.aggregator.api import Refused, read_body
from aesp_proxy.aggregator.enrolment import served_urls
from aesp_proxy.aggregator.serving import PEER_EXTENSION
from aesp_proxy.aggregator.store.tokens import TokenRefusedError
from aesp_proxy.aggregator.stores import open_control
from aesp_proxy.errors import AespError, InputError
from aesp_proxy.record.enrolment import MESSAGE_BYTES_MAX, EnrolmentRequest, read_message
from aesp_proxy.record.signature import public_to_pem

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from aesp_proxy.aggregator.identity import DataDir, ReceiptKey
    from aesp_proxy.aggregator.limits import ServerLimits
    from aesp_proxy.aggregator.ports import Identity

COUNTED_AS: Final = "enrolment"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentApi:
    """The routes over the data directory."""

    data: DataDir
    receipt_key: ReceiptKey
    limits: ServerLimits
    now_ns: Callable[[], int]

    def routes(self) -> tuple[Route, ...]:
        """Give the routes."""
        return (
            Route("/v1/ca", self.authority, methods=["GET"]),
            Route("/v1/enroll", self.enroll, methods=["POST"]),
            Route("/v1/renew", self.renew, methods=["POST"]),
            Route("/v1/addresses", self.addresses, methods=["GET"]),
        )

    async def authority(self, _: Request) -> Response:
        """Give the CA's certificate, which who holds a token knows by its hash."""
        pem = await run_in_threadpool(keys.read_bounded, self.data.ca)
        return Response(pem, media_type="application/x-pem-file")

    async def enroll(self, request: Request) -> Response:
        """Use a token up: register the host that asks, and give it its certificate."""
        token = _fingerprint(request)
        data = await self._body(request)
        return JSONResponse(await run_in_threadpool(self._enroll, token, data))

    def _enroll(self, token: bytes, data: bytes) -> dict[str, str]:
        origin = ""
        try:
            request = EnrolmentRequest.decode(data)
            origin = request.origin
            cert_pem = enrol_by_token(self.data, token, request, now=self._now())
        except TokenRefusedError as error:
            raise self._refuse(403, error.code, error, token, origin) from error
        except InputError as error:
            raise self._refuse(422, "bad_request", error, token, origin) from error
        log.info("host_enrolled", origin=origin, token=token[:8].hex())
        return {
            "certificate": cert_pem.decode("ascii"),
            "receipt_key": public_to_pem(self.receipt_key.public_key).decode("ascii"),
        }

    async def renew(self, request: Request) -> Response:
        """Give whom the certificate stands for its next one."""
        asked_with = _fingerprint(request)
        data = await self._body(request)
        return JSONResponse(await run_in_threadpool(self._renew, asked_with, data))

    def _renew(self, asked_with: bytes, data: bytes) -> dict[str, str]:
        identity = self._identity(asked_with)
        try:
            csr_pem = read_message(data, ("csr",))["csr"].encode("ascii", errors="replace")
            cert_pem = renew(self.data, identity, csr_pem, asked_with=asked_with, now=self._now())
        except InputError as error:
            raise self._refuse(422, "bad_request", error, asked_with, identity.name) from error
        log.info("certificate_renewed", name=identity.name)
        return {"certificate": cert_pem.decode("ascii")}

    async def addresses(self, request: Request) -> Response:
        """Say where hosts reach all aggregators on these stores; nothing where that is not set."""
        return JSONResponse(await run_in_threadpool(self._addresses, _fingerprint(request)))

    def _addresses(self, asked_with: bytes) -> dict[str, str]:
        self._identity(asked_with)
        known = self.data.urls.is_file()
        return {"urls": "\n".join(served_urls(self.data)) if known else ""}

    def _identity(self, asked_with: bytes) -> Identity:
        control = open_control(self.data)
        try:
            identity = control.identity(asked_with, now_ns=self.now_ns())
        finally:
            control.close()
        if identity is None:
            raise Refused(403, "unknown_certificate", "this certificate is not enrolled")
        return identity

    async def _body(self, request: Request) -> bytes:
        return await read_body(request, bytes_max=MESSAGE_BYTES_MAX, s_max=self.limits.body_s_max)

    def _refuse(
        self, status: int, code: str, error: AespError, token: bytes, origin: str
    ) -> Refused:
        log.warning(
            "enrolment_refused", code=code, origin=origin, token=token[:8].hex(), message=str(error)
        )
        control = open_control(self.data)
        try:
            control.note_refusals({(COUNTED_AS, code): 1}, now_ns=self.now_ns())
        finally:
            control.close()
        return Refused(status, code, error.message)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.now_ns() / 1e9, UTC)


def _fingerprint(request: Request) -> bytes:
    peer: dict[str, Any] = request.scope.get("extensions", {}).get(PEER_EXTENSION, {})
    fingerprint: bytes = peer.get("fingerprint", b"")
    return fingerprint
