"""The fuzz targets hold on random inputs; the long run is another program's."""

from __future__ import annotations

import random

import pytest
from fuzz_targets import load_target

ROUNDS = 3000


@pytest.mark.parametrize(
    ("name", "choices"), [("fuzz_record", 5), ("fuzz_batch", 6), ("fuzz_tlog", 11)]
)
def test_a_fuzz_target_holds_on_random_inputs(name: str, choices: int) -> None:
    target = load_target(name)
    chance = random.Random(11)
    for _ in range(ROUNDS):
        size = chance.choice((0, 3, 4, 6, 30, 200))
        target.fuzz_one(bytes([chance.randrange(choices)]) + chance.randbytes(size))
