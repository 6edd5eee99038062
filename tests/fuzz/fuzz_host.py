"""Fuzz target: hosts, authorities and URLs give one canonical value or an InputError."""

from __future__ import annotations

import contextlib

from aesp_proxy.errors import InputError
from aesp_proxy.model.address import classify
from aesp_proxy.model.host import parse_authority, parse_host
from aesp_proxy.normalize.announced import split_url


class FindingError(AssertionError):
    """A promise that did not hold."""


def fuzz_one(data: bytes) -> None:
    """Run one input; anything but a value or an InputError is a finding."""
    text = data.decode("utf-8", "surrogateescape")
    with contextlib.suppress(InputError):
        host = parse_host(text)
        if parse_host(str(host)) != host or not host.name.isascii():
            raise FindingError(text)
        if host.address is not None:
            classify(host.address)
    with contextlib.suppress(InputError):
        host, port = parse_authority(text, None)
        if parse_authority(f"{host}:{port}", None) != (host, port):
            raise FindingError(text)
    with contextlib.suppress(InputError):
        split_url(f"https://{text}")
