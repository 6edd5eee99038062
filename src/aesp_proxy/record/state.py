"""Where everything of the record lies under a state directory, and who this host is.

Layout, below ``STATE/audit``: ``origin``; ``keys/ID.key`` and ``keys/ID.pub``;
``journal/E-N.wal`` (epoch, segment) with ``journal/E.live`` locked by a living
writer, ``journal/E.lost`` its loss counter; ``batches/NNNNNNNNNN.batch``;
``receipts/newest``; ``head``; ``status.json``; ``lock`` held by the sealer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from aesp_proxy.errors import ConfigError, RecordError
from aesp_proxy.record.faults import ChainError, Fault
from aesp_proxy.record.files import (
    DIR_MODE,
    FILE_MODE,
    OS_FILES,
    Files,
    write_all,
    write_durable,
)
from aesp_proxy.record.head import Head, decode_head, encode_head
from aesp_proxy.record.header import is_origin

BATCH_SUFFIX: Final = ".batch"
SEGMENT_SUFFIX: Final = ".wal"
LIVE_SUFFIX: Final = ".live"
LOST_SUFFIX: Final = ".lost"


@dataclass(frozen=True, slots=True)
class AuditPaths:
    """The places of one ``audit`` directory."""

    root: Path

    @property
    def origin(self) -> Path:
        """The host's name in its chain."""
        return self.root / "origin"

    @property
    def keys(self) -> Path:
        """Signing keys."""
        return self.root / "keys"

    @property
    def journal(self) -> Path:
        """Segments that are not sealed yet."""
        return self.root / "journal"

    @property
    def batches(self) -> Path:
        """The spool: sealed batches."""
        return self.root / "batches"

    @property
    def receipts(self) -> Path:
        """What the aggregator has signed for."""
        return self.root / "receipts"

    @property
    def receipt(self) -> Path:
        """The newest receipt."""
        return self.receipts / "newest"

    @property
    def log(self) -> Path:
        """What the aggregator's transparency log has shown."""
        return self.root / "log"

    @property
    def forward_status(self) -> Path:
        """What the shipper last said; advice only."""
        return self.root / "forward.json"

    @property
    def head(self) -> Path:
        """Where the chain stands."""
        return self.root / "head"

    @property
    def lock(self) -> Path:
        """Held by the one sealer."""
        return self.root / "lock"

    @property
    def allocation(self) -> Path:
        """Held while an epoch is given out."""
        return self.journal / "lock"

    @property
    def status(self) -> Path:
        """What the sealer last said; advice only."""
        return self.root / "status.json"

    def segment(self, epoch: int, number: int) -> Path:
        """File of one segment."""
        return self.journal / f"{epoch}-{number}{SEGMENT_SUFFIX}"

    def live(self, epoch: int) -> Path:
        """File that a living writer of ``epoch`` holds locked."""
        return self.journal / f"{epoch}{LIVE_SUFFIX}"

    def lost(self, epoch: int) -> Path:
        """File in which ``epoch`` counts what it may lose; there is none where nothing may be."""
        return self.journal / f"{epoch}{LOST_SUFFIX}"

    def batch(self, number: int) -> Path:
        """File of one batch."""
        return self.batches / f"{number:010d}{BATCH_SUFFIX}"


def audit_paths(state_dir: Path) -> AuditPaths:
    """Give the places under ``state_dir``; nothing is made."""
    return AuditPaths(state_dir / "audit")


def prepare(state_dir: Path) -> AuditPaths:
    """Make what is missing of the layout, 0700. ConfigError when that cannot be."""
    paths = audit_paths(state_dir)
    try:
        for directory in (
            state_dir,
            paths.root,
            paths.keys,
            paths.journal,
            paths.batches,
            paths.receipts,
        ):
            _make_dir(directory)
    except OSError as error:
        raise ConfigError(
            f"cannot make the audit directory: {error.strerror}",
            where=str(error.filename or state_dir),
            remedy="choose another --state, or mend owner and mode",
        ) from error
    return paths


def _make_dir(directory: Path) -> None:
    if directory.is_dir():
        return
    directory.mkdir(mode=DIR_MODE, parents=True, exist_ok=True)
    # A directory whose name a power cut forgets takes every durable record with it.
    OS_FILES.sync_dir(directory.parent)


def load_origin(paths: AuditPaths) -> str:
    """Read the host's name. ConfigError when it is absent or damaged."""
    try:
        text = paths.origin.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "holds no readable origin", where=str(paths.origin), remedy="is this a state directory?"
        ) from error
    if not is_origin(text):
        raise ConfigError(
            "the origin is damaged", where=str(paths.origin), remedy="restore it from a backup"
        )
    return text


def ensure_origin(paths: AuditPaths, *, wanted: str = "") -> str:
    """Read the host's name, or give it one for ever (``wanted``, else a random one).

    Two processes that start at once agree. ConfigError when ``wanted`` is not
    what the state already says.
    """
    if not paths.origin.exists():
        _create_origin(paths, wanted or "h-" + os.urandom(8).hex())
    origin = load_origin(paths)
    if wanted and wanted != origin:
        raise ConfigError(
            f"this state belongs to {origin!r}, not {wanted!r}", where=str(paths.origin)
        )
    return origin


def _create_origin(paths: AuditPaths, origin: str) -> None:
    if not is_origin(origin):
        raise ConfigError(f"{origin!r} cannot name an origin", remedy="use a-z 0-9 . _ -")
    draft = paths.origin.with_name(f".origin.{os.getpid()}")
    try:
        OS_FILES.unlink(draft)
        descriptor = OS_FILES.create(draft)
        try:
            write_all(OS_FILES, descriptor, origin.encode() + b"\n")
            OS_FILES.fdatasync(descriptor)
        finally:
            OS_FILES.close(descriptor)
        _link_once(draft, paths.origin)
        OS_FILES.sync_dir(paths.root)
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {error.strerror}", where=str(paths.origin)
        ) from error
    finally:
        OS_FILES.unlink(draft)


def _link_once(draft: Path, target: Path) -> None:
    # link(2), not rename: the first of two starters wins and the other reads its name.
    try:
        target.hardlink_to(draft)
    except FileExistsError:
        return


def numbered_batches(directory: Path) -> list[tuple[int, Path]]:
    """List batch files with their numbers, ascending. RecordError when unreadable."""
    found = []
    for name in names_in(directory):
        stem = name.removesuffix(BATCH_SUFFIX)
        if stem != name and stem.isascii() and stem.isdigit():
            found.append((int(stem), directory / name))
    return sorted(found)


def segments(paths: AuditPaths) -> dict[int, list[int]]:
    """List journal segments: epoch to segment numbers, both ascending."""
    found: dict[int, list[int]] = {}
    for name in names_in(paths.journal):
        stem = name.removesuffix(SEGMENT_SUFFIX)
        epoch, dash, number = stem.partition("-")
        if stem != name and dash and _are_digits(epoch, number):
            found.setdefault(int(epoch), []).append(int(number))
    return {epoch: sorted(found[epoch]) for epoch in sorted(found)}


def _are_digits(*texts: str) -> bool:
    return all(text.isascii() and text.isdigit() for text in texts)


def list_dir(directory: Path) -> Iterable[Path]:
    """List a directory. RecordError when it cannot be read."""
    return [directory / name for name in names_in(directory)]


def names_in(directory: Path) -> list[str]:
    """List the names in a directory, in any order. RecordError when it cannot be read."""
    try:
        return os.listdir(directory)  # noqa: PTH208 - a path for each name costs ten times this
    except OSError as error:
        raise RecordError(f"cannot be listed: {error.strerror}", where=str(directory)) from error


_HEAD_SUM_BYTES: Final = 16


def read_head(paths: AuditPaths) -> Head | None:
    """Read where the chain stands; None when nothing was ever sealed.

    ChainError when the file is damaged, RecordError when it cannot be read.
    """
    try:
        data = paths.head.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"cannot be read: {error.strerror}", where=str(paths.head)) from error
    packed, checksum = data[:-_HEAD_SUM_BYTES], data[-_HEAD_SUM_BYTES:]
    if sha256(packed).digest()[:_HEAD_SUM_BYTES] != checksum:
        raise ChainError(Fault.CHANGED, "the head is damaged", where=str(paths.head))
    return decode_head(packed)


def write_head(paths: AuditPaths, files: Files, head: Head) -> None:
    """Put the head in place, durably. OSError: the old one stands."""
    packed = encode_head(head)
    write_durable(files, paths.head, packed + sha256(packed).digest()[:_HEAD_SUM_BYTES])


def journal_bytes(paths: AuditPaths) -> int:
    """Return how many bytes the journal's segments have: what is not sealed whole yet."""
    total = 0
    try:
        for entry in os.scandir(paths.journal):
            if entry.name.endswith(SEGMENT_SUFFIX):
                total += entry.stat(follow_symlinks=False).st_size
    except OSError:
        return total  # a segment was sealed and removed meanwhile, or there is none yet
    return total


def write_status(paths: AuditPaths, status: dict[str, Any]) -> None:
    """Say how the sealer is; advice for others, so nothing waits for the disk. OSError."""
    draft = paths.status.with_name(f".status.{os.getpid()}.tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, FILE_MODE)
    try:
        write_all(OS_FILES, descriptor, json.dumps(status).encode())
    finally:
        os.close(descriptor)
    draft.replace(paths.status)


def read_forward_status(paths: AuditPaths) -> dict[str, Any]:
    """Read what the shipper last said; empty for nothing."""
    try:
        said = json.loads(paths.forward_status.read_bytes())
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def read_status(paths: AuditPaths) -> tuple[dict[str, Any], float]:
    """Read what the sealer last said and when (mtime, seconds); empty and 0 for nothing."""
    try:
        text = paths.status.read_bytes()
        modified = paths.status.stat().st_mtime
        status = json.loads(text)
    except (OSError, ValueError):
        return {}, 0.0
    if not isinstance(status, dict) or not isinstance(status.get("spool_bytes"), int):
        return {}, 0.0
    return status, modified
