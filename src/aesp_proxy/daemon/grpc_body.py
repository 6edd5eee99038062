"""A gRPC message as the scan wants it: without its prefix, inflated where it is compressed.

A call says in ``grpc-encoding`` how its messages may be compressed, each message whether it is
(gRPC over HTTP/2, "Message-Encoding"). What leaves are the bytes as they came.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from aesp_proxy.decide.secrets.body import BodyScan, Release
from aesp_proxy.decide.secrets.inflate import Inflater, coding_problem
from aesp_proxy.normalize.grpc import COMPRESSED, PREFIX_BYTES, MessageReader
from aesp_proxy.normalize.http_head import Headers

if TYPE_CHECKING:
    from aesp_proxy.daemon.pipeline import ScanLimits
    from aesp_proxy.decide.secrets.scanner import SecretScanner

_FIELD: Final = b"grpc-encoding"


class GrpcBody:
    """The messages that one call sends. ``coding`` is how they may be compressed, or empty."""

    __slots__ = ("_limits", "_reader", "_scanner", "coding")

    def __init__(self, headers: Headers, limits: ScanLimits, scanner: SecretScanner) -> None:
        named = [value.decode("latin-1").lower() for name, value in headers if name == _FIELD]
        self.coding = named[0] if len(named) == 1 and not coding_problem(named) else ""
        self._limits = limits
        self._scanner = scanner
        self._reader = MessageReader(limits.message_bytes_max, may_be_compressed=bool(self.coding))

    @property
    def is_between(self) -> bool:
        """Whether no message is begun."""
        return self._reader.is_between

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes and return the messages that are now whole (see ``MessageReader.feed``)."""
        return self._reader.feed(data)

    def scanned(self, scan: BodyScan, message: bytes) -> Release:
        """Scan one message; what is released is only whether it may leave.

        The prefix is not scanned: its last byte could be a letter before a token.
        """
        body = message[PREFIX_BYTES:]
        if message[0] != COMPRESSED:
            release = scan.feed(body)
            return replace(release, data=message[:PREFIX_BYTES] + release.data)
        inflater = Inflater(
            self.coding,
            bytes_max=self._limits.message_bytes_max,
            ratio_max=self._limits.inflate_ratio_max,
        )
        content = b"".join(inflater.feed(body))
        inflater.finish()
        if inflater.problem:
            return Release(unscannable=inflater.problem)
        # The bytes as they are, too: names and comments of gzip headers are plain.
        found = self._scanner.scan(body, "body")
        release = scan.feed(content)
        return replace(release, data=message, findings=found + release.findings)
