"""Patterns that patches must not add: line by line, over lines, over bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.decide.policy.backslashes import undoubled
from aesp_proxy.decide.policy.patch_patterns import PatchPatterns, check_patch_pattern
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.errors import ConfigError


def at(text: str, style: str = "plain") -> Sourced[str]:
    return Sourced(text, "p.yaml:5", 9, style)


def found(pattern: str, *lines: bytes) -> int | None:
    """Return the number of the line that matches; lines are numbered 10, 20, ..."""
    numbered = [(10 * index, line) for index, line in enumerate(lines, 1)]
    match = PatchPatterns([at(pattern)]).find(numbered)
    return None if match is None else match[1]


@pytest.mark.parametrize(
    ("pattern", "lines", "expected"),
    [
        ("eval", (b"a", b"eval(x)"), 20),
        ("^eval$", (b"a", b"eval", b"b"), 20),
        ("^eval$", (b"a", b"eval(", b"b"), None),
        (r"\Aeval\z", (b"a", b"eval", b"b"), 20),
        (r"\Aeval", (b"a eval",), None),
        ("(?m)^eval$", (b"a", b"eval"), 20),
        ("(?-m)^eval$", (b"a", b"eval"), 20),
        (r"a\nb", (b"x", b"a", b"b"), 20),
        (r"a$\n^b", (b"x", b"a", b"b"), 20),
        (r"a\nb", (b"a", b"x", b"b"), None),
        ("a.b", (b"a", b"b"), None),
        ("[$^]", (b"a", b"$"), 20),
        (r"[\]$]x[[:alpha:]$]", (b"]xa",), 10),
        (r"\$x", (b"$x",), 10),
        ("caf\u00e9", ("caf\u00e9".encode(),), 10),
        ("eval.*x", (b"eval(\xff\xfe, x)",), 10),
        ("a", (), None),
    ],
)
def test_anchors_stand_at_lines_and_bytes_are_bytes(pattern, lines, expected) -> None:
    assert found(pattern, *lines) == expected


@given(
    st.lists(st.sampled_from(["a+b", "(?i)x", "y$", "^z", r"(?P<n>q)1", r"(?P<n>q)2"]), max_size=6),
    st.lists(st.sampled_from([b"aab", b"X", b"y", b"yz", b"zz", b"q2", b"", b"n"]), max_size=6),
)
def test_all_at_once_is_each_by_itself(patterns, lines) -> None:
    numbered = [(number, line) for number, line in enumerate(lines, 1)]
    each = [PatchPatterns([at(text)]).find(numbered) for text in patterns]
    first = next((match for match in each if match is not None), None)
    together = PatchPatterns([at(text) for text in patterns]).find(numbered)
    assert (together and (together[0].value, together[1])) == (first and (first[0].value, first[1]))


def test_many_patterns_are_all_tried() -> None:
    patterns = PatchPatterns([at(f"word{number}x") for number in range(300)])
    for number in (0, 49, 50, 299):
        match = patterns.find([(1, b"a word%dx" % number)])
        assert match is not None
        assert match[0].value == f"word{number}x"
    assert not PatchPatterns([])


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("", "the regex is empty"),
        ("(", "RE2 refuses the regex"),
        ("(?=x)", "lookaround is not supported"),
        ("((a{1000}){1000}){1000}", "RE2 refuses the regex"),
        ("x*", "matches the empty text"),
        ("^$", "matches the empty text"),
        (".*", "matches the empty text"),
        ("a|", "matches the empty text"),
        ("x" * 9000, "longer than 8192"),
    ],
)
def test_a_bad_pattern_is_refused_at_load_with_its_place(pattern, why) -> None:
    with pytest.raises(ConfigError) as error:
        check_patch_pattern(at(pattern))
    assert error.value.where == "p.yaml:5:9"
    assert error.value.message.startswith("bad patch pattern '")
    assert why in error.value.message
    assert len(str(error.value)) < 300


def test_the_patterns_of_the_specification_are_good() -> None:
    for text in (
        "(?i)disable[_-]?(security|auth|ssl|tls)",
        r"(?i)rm\s+-rf\s+/",
        r"(?i)chmod\s+777",
    ):
        check_patch_pattern(at(text))


@pytest.mark.parametrize(
    ("text", "style", "read"),
    [
        (r"rm\\s+-rf", "single", r"rm\s+-rf"),
        (r"rm\\s+-rf", "plain", r"rm\s+-rf"),
        (r"rm\\s+-rf", "double", r"rm\\s+-rf"),
        (r"rm\s+\\d", "single", r"rm\s+\\d"),
        (r"a\\n", "single", r"a\\n"),
        ("plain", "single", "plain"),
    ],
)
def test_doubled_backslashes_are_read_as_single_where_yaml_did_not(text, style, read) -> None:
    warnings: list[str] = []
    assert undoubled(at(text, style), warnings).value == read
    assert bool(warnings) is (text != read)
