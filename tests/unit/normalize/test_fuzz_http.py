"""The fuzz target of HTTP/1 for a short while, on words that heads and bodies are made of."""

from __future__ import annotations

from fuzz_targets import load_target
from hypothesis import given, settings
from hypothesis import strategies as st

fuzz_http = load_target("fuzz_http").fuzz_one
_WORDS = st.sampled_from(
    [b"GET ", b"HTTP/1.1 200 ", b"http://a.test", b"/x", b" HTTP/1.1", b"\r\n", b"\n", b"\0", b"5",
     b"Host: a.test\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b";x=y",
     b"ff"]
)  # fmt: skip


@settings(max_examples=400)
@given(st.lists(st.one_of(_WORDS, st.binary(max_size=6)), max_size=16).map(b"".join))
def test_any_bytes_are_a_message_or_an_input_error(data: bytes) -> None:
    fuzz_http(data)
