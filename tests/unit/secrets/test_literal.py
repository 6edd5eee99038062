"""The literal that leads to a match is never taken for longer than it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.decide.secrets.hyperscan import compile_locator
from aesp_proxy.decide.secrets.literal import LED_CHARS_MIN, literal_chars
from aesp_proxy.decide.secrets.rule import Rule


@pytest.mark.parametrize(
    ("expression", "chars"),
    [
        (rb"abc", 3),
        (rb"ab?c", 1),
        (rb"abc?", 2),
        (rb"ab+c", 2),
        (rb"(?:abc|de)f", 2),
        (rb"(?:ab|ba)+c?", 2),
        (rb"[0-9]{1,2}c[a-f]", 1),
        (rb"(?i)key=", 4),
        (rb"(?:^|[^A-Z])((?:AKIA|ASIA)[A-Z2-7]{16})", 4),
        (rb"a{0,3}bcd", 3),
        (rb"x\.y\x2d", 4),
        (rb"\bword\b", 4),
        (rb"(?:foo)?ba", 2),
        (rb"(?P<n>foo)", 3),
        (rb"a{3}", 1),
        (rb"\\n", 2),
        (rb"[\]abc]", 0),
        (rb"[[:digit:]abc]", 0),
        (rb"foo|", 0),
        (rb"(?s:.{3})abcd", 4),
        (rb"ab.cd", 2),
        (rb"ab{,2}", 6),
        (rb"ab{", 3),
        (rb"{2,}", 4),
        (rb"[[:abc", 0),
    ],
)
def test_the_shortest_branch_and_no_optional_part_counts(expression: bytes, chars: int) -> None:
    assert literal_chars(expression) == chars


@given(st.text(alphabet="ab\\()[]{}^$.*+?|x01:2,-<>i", max_size=24))
def test_any_text_is_measured_without_end(text: str) -> None:
    assert 0 <= literal_chars(text.encode()) <= len(text)


def test_every_rule_of_the_pack_is_led_by_a_literal(pack: tuple[Rule, ...]) -> None:
    weak = [rule.id for rule in pack if literal_chars(rule.expression) < LED_CHARS_MIN]
    assert weak == []
    assert not compile_locator([rule.expression for rule in pack]).twice


def test_a_rule_without_a_literal_has_everything_scanned_twice() -> None:
    assert compile_locator([rb"tok_[a-z]{4}", rb"[a-c]{3}"]).twice
    assert compile_locator([rb"end\z"]).twice
    assert not compile_locator([rb"tok_[a-z]{4}"]).twice
