"""A disk that is really full: what cannot be recorded is refused, and room heals it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from aesp_proxy.errors import ConfigError, RecordError


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "aesp-test", str(place)]
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small tmpfs")
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_refuses_and_room_heals_it(small_disk: Path, new_fault_state) -> None:
    state = type(new_fault_state())(small_disk / "state")
    journal = state.journal()
    filler = small_disk / "filler"
    filler.write_bytes(bytes(120 * 1024))
    with pytest.raises(RecordError, match="cannot be written"):
        state.append(journal, 100_000)
    assert len(state.acknowledged) > 50
    state.assert_whole()
    with pytest.raises(RecordError, match="cannot seal"):
        state.sealer().tick(drain=True)
    state.assert_whole()
    filler.unlink()
    state.now_ns += 2 * 10**9
    state.append(journal, 5)
    journal.close()
    state.sealer().tick(drain=True)
    assert state.assert_whole().unsealed == 0


def test_a_disk_that_is_full_from_the_start_is_named(small_disk: Path, new_fault_state) -> None:
    (small_disk / "filler").write_bytes(bytes(200 * 1024))
    with pytest.raises(OSError, match="No space"):
        (small_disk / "more").write_bytes(bytes(200 * 1024))
    with pytest.raises((RecordError, ConfigError), match="cannot"):
        type(new_fault_state())(small_disk / "state").journal()
