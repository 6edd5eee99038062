"""What a client speaks, by its first bytes."""

from __future__ import annotations

import pytest
from entries import hello

from aesp_proxy.normalize.first_bytes import Protocol, recognise


@pytest.mark.parametrize(
    ("data", "protocol"),
    [
        (hello("a.test"), Protocol.TLS),
        (b"\x16", Protocol.TLS),
        (b"GET / HTTP/1.1\r\n", Protocol.HTTP1),
        (b"GET /", Protocol.HTTP1),
        (b"PROPFIND ", Protocol.HTTP1),
        (b"\r\nGET / HTTP/1.1\r\n", Protocol.HTTP1),
        (b"CONNECT a:1", Protocol.HTTP1),
        (b"FROB / HTTP/1.1\r\n", Protocol.HTTP1),
        (b"get / http/1.1\n", Protocol.HTTP1),
        (b"GET\t/\tHTTP/1.1\r\n", Protocol.HTTP1),
        (b"G\0T / HTTP/1.1\r\n", Protocol.OTHER),
        (b" GET / HTTP/1.1\r\n", Protocol.HTTP1),
        (b" GET", None),
        (b"GET /" + b"a" * 5000, Protocol.HTTP1),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Protocol.HTTP2),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", Protocol.HTTP2),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", Protocol.OTHER),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", Protocol.OTHER),
        (b"EHLO a.test\r\n", Protocol.OTHER),
        (b"\r\n\r\n", Protocol.OTHER),
        (b"PRIVMSG x\r\n", Protocol.OTHER),
        (b"a" * 2049, Protocol.OTHER),
        (b"\xff", Protocol.OTHER),
        (b"", None),
        (b"G", None),
        (b"GET", None),
        (b"GETX", None),
        (b"SSH-2.0-", None),
        (b"SSH-2.0-OpenSSH_9.2p1 Deb", None),
        (b"PRI * HT", None),
        (b"\r\n", None),
    ],
)
def test_the_first_bytes_tell(data: bytes, protocol: Protocol | None) -> None:
    assert recognise(data) is protocol


def test_what_is_recognised_stays_so_when_more_comes() -> None:
    for whole in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", hello("a.test"), b"SSH-2.0-x\r\n",
                  b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):  # fmt: skip
        told = [recognise(whole[:end]) for end in range(len(whole) + 1)]
        known = [each for each in told if each is not None]
        assert len(set(known)) == 1
        assert told[-1] is known[0]
