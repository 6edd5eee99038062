"""Body framing: the same body however the bytes are cut, and nothing loose accepted."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.errors import InputError
from aesp_proxy.normalize.http_body import (
    ChunkedReader,
    LengthReader,
    body_reader,
    chunk,
    last_chunk,
)

_chunks = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
_trailers = st.sampled_from([(), ((b"x-sum", b"1"),), ((b"a", b""), (b"b", b"2"))])


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = [0, *sorted(p % (len(data) + 1) for p in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(at)]


@given(_chunks, _trailers, st.lists(st.integers(0, 10_000), max_size=8), st.binary(max_size=9))
def test_a_chunked_body_is_the_same_however_it_is_cut(chunks, trailers, places, after):
    wire = b"".join(map(chunk, chunks)) + last_chunk(trailers)
    reader = ChunkedReader()
    body, rest = b"", b""
    for piece in cut(wire + after, places):
        if reader.done:
            rest += piece
            continue
        more, left = reader.feed(piece)
        body, rest = body + more, rest + left
    assert reader.done
    assert body == b"".join(chunks)
    assert reader.trailers == trailers
    assert rest == after


@given(st.binary(max_size=200), st.lists(st.integers(0, 1_000), max_size=6))
def test_arbitrary_bytes_are_a_body_or_an_input_error(data, places):
    reader = ChunkedReader()
    with contextlib.suppress(InputError):
        for piece in cut(data, places):
            if not reader.done:
                reader.feed(piece)


@pytest.mark.parametrize(
    "wire",
    [
        b"2\nab\r\n0\r\n\r\n", b"2\r\nab\n0\r\n\r\n", b"0x2\r\nab\r\n0\r\n\r\n", b"+2\r\nab\r\n",
        b" 2\r\nab\r\n", b"\r\n", b";a=b\r\n", b"2\r\r\nab\r\n", b"2;\0\r\nab\r\n",
        b"2\r\nabc\r\n0\r\n\r\n", b"0\r\nBad Trailer: 1\r\n\r\n", b"0\r\nA: 1\n\r\n\r\n",
        b"0\r\n: 1\r\n\r\n", b"f" * 16 + b"\r\n", b"1;" + b"a" * 5_000, b"0\r\n" + b"a" * 20_000,
    ],
)  # fmt: skip
def test_loose_chunk_framing_is_refused(wire):
    with pytest.raises(InputError):
        ChunkedReader().feed(wire)


def test_chunk_extensions_are_dropped_and_an_empty_chunk_is_never_written():
    reader = ChunkedReader()
    assert reader.feed(b'3;name="x"\r\nabc\r\n0;last\r\n\r\n') == (b"abc", b"")
    assert reader.done
    assert chunk(b"") == b""


@given(st.binary(max_size=50), st.integers(0, 60))
def test_a_length_takes_exactly_its_bytes(data, length):
    reader = LengthReader(length)
    body, rest = (b"", data) if reader.done else reader.feed(data)
    assert body + rest == data
    assert len(body) == min(length, len(data))
    assert reader.done == (length <= len(data))


def test_a_body_until_close_never_ends_by_itself():
    reader = body_reader(-1)
    assert reader.feed(b"abc") == (b"abc", b"")
    assert not reader.done
