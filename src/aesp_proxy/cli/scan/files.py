"""Scan files, in several processes where there are many; what is told is in their order.

Processes are forked, so that the compiled rules are shared, and end with the command however
it ends. One that dies ends the scan with an error: what it would have found is not known.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, Final

from aesp_proxy.cli.scan.leak import Leak, Source, file_name
from aesp_proxy.cli.scan.pieces import CHUNK_BYTES, leaks_in, too_many
from aesp_proxy.cli.scan.rules import Spot
from aesp_proxy.cli.scan.targets import Target
from aesp_proxy.daemon.spawned import die_with_parent
from aesp_proxy.errors import UnavailableError

LEAKS_MAX: Final = 10_000
"""Of one file; what is over it is told as one leak of the rule ``too-many-findings``."""

_POINTER: Final = b"version https://git-lfs.github.com/spec/v1\n"
_POINTER_BYTES_MAX: Final = 1_024
_POINTER_SAYS: Final = "a pointer of Git LFS: what it stands for is not here"
_ALONE_TARGETS: Final = 16
_AHEAD: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """What came of one source: leaks, or why it was left out, or why it could not be read."""

    file: str
    leaks: tuple[Leak, ...] = ()
    bytes_read: int = 0
    skipped: str = ""
    unread: str = ""


def scan_target(spot: Spot, target: Target, bytes_max: int) -> Scanned:
    """Scan one file; ``bytes_max`` 0 is any size. Only a named target may be a link or a pipe."""
    file = file_name(os.fsencode(os.path.normpath(target.path)))
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(
            target.path, flags if target.named else flags | os.O_NOFOLLOW | os.O_NONBLOCK
        )
    except OSError as error:
        return Scanned(file=file, unread=error.strerror or "cannot be opened")
    with os.fdopen(descriptor, "rb", buffering=0) as opened:
        found = os.fstat(descriptor)
        if not (stat.S_ISREG(found.st_mode) or (target.named and stat.S_ISFIFO(found.st_mode))):
            return Scanned(file=file, unread="not a regular file")
        if 0 < bytes_max < found.st_size:
            return Scanned(file=file, skipped=f"{found.st_size:,} bytes are over the limit")
        # Files of /proc say that they are empty, and are not.
        size = found.st_size if stat.S_ISREG(found.st_mode) and found.st_size else None
        return scan_open(spot, Source(file=file), opened, size)


def scan_open(
    spot: Spot, source: Source, opened: BinaryIO, bytes_max: int | None = None
) -> Scanned:
    """Scan what can be read: to its end, which may never come, or ``bytes_max`` bytes."""
    reading = _Reading(opened, bytes_max)
    leaks: list[Leak] = []
    try:
        leaks.extend(islice(leaks_in(spot, source, reading.chunks()), LEAKS_MAX + 1))
    except OSError as error:
        unread = error.strerror or "cannot be read"
        return Scanned(
            file=source.file, leaks=tuple(leaks), bytes_read=reading.bytes_read, unread=unread
        )
    if len(leaks) > LEAKS_MAX:
        leaks[LEAKS_MAX:] = [too_many(leaks[LEAKS_MAX])]
    if reading.is_pointer:
        return Scanned(file=source.file, leaks=tuple(leaks), skipped=_POINTER_SAYS)
    return Scanned(file=source.file, leaks=tuple(leaks), bytes_read=reading.bytes_read)


class _Reading:
    def __init__(self, opened: BinaryIO, bytes_max: int | None) -> None:
        self._read: Callable[[int], bytes] = opened.read
        self._bytes_max = bytes_max
        self.bytes_read = 0
        self.is_pointer = False

    def chunks(self) -> Iterator[bytes]:
        while chunk := self._read(self._next_bytes()):
            if self.bytes_read == 0:
                self.is_pointer = chunk.startswith(_POINTER) and len(chunk) < _POINTER_BYTES_MAX
            self.bytes_read += len(chunk)
            yield chunk

    def _next_bytes(self) -> int:
        if self._bytes_max is None:
            return CHUNK_BYTES
        return min(CHUNK_BYTES, self._bytes_max - self.bytes_read)


def scan_targets(
    spot: Spot, targets: Iterable[Target], *, bytes_max: int, jobs: int
) -> Iterator[Scanned]:
    """Yield what came of each target, in their order. UnavailableError when a process dies."""
    waiting = iter(targets)
    first = list(islice(waiting, _ALONE_TARGETS + 1))
    if jobs == 1 or len(first) <= _ALONE_TARGETS:
        for target in (*first, *waiting):
            yield scan_target(spot, target, bytes_max)
        return
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("fork"),
        initializer=_begin,
        initargs=(spot, bytes_max, os.getpid()),
    )
    try:
        yield from _in_order(pool, _batches([*first], waiting), jobs * 2)
    except BrokenProcessPool:
        raise UnavailableError(
            "a process of the scan died, and what it scanned is not known",
            remedy="try --jobs 1",
        ) from None
    except BaseException:  # an interrupt: what a process has under way may take hours
        for process in set(multiprocessing.active_children()) - before:
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(first: list[Target], rest: Iterator[Target]) -> Iterator[list[Target]]:
    yield first
    while batch := list(islice(rest, _AHEAD)):
        yield batch


def _in_order(
    pool: ProcessPoolExecutor, batches: Iterator[list[Target]], ahead: int
) -> Iterator[Scanned]:
    running: deque[Future[list[Scanned]]] = deque()
    for batch in batches:
        running.append(pool.submit(_scan_batch, batch))
        if len(running) >= ahead:
            yield from running.popleft().result()
    while running:
        yield from running.popleft().result()


_ours: list[tuple[Spot, int]] = []
"""In a forked process: what it scans with."""


def _begin(spot: Spot, bytes_max: int, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends us
    die_with_parent(parent, signal.SIGKILL)
    _ours.append((spot, bytes_max))


def _scan_batch(batch: list[Target]) -> list[Scanned]:
    spot, bytes_max = _ours[0]
    return [scan_target(spot, target, bytes_max) for target in batch]
