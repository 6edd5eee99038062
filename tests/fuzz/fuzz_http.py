"""Fuzz target: HTTP/1 heads, chunked bodies and targets give a value or an InputError."""

from __future__ import annotations

import contextlib

from aesp_proxy.errors import InputError
from aesp_proxy.model.host import parse_host
from aesp_proxy.normalize.http import Tunnel, absolute_target, tunnel_target
from aesp_proxy.normalize.http_body import ChunkedReader
from aesp_proxy.normalize.http_head import HeadLimits, parse_request_head, parse_response_head

_TUNNEL = Tunnel(scheme="https", host=parse_host("a.test"), port=443)


def fuzz_one(data: bytes) -> None:
    """Run one input; anything but a value or an InputError is a finding."""
    with contextlib.suppress(InputError):
        head = parse_request_head(data, HeadLimits())
        with contextlib.suppress(InputError):
            tunnel_target(head, _TUNNEL)
        absolute_target(head)
    with contextlib.suppress(InputError):
        parse_response_head(data, HeadLimits(), request_method="GET")
    with contextlib.suppress(InputError):
        ChunkedReader().feed(data)
