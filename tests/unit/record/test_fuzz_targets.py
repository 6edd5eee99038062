"""The fuzz targets hold on random inputs; the long run is another program's."""

from __future__ import annotations

import importlib.util
import random
import types
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "fuzz"
ROUNDS = 3000


def load(name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "choices"), [("fuzz_record", 5), ("fuzz_batch", 6)])
def test_a_fuzz_target_holds_on_random_inputs(name: str, choices: int) -> None:
    target = load(name)
    chance = random.Random(11)
    for _ in range(ROUNDS):
        size = chance.choice((0, 3, 4, 6, 30, 200))
        target.fuzz_one(bytes([chance.randrange(choices)]) + chance.randbytes(size))
