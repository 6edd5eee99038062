"""What a client is sent of an answer: the same answer, in the one spelling that all read alike."""

from __future__ import annotations

import pytest

from aesp_proxy.errors import InputError
from aesp_proxy.normalize.http_head import HeadLimits
from aesp_proxy.normalize.http_relay import ResponseRelay

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def relayed(*parts: bytes, minor_version: int = 1, method: str = "GET") -> bytes:
    relay = ResponseRelay(HeadLimits(), method=method, minor_version=minor_version)
    return b"".join(relay.feed(part) for part in parts)


def test_an_answer_spelled_plainly_passes_as_it_came() -> None:
    answer = OK + b"Content-Length: 2\r\nX-A: b\r\n\r\nok"
    assert relayed(answer) == answer


@pytest.mark.parametrize(
    ("came", "sent"),
    [
        (OK + b"Content-Length:\t2 \r\n\r\nok", OK + b"Content-Length: 2\r\n\r\nok"),
        (OK + b"Content-Length: 002\r\nX:y\r\n\r\nok",
         OK + b"Content-Length: 2\r\nX: y\r\n\r\nok"),
        (OK + CHUNKED + b"\r\n02;x=y\r\nok\r\n0;z\r\n\r\n",
         OK + CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n"),
        (OK + CHUNKED + b"\r\n2\r\nok\r\n0\r\nX:1\r\n\r\n",
         OK + CHUNKED + b"\r\n2\r\nok\r\n0\r\nx: 1\r\n\r\n"),
        (b"HTTP/1.1 204 No Content\r\n" + CHUNKED + b"\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"HTTP/1.1 304 X\r\nContent-Length: 9\r\n" + b"\r\n",
         b"HTTP/1.1 304 X\r\nContent-Length: 9\r\n\r\n"),
        (b"HTTP/1.1 304 X\r\n" + CHUNKED + b"\r\n", b"HTTP/1.1 304 X\r\n\r\n"),
        (b"HTTP/1.1 103 X\r\nContent-Length: 4\r\n\r\n", b"HTTP/1.1 103 X\r\n\r\n"),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
         OK + CHUNKED + b"connection: close\r\n\r\n0\r\n\r\n"),
    ],
    ids=["white space", "zeros", "chunk", "trailer", "204", "304 and length", "304", "103", "1.0"],
)  # fmt: skip
def test_an_answer_spelled_oddly_passes_in_the_one_spelling(came: bytes, sent: bytes) -> None:
    assert relayed(came) == sent
    assert relayed(*(came[at : at + 1] for at in range(len(came)))).startswith(sent[:17])


def test_trailers_leave_only_when_they_are_whole() -> None:
    relay = ResponseRelay(HeadLimits(), method="GET", minor_version=1)
    assert relay.feed(OK + CHUNKED + b"\r\n0\r\nX: 1\r\n").endswith(CHUNKED + b"\r\n")
    with pytest.raises(InputError):
        relay.feed(b"Content-Length: 4\r\n\r\n")


def test_chunks_are_not_sent_to_a_client_of_http_1_0() -> None:
    with pytest.raises(InputError, match="chunks for a client"):
        relayed(OK + CHUNKED + b"\r\n", minor_version=0)


def test_interim_answers_without_end_are_cut() -> None:
    with pytest.raises(InputError, match="interim"):
        relayed(b"HTTP/1.1 103 X\r\n\r\n" * 101)
