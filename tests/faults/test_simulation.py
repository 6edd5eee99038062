"""From a seed: hosts and an aggregator, messages lost, doubled, late and damaged, clocks that jump.

After each history has come to rest the host's proof and the aggregator's agree. Another seed:
``AESP_SEED=N``; 400 of them, or a tenth of ``AESP_EXAMPLES``: ``-m long``.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from audit_world import Host, World, made_up

from aesp_proxy.record.batch import decode_batch
from aesp_proxy.record.header import decode_header
from aesp_proxy.record.reader import batch_rows
from aesp_proxy.record.state import numbered_batches
from aesp_proxy.record.verify import Pins, verify_place

SEEDS = [int(os.environ["AESP_SEED"])] if "AESP_SEED" in os.environ else list(range(1, 7))
STEPS = 120
MANY = int(os.environ.get("AESP_EXAMPLES", "4000")) // 10


def assert_agreed(world: World, host: Host) -> None:
    """What the host can prove, what the region holds, and what was acknowledged are the same."""
    told = f"seed {world.seed}, host {host.origin}"
    allowed = {"clock"} if host.turned_back else set()
    pins = Pins(
        key=host.first_key if has_first_batch(host) else None, aggregator_key=host.region_key
    )
    for report in (
        verify_place(host.directory, pins),
        world.region.verify(host.origin, host.first_key),
    ):
        wrong = [problem for problem in report.problems if problem.kind.value not in allowed]
        assert wrong == [], told
    stored = world.region.ledger.head(host.origin)
    assert stored is not None, told
    assert (stored.batch_no, stored.header_hash) == (host.head().batch_no, host.head().header_hash)
    origin = world.region.control.origin(host.origin)
    assert origin is not None
    assert origin.quarantined_ns is None, told
    found = list(stored_records(world, host))
    assert len(found) == len(set(found)), told
    assert host.acknowledged <= set(found), told


def has_first_batch(host: Host) -> bool:
    batches = numbered_batches(host.paths.batches)
    return bool(batches) and batches[0][0] == 1


def stored_records(world: World, host: Host):
    for _, path in numbered_batches(world.region.root / "batches" / host.origin):
        header, rows = batch_rows(path.read_bytes())
        yield from ((header.epoch, header.first_seq + place) for place in range(len(rows)))


def play(directory: Path, seed: int, steps: int = STEPS) -> World:
    print(f"seed {seed}")
    world = World(directory, seed)
    with made_up(world.chance):
        world.run(steps)
        try:
            for host in world.hosts:
                assert_agreed(world, host)
        finally:
            world.close()
    return world


@pytest.mark.parametrize("seed", SEEDS, ids=str)
def test_after_any_history_host_and_aggregator_agree(quick_dir: Path, seed: int) -> None:
    play(quick_dir / "world", seed)


def test_a_seed_gives_its_history_again(quick_dir: Path) -> None:
    first, second = (play(quick_dir / name, 77, 50) for name in ("first", "second"))
    assert first.trace == second.trace
    assert any("rotate" in line for line in first.trace)


def test_the_histories_hold_what_they_are_for(quick_dir: Path) -> None:
    """Keys change, batches are released, and the region refuses what was damaged."""
    world = play(quick_dir / "world", 3, 300)
    kinds = set()
    with made_up(random.Random(0)):
        world.region.open()
        for host in world.hosts:
            kinds |= {refusal.kind for refusal in world.region.control.refusals(host.origin)}
            keys = {
                decode_header(decode_batch(path.read_bytes()).header_bytes).key_id
                for _, path in numbered_batches(world.region.root / "batches" / host.origin)
            }
            assert len(keys) > 1
        world.close()
    assert kinds & {"bad_signature", "changed", "non_canonical"}
    assert any(not has_first_batch(host) for host in world.hosts)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_histories(quick_dir: Path) -> None:
    for seed in range(1000, 1000 + MANY):
        play(quick_dir / f"world-{seed}", seed)
