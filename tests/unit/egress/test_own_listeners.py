"""The proxy does not connect to itself, whoever allows it."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest
from mitmproxy.connection import Server

from aesp_proxy.errors import UnavailableError
from aesp_proxy.intercept.egress.dialler import Dialler, static_addresses

OWN = frozenset({(ip_address("127.0.0.1"), 3129), (ip_address("::1"), 3130)})


async def dialled(host: str, port: int) -> str:
    async def lookup(_: str) -> tuple[object, ...]:
        return (ip_address("192.0.2.1"), ip_address("127.0.0.1"))

    dialler = Dialler(
        static=static_addresses({"static.test": "127.0.0.1:3129"}),
        connect_s_max=0.01,
        lookup=lookup,  # type: ignore[arg-type]
        own=OWN,
    )
    with pytest.raises(UnavailableError) as raised:
        await dialler.dial(
            Server(address=(host, port)), None, lambda *_: None  # type: ignore[arg-type]
        )  # fmt: skip
    return str(raised.value)


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("127.0.0.1", 3129),
        ("::1", 3130),
        ("0.0.0.0", 3129),
        ("::", 3130),
        ("resolved.test", 3129),
        ("static.test", 80),
    ],
)
def test_whatever_leads_to_its_own_listeners_is_refused(host, port):
    assert "leads to the proxy itself" in asyncio.run(dialled(host, port))


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 1), ("::1", 3129)])
def test_another_port_of_loopback_is_not_it(host, port):
    assert "cannot connect" in asyncio.run(dialled(host, port))
