"""The service does not grow: memory and descriptors over rounds of honest traffic and abuse.

``SOAK_S`` is how long, in seconds (``make soak``: ten minutes; 90 in ``make long``).
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from soak_lab import Sample, growth_per_round, play_round, served

SOAK_S = float(os.environ.get("SOAK_S", "90"))
PLAYS = 3
WARM_UP = 0.5
"""The part of the rounds that fills caches, pools and the allocator, and is not judged."""
GROWTH_BYTES_MAX = 60_000
"""A round has some 100 connections: a kilobyte that each left behind would be seen."""


def judge(samples: list[Sample]) -> list[str]:
    """Say what grew over the rounds; nothing when all is well."""
    early, late = samples[: int(len(samples) * WARM_UP)], samples[int(len(samples) * WARM_UP) :]
    wrong = []
    growth = growth_per_round(late)
    if growth > GROWTH_BYTES_MAX:
        wrong.append(f"memory grew by {growth:.0f} bytes a round")
    most = max(each.descriptors for each in early)
    if min(each.descriptors for each in late[-3:]) > most:
        wrong.append(f"{late[-1].descriptors} descriptors, {most} at first")
    return wrong


def test_a_leak_would_be_found_and_noise_is_not():
    chance = random.Random(3)
    noise = [Sample(200_000_000 + chance.randrange(3_000_000), 40) for _ in range(40)]
    assert judge(noise) == []
    warming = [
        Sample(each.resident_bytes + min(at, 10) * 4_000_000, 40) for at, each in enumerate(noise)
    ]
    assert judge(warming) == []
    leaking = [Sample(each.resident_bytes + at * 130_000, 40) for at, each in enumerate(noise)]
    assert "memory" in judge(leaking)[0]
    open_ends = [Sample(each.resident_bytes, 40 + at // 4) for at, each in enumerate(noise)]
    assert "descriptors" in judge(open_ends)[0]


@pytest.mark.long
@pytest.mark.timeout(SOAK_S + 240)
def test_the_service_does_not_grow(tmp_path: Path) -> None:
    samples = []
    with served(tmp_path) as service:
        end = time.monotonic() + SOAK_S
        while time.monotonic() < end:
            assert play_round(service, PLAYS) == []
            samples.append(service.sample())
    megabytes = [f"{each.resident_bytes / 1e6:.1f}" for each in samples]
    print(f"\n{len(samples)} rounds; MB after each: {' '.join(megabytes)}")
    print(f"descriptors: {samples[0].descriptors} at first, {samples[-1].descriptors} at last")
    print(f"growth: {growth_per_round(samples[int(len(samples) * WARM_UP) :]):.0f} bytes a round")
    assert judge(samples) == []
