"""One request of an HTTP/1 connection, from its decided head to the end of its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aesp_proxy.errors import InputError
from aesp_proxy.model.decision import Reason
from aesp_proxy.model.record import Ending
from aesp_proxy.normalize.http_body import body_reader, chunk, last_chunk
from aesp_proxy.normalize.http_head import Headers, HeadLimits, RequestHead
from aesp_proxy.normalize.http_relay import ResponseRelay
from aesp_proxy.normalize.http_rewrite import upstream_head

if TYPE_CHECKING:
    from aesp_proxy.intercept.egress.upstream import Upstream
    from aesp_proxy.intercept.port import Exchange
    from aesp_proxy.normalize.http import Target

# Safe to send twice (RFC 9110 section 9.2.1); only these, and only without a body.
_REPEATABLE = frozenset(("GET", "HEAD", "OPTIONS"))
# Schemes that authenticate a connection and not a request (RFC 4559 section 6).
_OF_CONNECTIONS = (b"ntlm", b"negotiate", b"kerberos")
_ABOUT_WHO = frozenset((b"authorization", b"www-authenticate"))
_WITHOUT_BODY = (204, 205, 304)
_REQUEST_TIMEOUT = 408


class Turn:
    """What one request has sent, still holds back, and has been answered.

    ``unsent`` are bytes for upstream that have no connection yet; ``rest`` are the
    client's bytes after the body.
    """

    def __init__(
        self, head: RequestHead, target: Target, exchange: Exchange, limits: HeadLimits
    ) -> None:
        self.head = head
        self.target = target
        self.exchange = exchange
        self.relay = ResponseRelay(limits, method=head.method, minor_version=head.minor_version)
        host = target.host_field(head.host)
        self.unsent = [upstream_head(head, target.origin_form, host, unpacks=exchange.unpacks)]
        self._is_chunked = head.body_bytes is None or exchange.unpacks
        self.is_repeated = False
        self._limits = limits
        self.rest = b""
        self._reader = body_reader(head.body_bytes)
        self._bytes_out = 0

    @property
    def body_done(self) -> bool:
        """Whether the whole request body has come."""
        return self._reader.done

    def body(self, data: bytes) -> None:
        """Scan body bytes; what may leave is added to ``unsent``.

        Look at ``exchange.denial`` after: a finding, or framing that cannot be read.
        """
        reader, exchange = self._reader, self.exchange
        try:
            body, self.rest = reader.feed(data)
        except InputError as error:
            exchange.refuse(Reason.MALFORMED, str(error))
            return
        out = exchange.body(body) if body else b""
        if reader.done and exchange.denial is None:
            out += exchange.finish_body(reader.trailers)
        if exchange.denial is not None:
            return
        self._bytes_out += len(out)
        if self._is_chunked:
            out = chunk(out) + (last_chunk(reader.trailers) if reader.done else b"")
        if out:
            self.unsent.append(out)

    def take_unsent(self, upstream: Upstream) -> bytes:
        """Take what goes out now.

        A request without a body stays at hand on a kept connection: that may have
        died idle, and then the request is sent once more.
        """
        data = self.unsent[0] if len(self.unsent) == 1 else b"".join(self.unsent)
        if upstream.exchanges == 0 or self.head.body_bytes != 0:
            self.unsent = []
        return data

    @property
    def is_repeatable(self) -> bool:
        """Whether it may be sent twice (RFC 9110 section 9.2.2), and nothing waits for 100."""
        head = self.head
        return head.method in _REPEATABLE and head.body_bytes == 0 and not head.expect_continue

    def may_repeat(self, upstream: Upstream) -> bool:
        """Whether it may be sent once more, when a kept connection has not answered it.

        A connection that was just made is not tried twice: what it says is the answer.
        """
        return self.is_repeatable and upstream.exchanges > 0 and bool(self.unsent)

    def has_timed_out(self) -> bool:
        """Whether a kept connection's last word is that it has waited too long for a request.

        It crossed the request on its way (RFC 9110 section 15.5.9).
        """
        answered = self.relay.head
        return answered is not None and answered.status == _REQUEST_TIMEOUT

    def begin_again(self) -> None:
        """Await an answer anew, on a connection that is made for it."""
        head = self.head
        self.relay = ResponseRelay(
            self._limits, method=head.method, minor_version=head.minor_version
        )
        self.is_repeated = True

    def leaves_clean(self) -> bool:
        """Whether another client's request may follow on the connection, once all is read.

        What servers are known to read or answer differently is out: bodies, HEAD, answers
        without a length of their own, HTTP/1.0, upgrades, and logins of a connection.
        """
        head, answered = self.head, self.relay.head
        return (
            answered is not None
            and self.is_repeatable
            and head.method != "HEAD"
            and not head.upgrade
            and head.minor_version == answered.minor_version == 1
            and answered.status not in _WITHOUT_BODY
            and not _is_of_connection(head.headers)
            and not _is_of_connection(answered.headers)
        )

    def ending(self, reason: Reason, upstream: Upstream | None, detail: str = "") -> Ending:
        """Say how it came off so far."""
        answered = self.relay.head
        return Ending(
            reason=reason,
            status=answered.status if answered is not None else 0,
            bytes_out=self._bytes_out,
            bytes_in=self.relay.body_bytes,
            upstream_address=upstream.address if upstream is not None else "",
            detail=detail,
        )


def _is_of_connection(headers: Headers) -> bool:
    return any(
        name == b"persistent-auth"
        or (name in _ABOUT_WHO and any(scheme in value.lower() for scheme in _OF_CONNECTIONS))
        for name, value in headers
    )
