"""One regex means the same to both engines, or is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aesp_proxy.decide.secrets.hyperscan import compile_locator
from aesp_proxy.decide.secrets.pattern import PATTERN_CHARS_MAX, cut_tail, translate
from aesp_proxy.decide.secrets.reference import compile_re2
from aesp_proxy.decide.secrets.rules import rule_from_policy
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Severity

SAME = [
    r"key\s=\s[a-z]{3}",
    r"k[\s:]v",
    r"a\Sb",
    r"x\vy",
    r"end$",
    r"^start",
    r"(?m)^line$",
    r"[]a]b",
    r"[^]a]b",
    r"[[:digit:]]{2}x",
    r"(?i)caf\x{41}",
    "größe=[0-9]",
    r"a\.b\*c\\d",
    r"(?P<name>ab)c",
    r"tab\there",
    r"\bword\b",
    r"a\Bb",
    r"[a\-z\]]{2}=",
    "a\tb",
]


@pytest.mark.parametrize("pattern", SAME)
@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet="abcdkvxyzstarlinewordgößfA =:\t\n\r\x0b\x0c]\\.*-019", max_size=24))
def test_both_engines_find_the_same_texts(pattern: str, text: str) -> None:
    dialects = translate(pattern)
    data = text.encode()
    hits = compile_locator([dialects.hyperscan]).block(data)
    expected = compile_re2(dialects.re2).search(data) is not None
    assert expected <= bool(hits)
    assert expected or not any(whole for _, _, whole in hits)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"key\s=\s[a-z]{3}", b"key = abc"),
        (r"x\vy", b"x\x0by"),
        (r"end$", b"the end"),
        (r"(?m)^line$", b"a\nline\nb"),
        (r"[]a]b", b"]b"),
        (r"(?i)caf\x{41}", b"CAFa"),
        ("größe=[0-9]", "größe=1".encode()),
        (r"a\.b\*c\\d", rb"a.b*c\d"),
        (r"[a\-z\]]{2}=", b"-]="),
    ],
)
def test_what_is_rewritten_still_matches(pattern: str, text: bytes) -> None:
    dialects = translate(pattern)
    assert compile_locator([dialects.hyperscan]).block(text)
    assert compile_re2(dialects.re2).search(text)


def test_a_dollar_does_not_match_before_a_last_newline(key: bytes) -> None:
    scanner = SecretScanner([rule_from_policy("end", "end$", Severity.ERROR)], key)
    assert scanner.scan(b"the end", "body")
    assert scanner.scan(b"the end\n", "body") == ()


@pytest.mark.parametrize(
    ("pattern", "cut"),
    [
        ("ab+", "ab"),
        ("ab*", "ab?"),
        ("ab{0,7}", "ab?"),
        ("ab{3,}", "ab{3}"),
        ("(a(b{3,9}))", "(a(b{3}))"),
        ("ab+?", "ab"),
        ("(?:ab+)+", "(?:ab)"),
        (r"ab\+", r"ab\+"),
        (r"a\\+", r"a\\"),
        (r"ab\)", r"ab\)"),
        ("ab{3}", "ab{3}"),
        (r"a[b+]", r"a[b+]"),
        (r"ab+\b", r"ab+\b"),
        ("ab?", "ab?"),
        (r"a\{3,}", r"a\{3,}"),
    ],
)
def test_an_unbounded_tail_is_cut_and_nothing_else(pattern: str, cut: str) -> None:
    assert cut_tail(translate(pattern)).re2.decode() == cut


@settings(max_examples=300, deadline=None)
@given(
    pattern=st.sampled_from(["ab+", "a(b|c){2,}", "x[ab]*", "(?:ab|ba)+c*", "a.{2,}", "(a|b+)+"]),
    text=st.text(alphabet="abcx", max_size=30),
)
def test_cutting_a_tail_does_not_move_the_first_end(pattern: str, text: str) -> None:
    whole = translate(pattern)
    data = text.encode()
    ends = [
        min(compile_locator([one.hyperscan]).block(data), default=None)
        for one in (whole, cut_tail(whole))
    ]
    assert ends[0] == ends[1]


def test_a_very_long_regex_is_refused() -> None:
    with pytest.raises(ConfigError, match="longer than"):
        translate("a" * (PATTERN_CHARS_MAX + 1))


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab\\()[]{}^$.*+?|x01zsQ:<P>=!-\n\0é", max_size=20))
def test_any_text_is_translated_or_refused(pattern: str) -> None:
    try:
        dialects = translate(pattern)
    except ConfigError:
        return
    assert dialects.hyperscan.isascii()
    assert b"\0" not in dialects.hyperscan + dialects.re2
