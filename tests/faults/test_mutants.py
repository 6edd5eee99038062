"""The table of seeded bugs fits the code: ``make mutate`` tries them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MUTANTS = tomllib.loads(Path(__file__).with_name("mutants.toml").read_text())["mutant"]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant["name"].replace(" ", "-"))
def test_a_seeded_bug_has_its_place_and_its_tests(mutant: dict[str, object]) -> None:
    text = (ROOT / "src/aesp_proxy" / str(mutant["file"])).read_text()
    assert text.count(str(mutant["before"])) == 1
    assert mutant["before"] != mutant["after"]
    assert all((ROOT / test).is_file() for test in mutant["tests"])  # type: ignore[attr-defined]
