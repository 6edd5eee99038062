"""Fuzz target: gRPC messages come out whole, and the same, however they are cut."""

from __future__ import annotations

from aesp_proxy.errors import InputError
from aesp_proxy.normalize.grpc import MessageReader

BYTES_MAX = 1_000


class FindingError(AssertionError):
    """A promise that did not hold."""


def _messages(parts: list[bytes]) -> list[bytes] | None:
    reader = MessageReader(BYTES_MAX, may_be_compressed=True)
    whole: list[bytes] = []
    try:
        for part in parts:
            whole += reader.feed(part)
    except InputError:
        return None
    return whole


def fuzz_one(data: bytes) -> None:
    """Run one input; the first byte says where the rest is cut."""
    cut, rest = (data[0] if data else 0), data[1:]
    whole = _messages([rest])
    if whole != _messages([rest[:cut], rest[cut:]]):
        raise FindingError("messages in two pieces are others")
    if whole is not None and not rest.startswith(b"".join(whole)):
        raise FindingError("what came out is not what went in")
