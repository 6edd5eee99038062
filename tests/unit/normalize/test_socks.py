"""SOCKS5 greetings and requests: one host, one port, or a refusal with the right reply."""

from __future__ import annotations

import pytest
from entries import socks_request

from aesp_proxy.errors import InputError
from aesp_proxy.normalize.socks import UnsupportedSocksError, read_greeting, read_request, reply

V4 = b"\x05\x01\0\x01\x7f\0\0\x01\x01\xbb"
V6 = b"\x05\x01\0\x04" + bytes(15) + b"\x01\x01\xbb"
MAPPED = b"\x05\x01\0\x04" + bytes(10) + b"\xff\xff\x0a\0\0\x01\0\x16"


@pytest.mark.parametrize(
    ("data", "host", "port"),
    [
        (socks_request(b"Allowed.Test.", 443), "allowed.test", 443),
        (socks_request(b"2130706433", 80), "127.0.0.1", 80),
        (socks_request(b"::1", 80), "::1", 80),
        (V4, "127.0.0.1", 443),
        (V6, "::1", 443),
        (MAPPED, "10.0.0.1", 22),
    ],
)
def test_a_request_names_one_canonical_host_and_port(data: bytes, host: str, port: int) -> None:
    request = read_request(data + b"more")
    assert request is not None
    assert (request.host.name, request.port, request.length) == (host, port, len(data))
    assert all(read_request(data[:end]) is None for end in range(len(data)))


def test_a_greeting_may_come_in_pieces_and_with_more_behind() -> None:
    assert [read_greeting(b"\x05\x02\x02\x00"[:end]) for end in range(1, 5)] == [
        None,
        None,
        None,
        4,
    ]
    assert read_greeting(b"\x05\x01\x00\x05\x01") == 3


@pytest.mark.parametrize("data", [b"\x05\x00", b"\x06\x01\x00", b"\x04\x01"])
def test_a_bad_greeting_is_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        read_greeting(data)


@pytest.mark.parametrize("methods", [b"\x02", b"\x01\x02", b"\xff"])
def test_credentials_are_not_asked_for(methods: bytes) -> None:
    with pytest.raises(UnsupportedSocksError):
        read_greeting(bytes((5, len(methods))) + methods)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (socks_request(b"a.test", 80, command=2), 7),
        (socks_request(b"a.test", 80, command=3), 7),
        (socks_request(b"a.test", 80, command=0), 7),
        (b"\x05\x01\0\x02\0", 8),
        (b"\x05\x01\0\x00\0", 8),
    ],
)
def test_what_is_not_spoken_has_its_own_reply(data: bytes, code: int) -> None:
    with pytest.raises(UnsupportedSocksError) as raised:
        read_request(data)
    assert raised.value.reply == code
    assert reply(code)[:2] == bytes((5, code))


@pytest.mark.parametrize(
    "data",
    [
        b"\x04\x01\0\x03",
        b"\x05\x01\x01\x03",
        socks_request(b"", 80),
        socks_request(b"a.test", 0),
        socks_request(b"a.test\0.b", 80),
        socks_request(b"user@a.test", 80),
        socks_request(b"a.test:80", 80),
        socks_request("ä.test".encode(), 80),
        socks_request(b"999.1.1.1", 80),
    ],
)
def test_what_is_not_one_host_and_port_is_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        read_request(data)
