"""The fuzz targets hold for random input for a short while on every run."""

from __future__ import annotations

from fuzz_targets import load_target
from hypothesis import example, given, settings
from hypothesis import strategies as st

rules = load_target("fuzz_secret_rules").fuzz_one
stream = load_target("fuzz_secret_stream").fuzz_one

PATTERN = st.lists(
    st.sampled_from(
        ["a", "b", "[ab]", "[^a]", r"\d", r"\s", r"\b", ".", "(", ")", "|", "*", "+", "?", "{2,}",
         "{3}", "^", "$", "(?i)", "(?:", r"\x41", r"\\", "é", "-", "x"]
    ),
    max_size=14,
).map("".join)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=120), PATTERN.map(str.encode)))
def test_any_text_is_usable_rules_or_a_reason(data: bytes) -> None:
    rules(data)


@settings(max_examples=250, deadline=None)
@given(
    head=st.binary(min_size=8, max_size=8),
    body=st.lists(
        st.one_of(
            st.sampled_from(
                [b"\xff", b" ", b"tok-", b"id 47", b"key=", b"aac", b"a" * 30, b"." * 70]
            ),
            st.binary(max_size=40),
        ),
        max_size=30,
    ).map(b"".join),
)
@example(head=b"\1\0\0\1" + bytes(4), body=b"\xfftok-key=\n" + b"a" * 30)
def test_any_body_keeps_the_law_of_the_stream(head: bytes, body: bytes) -> None:
    stream(head + body)
