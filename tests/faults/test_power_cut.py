"""After a power cut only what was synced is there; sealing and journalling rest on that order.

A disk that forgets: files keep what was synced, directories the names that were
synced, and each cut may keep any part of the rest. Every point of a run is cut.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from aesp_proxy.errors import AespError
from aesp_proxy.record.files import OsFiles
from aesp_proxy.record.reader import read_state
from aesp_proxy.record.verify import Pins, verify_place


class ForgetfulFiles(OsFiles):
    """Follows what would survive a power cut: contents by inode, names by directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.steps = 0
        self.cut_at = -1
        self.contents: dict[int, bytes] = {}
        self.names: dict[Path, dict[str, int]] = {}
        for directory in (root, *(path for path in root.rglob("*") if path.is_dir())):
            self._see(directory)
        for path in root.rglob("*"):
            if path.is_file():
                self.contents[path.stat().st_ino] = path.read_bytes()
        self.kept: list[Path] = []

    def _see(self, directory: Path) -> None:
        self.names[directory] = names_in(directory)

    def _step(self) -> None:
        self.steps += 1
        if self.steps == self.cut_at:
            raise PowerCutError

    def create(self, path: Path) -> int:
        self._step()
        return super().create(path)

    def write(self, descriptor: int, data: bytes) -> int:  # type: ignore[override]
        self._step()
        return os.write(descriptor, data)

    def fdatasync(self, descriptor: int) -> None:  # type: ignore[override]
        self._step()
        status = os.fstat(descriptor)
        # Kept by hard link so that the inode's number is not used again.
        self.contents[status.st_ino] = os.pread(descriptor, status.st_size, 0)

    def replace(self, source: Path, target: Path) -> None:
        self._step()
        keep = self.root.parent / f"{self.root.name}-kept-{len(self.kept)}"
        if target.exists():
            os.link(target, keep)
            self.kept.append(keep)
        source.replace(target)

    def unlink(self, path: Path) -> None:
        self._step()
        if path.exists():
            keep = self.root.parent / f"{self.root.name}-kept-{len(self.kept)}"
            os.link(path, keep)
            self.kept.append(keep)
        path.unlink(missing_ok=True)

    def sync_dir(self, path: Path) -> None:
        self._step()
        self._see(path)

    def after_cut(self, target: Path, *, keeps_names: bool) -> None:
        """Write what the disk has after the cut; with ``keeps_names`` renames got through."""
        shutil.copytree(self.root, target)
        for directory, synced in self.names.items():
            place = target / directory.relative_to(self.root)
            names = names_in(directory) if keeps_names else synced
            for path in place.iterdir():
                if path.is_file():
                    path.unlink()
            for name, inode in names.items():
                (place / name).write_bytes(self.contents.get(inode, b""))
                (place / name).chmod(0o600)


def names_in(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in directory.iterdir() if path.is_file()}


class PowerCutError(BaseException):
    """The lights are out."""


def act(state, files: ForgetfulFiles) -> set[tuple[int, int]]:
    """Append, sync and seal some; gives what was durable when the lights went out."""
    durable: set[tuple[int, int]] = set()
    journal = None
    try:
        journal = state.journal(files, segment_bytes_max=700)
        for _ in range(3):
            before = len(state.acknowledged)
            state.append(journal, 2)
            assert len(state.acknowledged) > before
            journal.sync()
            durable |= state.acknowledged
            state.sealer(files, seal_bytes_max=600).tick(drain=True)
        journal.close()
        state.sealer(files).tick(drain=True)
    except PowerCutError:
        pass
    finally:
        if journal is not None:
            journal._writer.abandon()
    return durable


def steps_of(state) -> int:
    files = ForgetfulFiles(state.directory)
    act(state, files)
    return files.steps


@pytest.mark.parametrize("keeps_names", [False, True], ids=["names-lost", "names-kept"])
def test_a_power_cut_at_any_step_loses_nothing_that_was_durable(
    new_fault_state, quick_dir: Path, *, keeps_names: bool
) -> None:
    steps = steps_of(new_fault_state())
    assert steps > 60
    for cut_at in range(1, steps + 1):
        state = new_fault_state()
        files = ForgetfulFiles(state.directory)
        files.cut_at = cut_at
        durable = act(state, files)
        promised = state.promised()
        target = quick_dir / f"after-{cut_at}"
        files.after_cut(target, keeps_names=keeps_names)
        again = type(state)(target)
        again.now_ns = state.now_ns + 10**9
        try:
            again.sealer().tick(drain=True)
        except AespError as error:
            pytest.fail(f"cut at step {cut_at}: {error}")
        report = verify_place(target, Pins(key=again.key.public_key))
        assert report.problems == [], cut_at
        read = {(i.epoch, i.seq) for i, _ in read_state(target)}
        assert durable <= read, cut_at
        now = again.promised()
        assert {number: now[number] for number in promised} == promised, cut_at
