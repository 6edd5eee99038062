"""A witness that is killed at any moment never cosigns two histories and forgets none.

Two lives here, 30 in the long run.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from witness_kill import KilledWitness


def play(directory: Path, *, seed: int, lives: int) -> KilledWitness:
    witness = KilledWitness(directory / "witness", random.Random(seed))
    witness.make(lives)
    for life in range(lives):
        witness.live_and_die(life)
        witness.assert_true()
    assert witness.given, "it never cosigned anything"
    return witness


def test_a_witness_killed_under_load_keeps_to_one_history_and_forgets_none(tmp_path: Path) -> None:
    play(tmp_path, seed=1, lives=2)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_witness_killed_thirty_times_keeps_to_one_history_and_forgets_none(
    tmp_path: Path,
) -> None:
    witness = play(tmp_path, seed=2, lives=30)
    print(f"{len(witness.given)} cosigned, {witness.cut_off} requests cut off by a death")
    assert witness.cut_off >= 30
    assert len({size for _, size in witness.given}) > 5
