"""What was compiled and Hyperscan find the same long runs, and refuse what is no offset."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aesp_proxy.decide.secrets import compiled as product
from aesp_proxy.decide.secrets.views import run_spans, runs
from aesp_proxy.decide.secrets.views.text_forms import RUN_BYTES_MIN

compiled = pytest.importorskip(
    "aesp_proxy.decide.secrets._runs", reason="built without a C compiler"
)

# Runs around the shortest that counts and around the steps of the loop; what stands between.
SIZES = st.sampled_from([0, 1, 15, 16, 17, 46, 47, 48, 49, 63, 64, 65, 95, 96, 97, 128, 200])
PARTS = st.lists(
    st.tuples(SIZES, st.sampled_from([b"", b" ", b"=", b"\xff", b"\0", b"@", b".!" * 30])),
    max_size=8,
)
LETTERS = b"ABYZabyz0189+/-_"


@settings(max_examples=300)
@given(PARTS, st.integers(0, 300), st.integers(0, 15))
def test_both_ways_find_the_same_runs(parts: list[tuple[int, bytes]], at: int, turn: int):
    letters = (LETTERS[turn:] + LETTERS[:turn]) * 20
    data = b"".join(letters[:size] + mark for size, mark in parts)
    at = min(at, len(data))
    assert compiled.spans(data, at) == run_spans.spans(data, at)
    assert compiled.end(data, at) == run_spans.end(data, at)


def test_each_byte_is_a_letter_for_both_or_for_none():
    for byte in range(256):
        data = b" " + b"a" * 30 + bytes((byte,)) + b"a" * 30 + bytes((byte,)) * 70
        assert compiled.spans(data, 1) == run_spans.spans(data, 1), byte
        assert compiled.end(data, 1) == run_spans.end(data, 1), byte


def test_what_is_no_offset_is_refused():
    for ask in (compiled.spans, compiled.end):
        with pytest.raises(ValueError, match="not negative"):
            ask(b"a" * 60, -1)
        with pytest.raises(TypeError):
            ask("text", 0)
    assert compiled.spans(b"a" * 60, 61) == []
    assert compiled.end(b"a" * 60, 99) == 60


def test_what_was_compiled_is_what_follows_runs():
    assert product.RUNS is compiled
    assert runs._loops is compiled
    assert compiled.EDITION == product.RUNS_EDITION
    assert compiled.RUN_BYTES_MIN == RUN_BYTES_MIN
