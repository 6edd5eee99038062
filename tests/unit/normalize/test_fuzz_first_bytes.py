"""The fuzz target of first bytes for a short while, on a real ClientHello and SOCKS words."""

from __future__ import annotations

from entries import hello, socks_request
from fuzz_targets import load_target
from hypothesis import given, settings
from hypothesis import strategies as st

fuzz_first_bytes = load_target("fuzz_first_bytes").fuzz_one
HELLO = hello("a.test")
_WORDS = st.sampled_from(
    [HELLO, HELLO[:60], HELLO[60:], b"\x16\x03\x01\x00\x05", b"\x05\x01\x00", b"GET ", b"\r\n",
     socks_request(b"a.test", 80), b"\x05\x01\x00\x01", b"PRI * HTTP/2.0\r\n", b"HTTP/1.1"]
)  # fmt: skip


@settings(max_examples=400)
@given(st.integers(0, 255), st.lists(st.one_of(_WORDS, st.binary(max_size=6)), max_size=8))
def test_any_bytes_are_read_the_same_in_pieces(cut: int, parts: list[bytes]) -> None:
    fuzz_first_bytes(bytes((cut,)) + b"".join(parts))


@settings(max_examples=400)
@given(st.lists(st.tuples(st.integers(0, len(HELLO) - 1), st.integers(0, 255)), max_size=6))
def test_a_damaged_clienthello_is_a_value_or_an_input_error(changes: list[tuple[int, int]]) -> None:
    data = bytearray(HELLO)
    for at, value in changes:
        data[at] = value
    fuzz_first_bytes(b"\x40" + bytes(data))
