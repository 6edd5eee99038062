"""Every case of the catalogue, played: what is stopped is stopped, a known gap is still one."""

from __future__ import annotations

from pathlib import Path

import pytest
from bypass_cases import CASES, ROWS, Case, CaseError, read_case, read_cases
from bypass_play import Stage, play

ALL = read_cases()


@pytest.mark.parametrize("case", ALL, ids=[case.name for case in ALL])
def test_case(case: Case, stage: Stage) -> None:
    play(case, stage)


def test_every_row_of_the_threats_has_a_case() -> None:
    assert {case.row for case in ALL} == set(ROWS)


def test_every_file_of_the_catalogue_is_a_case() -> None:
    others = {"conftest.py", "test_cases.py", "policy.yaml", "__pycache__"}
    files = {path.name for path in CASES.iterdir()} - others
    assert files == {f"{case.name}.toml" for case in ALL}


GOOD = """
row = 7
attack = "a"
technique = "t"
expectation = "e"
status = "stopped"
reason = "malformed"
[[input]]
kind = "request"
"""
GAP = GOOD.replace('"stopped"', '"known-gap"\nwhy = "w"\nuntil = "u"')


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOOD.replace("row = 7", "row = 8"), "row is not"),
        (GOOD.replace("row = 7", "row = 41"), "row is not"),
        (GOOD.replace('"stopped"', '"fine"'), "neither stopped nor known-gap"),
        (GOOD.replace('attack = "a"', ""), "attack"),
        (GOOD.replace("attack", "atack"), "atack"),
        (GOOD.replace('kind = "request"', ""), "no kind"),
        (GOOD[: GOOD.index("[[input]]")], "has an input"),
        (GOOD.replace('"stopped"', '"known-gap"'), "says why and until"),
        (GAP.replace('"known-gap"', '"stopped"'), "says why and until"),
        (GOOD.replace('reason = "malformed"', "reason = 3"), "reason"),
        (GOOD.replace("[[input]]", 'lab = "moon"\n[[input]]'), "lab 'moon'"),
        ("row = ", "07-x.toml: "),
    ],
)  # fmt: skip
def test_a_wrong_case_file_is_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "07-x.toml"
    path.write_text(GOOD, "utf-8")
    assert read_case(path).row == 7
    path.write_text(text, "utf-8")
    with pytest.raises(CaseError, match=r"07-x\.toml") as raised:
        read_case(path)
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"kind": "host", "hosts": ["allowed.test"], "entries": ["check"]}, "allowed"),
        ({"kind": "request", "head": ["GET {url}/ HTTP/1.1", "Host: {host}"]}, "answered"),
        ({"kind": "record", "tamper": "nothing"}, "h-bypass"),
        ({"kind": "request", "typo": 1}, "unknown keys"),
        ({"kind": "nothing"}, "unknown kind"),
        ({"kind": "proof", "test": "tests/bypass/test_cases.py::test_nothing"}, "test_nothing"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_runner_finds_what_is_not_stopped(
    stage: Stage, given: dict[str, object], told: str
) -> None:
    case = Case(name="07-x", row=7, attack="a", technique="t", expectation="e", status="stopped",
                reason="host_not_allowed", inputs=(given,))  # fmt: skip
    with pytest.raises(AssertionError, match=told):
        play(case, stage)


def test_the_runner_finds_a_gap_that_has_closed(stage: Stage) -> None:
    given = {"kind": "request", "head": ["GET {url}/{canary} HTTP/1.1", "Host: {host}"]}
    case = Case(name="07-x", row=7, attack="a", technique="t", expectation="e",
                status="known-gap", why="w", until="u", inputs=(given,))  # fmt: skip
    with pytest.raises(AssertionError, match="answered"):
        play(case, stage)
