"""What an interceptor asks of the pipeline, and what it is given back.

An interceptor holds bytes; the pipeline decides and records. Every method is
synchronous and returns before anything has left: a decision that could not be
recorded comes back as a denial. Nothing here knows a protocol library.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from aesp_proxy.act.denial import Denial
from aesp_proxy.errors import InputError
from aesp_proxy.model.decision import Reason
from aesp_proxy.model.event import EgressRequest
from aesp_proxy.model.host import Host
from aesp_proxy.model.principal import Principal
from aesp_proxy.model.record import Ending
from aesp_proxy.normalize.http import Tunnel
from aesp_proxy.normalize.http_head import Headers

Address = IPv4Address | IPv6Address


class Exchange(Protocol):
    """One decided request, its body still to come.

    True on return of every method: the decision it made is in the journal.
    """

    denial: Denial | None
    """Why it must not go on; None as long as it may."""

    redacted: int
    """How many secrets were masked in what has left."""

    unpacks: bool
    """Whether the body is sent on without its Content-Encoding, its length not known before."""

    def connecting(self, host: Host, addresses: tuple[Address, ...]) -> Denial | None:
        """Check the addresses that will be dialled, before they are."""

    def spend(self, count: int) -> bool:
        """Count bytes that leave unread; False, and refused, when they are too many.

        ``body``, ``message`` and ``finish_body`` do it themselves.
        """

    def body(self, chunk: bytes) -> bytes:
        """Scan body bytes; return those that may leave now. Look at ``denial`` after."""

    def message(self, data: bytes, location: str) -> bytes:
        """Scan one whole message (WebSocket, gRPC); return it or nothing."""

    def finish_body(self, trailers: Headers) -> bytes:
        """End the body; return what was held back. Look at ``denial`` after."""

    def refuse(self, reason: Reason, message: str) -> Denial:
        """Refuse in the middle, for a reason of the wire (limits, framing)."""

    def fail(self, ending: Ending) -> Denial:
        """Record that an allowed attempt did not come off; return the answer for the client."""

    def end(self, ending: Ending) -> str:
        """Record the outcome, once, and give the record's id; later calls do nothing."""


class Gate(Protocol):
    """The pipeline, as an interceptor sees it."""

    def principal(self, source_ip: str, uid: int | None = None) -> Principal:
        """Say who is behind a client connection; ``uid`` is the user of its socket, if known."""

    def now_ns(self) -> int:
        """UTC nanoseconds."""

    def connect(self, principal: Principal, host: Host, port: int) -> Exchange:
        """Decide a CONNECT, or what a captured connection amounts to."""

    def raw(self, principal: Principal, host: Host, port: int) -> Exchange:
        """Decide whether bytes that are neither TLS nor HTTP may be relayed unread."""

    def sealed(self, principal: Principal, host: Host, port: int) -> Exchange:
        """Decide whether the TLS of a host on the operator's list may be relayed unread."""

    def may_connect(self, principal: Principal, host: Host, port: int, *, raw: bool) -> bool:
        """Tell what ``connect`` or ``raw`` would say; nothing is recorded, nothing may go out."""

    def request(self, event: EgressRequest, tunnel: Tunnel | None) -> Exchange:
        """Decide a request, its head complete."""

    def malformed(self, principal: Principal, error: InputError, target: str) -> Denial:
        """Refuse bytes that could not be read without doubt."""

    def failed(self, principal: Principal, message: str, target: str) -> Denial:
        """Refuse because the interceptor itself failed (net 4)."""

    def unsupported(self, principal: Principal, message: str, target: str) -> Denial:
        """Refuse a protocol, or a part of one, that is not spoken here."""

    def limited(self, principal: Principal, message: str, target: str) -> Denial:
        """Refuse because a limit was reached before an event existed."""
