"""How long a match can be is never said too short: else the place where it begins is missed."""

from __future__ import annotations

import re._parser as sre  # type: ignore[import-not-found]

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.decide.secrets.reference import compile_re2
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.width import bytes_max
from aesp_proxy.errors import ConfigError

TABLE = {
    b"abc": 3,
    b"a{2,3}b?": 4,
    rb"(?i)(ab|c{4}|[x\]y]{2})\x41\bz": 6,
    rb"[[:alpha:]]{3}[^\]a]{2}": 5,
    b"(?:ab|c(?:de){3})?$": 7,
    b"a{,3}": 5,
    b"a+": None,
    b"(?:a*)?": None,
    b"b{2,}?c": None,
    b"(?:^|x)(?P<name>y){0}": 1,
    rb"\\\{2\}": 4,
}


@pytest.mark.parametrize("expression", sorted(TABLE), ids=lambda one: one.decode())
def test_widths_of_a_table(expression: bytes) -> None:
    compile_re2(expression)
    assert bytes_max(expression) == TABLE[expression]


def test_every_rule_of_the_pack_has_the_width_that_python_says(pack: tuple[Rule, ...]) -> None:
    asked = 0
    for rule in pack:
        text = rule.confirm.decode("latin-1").replace(r"\z", r"\Z")
        try:
            width = sre.parse(text.encode("latin-1")).getwidth()[1]
        except sre.error:
            continue  # flags in the middle are RE2's alone
        asked += 1
        assert bytes_max(rule.confirm) == width, rule.id
    assert asked > len(pack) // 2


@given(
    parts=st.lists(
        st.sampled_from(
            ["a", "[bc]", "(?:d|ee)", "(f)", "?", "{2}", "{1,3}", r"\x41", r"\d", "^", "|", "."]
        ),
        max_size=12,
    )
)
def test_no_match_is_longer(parts: list[str]) -> None:
    expression = "".join(parts).encode()
    try:
        width = sre.parse(expression).getwidth()[1]
        compile_re2(expression)
    except (sre.error, ConfigError):
        return
    assert bytes_max(expression) == width
