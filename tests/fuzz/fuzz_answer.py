"""Fuzz target: what upstream answers is relayed the same in pieces; a head written anew is one.

The first byte says where the rest is cut in two.
"""

from __future__ import annotations

import contextlib

from aesp_proxy.errors import InputError
from aesp_proxy.normalize.http_head import HeadLimits, parse_request_head
from aesp_proxy.normalize.http_relay import ResponseRelay
from aesp_proxy.normalize.http_rewrite import plain_head, upstream_head

LIMITS = HeadLimits()


class FindingError(AssertionError):
    """A promise that did not hold."""


def _relayed(parts: list[bytes]) -> tuple[bytes, bool, bool] | None:
    relay = ResponseRelay(LIMITS, method="GET", minor_version=1)
    out = b""
    try:
        for part in parts:
            out += relay.feed(part)
    except InputError:
        return None
    return out, relay.done, relay.surplus


def fuzz_one(data: bytes) -> None:
    """Run one input; anything but a value or an InputError is a finding."""
    cut, rest = (data[0] if data else 0), data[1:]
    whole, halves = _relayed([rest]), _relayed([rest[:cut], rest[cut:]])
    if whole != halves and not (whole and whole[2]):  # after bytes too many it is closed anyway
        raise FindingError("an answer in two pieces is another one")
    with contextlib.suppress(InputError):
        head = parse_request_head(rest, LIMITS)
        for written in (upstream_head(head, "/", "a.test"), plain_head(head, "a.test")):
            again = parse_request_head(written, HeadLimits(header_count_max=300))
            if (again.method, again.body_bytes) != (head.method, head.body_bytes):
                raise FindingError("a head written anew is another one")
