"""The fuzz target of conditions, for a short while: bytes, words of the language, and mutations."""

from __future__ import annotations

import random

from cel_random import Expressions, ours
from fuzz_targets import load_target
from hypothesis import given, settings
from hypothesis import strategies as st

fuzz_condition = load_target("fuzz_condition").fuzz_one

_WORDS = [
    "request.host", "request.user.roles", "tool.arguments", "session.risk_score", "request.time",
    "findings", "has", "(", ")", "[", "]", "{", "}", ",", ":", "?", ".", "==", "!=", "<", ">=",
    "&&", "||", "!", "-", "+", "*", "/", "%", "1", "1u", "1.5", "'a'", "b'a'", "r'a'", "in",
    "true", "null", "all", "map", "x", "x.a", "dyn", "string", "matches",
    "'('", "'secret'", "'10.0.0.0/8'", "\\",
    '"', "'", "//", "\n", "\0", "\u202e", "0x", "1e9999", "size", ".getHours('+02:00')",
]  # fmt: skip


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(data: bytes):
    fuzz_condition(data)


@given(st.lists(st.sampled_from(_WORDS), max_size=25).map(" ".join))
@settings(max_examples=300)
def test_words_in_any_order_are_refused_or_read(text: str):
    fuzz_condition(text.encode())


@given(st.integers(0, 2**32))
@settings(max_examples=150)
def test_a_good_condition_that_is_cut_and_joined_is_refused_or_read(seed: int):
    chance = random.Random(seed)
    draw = Expressions(chance)
    text, other = ours(draw.condition(3)), ours(draw.condition(2))
    at, end = sorted(chance.randrange(len(text) + 1) for _ in range(2))
    fuzz_condition(text.encode())
    fuzz_condition((text[:at] + text[end:]).encode())
    fuzz_condition((text[:at] + other + text[end:]).encode())
