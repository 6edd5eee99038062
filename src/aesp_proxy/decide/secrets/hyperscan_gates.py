"""Find with Hyperscan where a view is worth opening: many short expressions, whole blocks.

Beside ``hyperscan`` the only module that knows the wheel; its rules hold here too. A gate
is bounded in width, so a stream is served by blocks that overlap by ``OVERLAP_BYTES``.

Plain literals and other expressions are two databases: each alone scans a gigabyte a
second, both in one a third of that (15,000 literals, 1,000 others, Vectorscan 5.4.12).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import cast

import hyperscan as hs

from aesp_proxy.decide.secrets.views.forms import WIDE_GATES, Gate
from aesp_proxy.decide.secrets.views.text_forms import (
    IN_EVEN_RUNS,
    IN_MIXED_RUNS,
    PROMISES,
    RUN,
    RUN_END,
)
from aesp_proxy.errors import ConfigError, UnavailableError

OPENINGS_MAX = 65_536
OVERLAP_BYTES = 256
"""No gate is wider: a hit that ends in new bytes begins at most so far before them."""

PAD = b"\n" * 2
"""Stands behind what is looked at, so that nothing is missed at its end (see ``hyperscan``)."""

_SHORT_BYTES = 4_096
"""So much is sooner copied than scanned in two calls."""

Opening = tuple[int, int]
"""(offset just past the form, index of the gate)."""


def _collect(index: int, _start: int, end: int, _flags: int, found: object) -> bool:
    noted = cast("list[Opening]", found)
    noted.append((end, index))
    return len(noted) >= OPENINGS_MAX


class GateLocator:
    """All gates as a few databases; immutable and safe to share between threads."""

    __slots__ = ("_databases", "_own", "_scans", "views")

    def __init__(self, views: Sequence[str], databases: Sequence[hs.Database]) -> None:
        self.views = tuple(views)
        self._databases = tuple(databases)
        # The wheel takes any buffer.
        self._scans: tuple[Callable[..., None], ...] = tuple(one.scan for one in databases)
        self._own = threading.local()

    def find_padded(self, data: memoryview) -> list[Opening]:
        """Return the openings in ``data``, ascending; OPENINGS_MAX of them: there may be more.

        None is missing at its end: there it is looked at again, with ``PAD`` behind it.
        UnavailableError when the engine fails.
        """
        last = len(data)
        is_short = last <= _SHORT_BYTES
        found = self.find(bytes(data) + PAD if is_short else data)
        if len(found) >= OPENINGS_MAX:
            return found  # as many: whoever counts them must see it
        if is_short:
            return [one for one in found if one[0] <= last]
        first = max(0, last - OVERLAP_BYTES)
        at_end = self.find(bytes(data[first:]) + PAD)
        if not at_end:
            return found
        more = {(first + end, gate) for end, gate in at_end if first + end <= last}
        return sorted(more.union(found))

    def find(self, data: bytes | memoryview) -> list[Opening]:
        """Return the openings in ``data``, ascending; one at its very end may be missing.

        OPENINGS_MAX of them: there may be more. UnavailableError when the engine fails.
        """
        found: list[Opening] = []
        try:
            for scan, scratch in zip(self._scans, self._scratches(), strict=True):
                scan(data, _collect, 0, found, scratch)
        except hs.error as failure:
            if len(found) < OPENINGS_MAX:
                raise UnavailableError(f"the scan failed: {type(failure).__name__}") from failure
        found.sort()
        return found

    def _scratches(self) -> tuple[hs.Scratch, ...]:
        try:
            own: tuple[hs.Scratch, ...] = self._own.scratches
        except AttributeError:
            own = self._own.scratches = tuple(map(hs.Scratch, self._databases))
        return own

    def dump(self) -> bytes:
        """Return the databases as bytes for ``load_gates``; forms can be read from them."""
        shared = [_shared_database(expressions) for expressions in _SHARED]
        parts = [",".join(self.views).encode(), *map(hs.dumpb, (*shared, *self._databases))]
        return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


Job = Callable[[], hs.Database]
"""What compiles one database; ``hs.error`` when it is refused."""


class Compiling:
    """Databases that are compiled, each by a thread: the engine holds no lock of Python's."""

    __slots__ = ("_done", "_failed", "_threads")

    def __init__(self, jobs: Iterable[Job] = ()) -> None:
        self._done: dict[int, hs.Database] = {}
        self._failed: dict[int, hs.error] = {}
        self._threads: list[threading.Thread] = []
        self.start(jobs)

    def start(self, jobs: Iterable[Job]) -> None:
        """Start to compile more."""
        for job in jobs:
            thread = threading.Thread(target=self._work, args=(len(self._threads), job))
            self._threads.append(thread)
            thread.start()

    def wait(self) -> list[hs.Database]:
        """Return all in the order of their jobs; the ``hs.error`` of the first that failed."""
        for thread in self._threads:
            thread.join()
        if self._failed:
            raise self._failed[min(self._failed)]
        return [self._done[number] for number in range(len(self._threads))]

    def _work(self, number: int, job: Job) -> None:
        try:
            self._done[number] = job()
        except hs.error as failure:
            self._failed[number] = failure


def compile_gates(gates: Sequence[Gate]) -> GateLocator:
    """Compile ``gates``; ConfigError when one is not accepted."""
    views, jobs = gate_jobs(gates)
    try:
        return GateLocator(views, Compiling(jobs).wait())
    except hs.error as failure:
        raise ConfigError(f"Hyperscan refuses a gate: {failure}") from failure


def gate_jobs(gates: Sequence[Gate]) -> tuple[list[str], list[Job]]:
    """Return the views of ``gates`` in their order in the databases, and what compiles those."""
    kinds = ([gate for gate in gates if gate.is_literal], [g for g in gates if not g.is_literal])
    views: list[str] = []
    jobs: list[Job] = []
    for kind in filter(None, kinds):
        jobs.append(partial(_compile, [gate.expression for gate in kind], len(views)))
        views += [gate.view for gate in kind]
    return views, jobs


def _compile(expressions: list[bytes], first: int, flag: int = 0) -> hs.Database:
    database = hs.Database(mode=hs.HS_MODE_BLOCK)
    count = len(expressions)
    ids = list(range(first, first + count))
    database.compile(expressions=expressions, ids=ids, elements=count, flags=[flag] * count)
    return database


_WIDE = tuple(gate.expression for gate in WIDE_GATES)
_SHARED: tuple[tuple[bytes, ...], ...] = (
    (RUN,),
    (RUN_END,),
    IN_MIXED_RUNS,
    IN_EVEN_RUNS,
    PROMISES,
    _WIDE,
)
"""What is the same for all rules; kept with them, as compiling it costs 0.2 s."""

_known: dict[tuple[bytes, ...], hs.Database] = {}


def _shared_database(expressions: tuple[bytes, ...]) -> hs.Database:
    """Return one of the databases that are compiled once, or were read with the rules."""
    database = _known.get(expressions)
    if database is None:
        flag = 0 if expressions == _WIDE else hs.HS_FLAG_SINGLEMATCH
        database = _compile(list(expressions), 0, flag)
        _known[expressions] = database
    return database


class Traits:
    """A few expressions of which it is only asked whether a block shows one, and where first."""

    __slots__ = ("_database", "_own", "_scan")

    def __init__(self, expressions: tuple[bytes, ...]) -> None:
        self._database = _shared_database(expressions)
        self._scan: Callable[..., None] = self._database.scan  # the wheel takes any buffer
        self._own = threading.local()

    def first(self, data: bytes | memoryview) -> int:
        """Return where what is shown first ends, -1 when nothing is."""
        found: list[int] = []
        try:
            scratch = self._own.scratch
        except AttributeError:
            scratch = self._own.scratch = hs.Scratch(self._database)
        try:
            self._scan(data, _end_of, 0, found, scratch)
        except hs.error as failure:
            raise UnavailableError(f"the scan failed: {type(failure).__name__}") from failure
        return min(found) if found else -1


def _end_of(_index: int, _start: int, end: int, _flags: int, found: list[int]) -> None:
    found.append(end)


@cache
def run_traits() -> Traits:
    """Return what long runs of letters and digits show."""
    return Traits((RUN,))


@cache
def run_end_traits() -> Traits:
    """Return what ends such a run."""
    return Traits((RUN_END,))


@cache
def mixed_run_traits() -> Traits:
    """Return what runs of both cases show that are worth decoding."""
    return Traits(IN_MIXED_RUNS)


@cache
def even_run_traits() -> Traits:
    """Return what runs of one case show that are worth decoding."""
    return Traits(IN_EVEN_RUNS)


@cache
def promise_traits() -> Traits:
    """Return what a text shows in which a token can stand."""
    return Traits(PROMISES)


@cache
def wide_gates() -> GateLocator:
    """Return the gates for bytes above 0x7f; they are the same for all rules."""
    return GateLocator([gate.view for gate in WIDE_GATES], [_shared_database(_WIDE)])


def load_gates(blob: bytes) -> GateLocator:
    """Return the gates that ``GateLocator.dump`` wrote; ``hs.error`` for another machine."""
    parts = []
    at = 0
    while at < len(blob):
        size = int.from_bytes(blob[at : at + 8], "big")
        parts.append(blob[at + 8 : at + 8 + size])
        at += 8 + size
    databases = []
    for part in parts[1:]:
        database = hs.loadb(part, hs.HS_MODE_BLOCK)
        database.scratch = hs.Scratch(database)
        databases.append(database)
    for expressions, database in zip(_SHARED, databases, strict=False):
        _known.setdefault(expressions, database)
    return GateLocator(parts[0].decode().split(","), databases[len(_SHARED) :])
