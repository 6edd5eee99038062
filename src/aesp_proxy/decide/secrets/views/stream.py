"""The views of one stream: gates open regions, runs are followed, packed parts are read.

Rules:

- A byte waits (``hold_from``) while a region, a run or a packed part that holds it is not
  looked at. Memory is what waits, and ``BACK_BYTES`` before it.
- Fed in slices, so that one slice has no more gates than are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from aesp_proxy.decide.secrets.hyperscan_gates import (
    OPENINGS_MAX,
    OVERLAP_BYTES,
    PAD,
    GateLocator,
    Opening,
    wide_gates,
)
from aesp_proxy.decide.secrets.reference import Candidate
from aesp_proxy.decide.secrets.views.account import DEPTH_MAX, TOO_DEEP, Account
from aesp_proxy.decide.secrets.views.forms import BROKEN
from aesp_proxy.decide.secrets.views.packed import (
    GIT,
    HEAD_BYTES,
    KINDS,
    ChildWatch,
    Packed,
    may_begin,
)
from aesp_proxy.decide.secrets.views.place import is_promising, outward
from aesp_proxy.decide.secrets.views.regions import Look, Regions
from aesp_proxy.decide.secrets.views.runs import (
    HEAD_DIGITS,
    LOOPS,
    Piece,
    Runs,
    is_worth,
    kinds_of,
    shown,
)
from aesp_proxy.decide.secrets.views.table import BACK_BYTES, VIEWS, View

SLICE_BYTES = 262_144
PACKED_MAX = 16
_BEGUN_BYTES = 1_024
"""What is paid for beginning to read what is packed: it takes time however short it is."""
_MENDING = frozenset(("joined", "fields", "spaced", "lines", "marked-up", "message"))
_ONCE = _MENDING | {"reversed", "rot13", "utf-16", "look-alikes"}
"""Views that a chain holds once: again, they show what was there before or nothing new."""
_PLACE_BYTES = 2_048
"""With more places than one in so many bytes it is quicker to look at all of them."""
_BEFORE_BYTES = 64
_BEHIND_BYTES = 2
"""So far before bytes above 0x7f a gate may stand that they follow, and ask for a letter behind."""
_DIGITS = {"base64": (4, 3), "base32": (8, 5), "hex": (2, 1)}
"""So many digits of a run are so many bytes."""


class Looker(Protocol):
    """What a stream asks: how a region is looked at, and how what is packed is watched."""

    @property
    def gates(self) -> GateLocator:
        """The gates of the rules."""
        ...

    def look(
        self,
        view: View,
        region: bytes,
        at: int,
        base: int,
        account: Account,
        chain: tuple[str, ...],
    ) -> list[Candidate]:
        """Return what a region shows through one view."""
        ...

    def shown(self, text: bytes, account: Account, chain: tuple[str, ...]) -> list[Candidate]:
        """Return what is found in what a view has shown."""
        ...

    def watch(self, account: Account, chain: tuple[str, ...]) -> ChildWatch:
        """Return a watch over a stream inside this one."""
        ...


class LensStream:
    """The views of one stream of bytes, seen piece by piece.

    ``hold_from`` is the offset from which bytes wait to be looked at: before it all
    views that were opened are done.
    """

    __slots__ = (
        "_account",
        "_barred",
        "_base",
        "_buffer",
        "_chain",
        "_lens",
        "_packed",
        "_regions",
        "_run_packed",
        "_run_start",
        "_runs",
        "_wide_done",
        "hold_from",
    )

    def __init__(self, lens: Looker, account: Account, chain: tuple[str, ...]) -> None:
        self._lens = lens
        self._account = account
        self._chain = chain
        self._barred = _ONCE.intersection(chain)
        if chain and chain[-1] in _MENDING:
            self._barred |= {BROKEN}
        self._buffer = b""
        self._base = 0
        self._regions = Regions(account)
        self._runs = Runs()
        self._packed: list[Packed] = []
        self._run_packed: list[Packed] = []
        self._run_start = 0
        self._wide_done = 0
        self.hold_from = 0

    def know(self, clear: Iterable[Candidate]) -> None:
        """Take note of what stands in clear: it needs no mending."""
        self._regions.know(clear)

    def see(self, data: bytes) -> list[Candidate]:
        """Return what becomes known with ``data``; longer than SLICE_BYTES, it is sliced."""
        if len(data) <= SLICE_BYTES:
            return self._see(data)
        found: list[Candidate] = []
        for at in range(0, len(data), SLICE_BYTES):
            found += self._see(data[at : at + SLICE_BYTES])
        return found

    def finish(self) -> list[Candidate]:
        """End the stream; return what its last regions, runs and packed parts show."""
        found: list[Candidate] = []
        for look in self._regions.ready(self._buffer, self._base, is_last=True):
            found += self._look(look)
        if self._runs.is_open:
            found += self._follow(self._base + len(self._buffer), is_last=True)
        for one in self._packed:
            found += one.finish()
        self._packed.clear()
        self.hold_from = self._base + len(self._buffer)
        return found

    def close(self) -> None:
        """Let the watches of what is packed go."""
        for one in (*self._packed, *self._run_packed):
            one.close()

    def _see(self, data: bytes) -> list[Candidate]:
        if not self._chain:
            self._account.earn(len(data))
        low = len(self._buffer)
        total = self._base + low
        buffer = self._buffer = self._buffer + data
        fresh = memoryview(buffer)[max(0, low - OVERLAP_BYTES) :]
        gates = self._lens.gates
        begun = self._open(gates, gates.find_padded(fresh), len(fresh), total)
        places = LOOPS.high(fresh, len(fresh) // _PLACE_BYTES)
        if places:
            wide = wide_gates()
            begun += self._open(wide, _find_wide(fresh, places), len(fresh), self._wide_done)
            self._wide_done = total + len(data) - len(fresh) + places[-1][1]
        found: list[Candidate] = []
        for one in self._packed:
            found += one.feed(data)
        for kind, start in begun:
            found += self._unpack(kind, start)
        if self._packed:
            self._settle()
        if self._regions:
            for look in self._regions.ready(self._buffer, self._base, is_last=False):
                found += self._look(look)
        found += self._follow(total, is_last=False)
        self.hold_from = self._first_waiting()
        spare = self.hold_from - BACK_BYTES - self._base
        if spare > 0:
            self._buffer = self._buffer[spare:]
            self._base += spare
        return found

    def _first_waiting(self) -> int:
        """Return the offset of the first byte that still waits."""
        first = self._base + len(self._buffer)
        if self._regions:
            first = min(first, self._regions.start)
        if self._runs.is_open:
            first = min(first, self._runs.hold_from, self._run_hold_from(first))
        for one in self._packed:
            first = min(first, one.hold_from)
        return first

    def _open(
        self, gates: GateLocator, openings: list[Opening], size: int, low: int
    ) -> list[tuple[str, int]]:
        """Note what opens in the last ``size`` bytes of the buffer and ends after offset ``low``.

        Return what begins there packed: its kind and where.
        """
        if not openings:
            return []
        if len(openings) >= OPENINGS_MAX:
            self._account.cut = True
        self._account.pay(len(openings))
        if self._account.cut:
            return []
        begun = []
        base = self._base + len(self._buffer) - size
        for end, gate in openings:
            name = gates.views[gate]
            mark = base + end
            if mark <= low or name in self._barred:
                continue
            if name in KINDS:
                begun.append(
                    (name, self._base + KINDS[name].begin(self._buffer, mark - self._base))
                )
            else:
                self._regions.note(name, mark)
        return begun

    def _look(self, look: Look) -> list[Candidate]:
        if len(self._chain) >= DEPTH_MAX:
            if look.view.name not in _ONCE:
                self._account.refuse(TOO_DEEP)
            return []
        region = self._buffer[look.start - self._base : look.until - self._base]
        at = look.mark - look.start
        return self._lens.look(look.view, region, at, look.start, self._account, self._chain)

    def _unpack(self, kind: str, start: int) -> list[Candidate]:
        """Begin to read what is packed from ``start`` on."""
        here = start - self._base
        before, head = self._buffer[max(0, here - 4) : here], self._buffer[here : here + HEAD_BYTES]
        if self._reads(kind, start) or not may_begin(kind, before, head):
            return []
        if len(self._packed) >= PACKED_MAX:
            self._settle()
        problem = ""
        if not KINDS[kind].opens:
            problem = f"an archive in it ({kind}) cannot be opened"
        elif len(self._chain) >= DEPTH_MAX:
            problem = TOO_DEEP
        elif len(self._packed) >= PACKED_MAX:
            problem = "it is packed too often"
        if problem:
            self._account.refuse(problem)
            return []
        if not (self._chain or self._account.spend(_BEGUN_BYTES)):
            return []
        one = Packed(kind, start, lambda: self._lens.watch(self._account, (*self._chain, kind)))
        self._packed.append(one)
        return one.feed(self._buffer[here:])

    def _reads(self, kind: str, start: int) -> bool:
        """Tell whether what is packed so is read already: the objects of a pack are zlib."""
        if kind != "zlib":
            return False
        return any(one.kind == GIT and one.has_read(start) for one in self._packed)

    def _settle(self) -> None:
        """Keep the packed parts that go on; note why one could not be read."""
        for one in self._packed:
            if one.problem:
                self._account.refuse(one.problem)
        self._packed = [one for one in self._packed if one.is_open]

    def _follow(self, low: int, *, is_last: bool) -> list[Candidate]:
        """Look at what of long runs is there."""
        found: list[Candidate] = []
        for piece in self._runs.pieces(self._buffer, self._base, low, is_last=is_last):
            if len(self._chain) >= DEPTH_MAX:
                self._account.refuse(TOO_DEEP)
                break
            found += self._read(piece)
        return found

    def _read(self, piece: Piece) -> list[Candidate]:
        found: list[Candidate] = []
        if is_worth(piece):
            text = shown(piece.view, piece.text, short=piece.short)
            if is_promising(text):
                view = VIEWS[piece.view]
                seen = self._lens.shown(text, self._account, (*self._chain, piece.view))
                found = [outward(view, piece.text, piece.start, one, text) for one in seen]
        if piece.is_first:
            head = shown(piece.view, piece.text[:HEAD_DIGITS], short=piece.short)
            kinds = kinds_of(head, short=piece.short)
            self._run_start = piece.start
            self._run_packed = [self._packed_in_run(kind, piece) for kind in kinds]
        for one in self._run_packed:
            fresh = shown(piece.view, piece.fresh, short=False)
            found += self._of_run(one.feed(fresh) + (one.finish() if piece.is_last else []), piece)
            if one.problem:
                self._account.refuse(one.problem)
        self._run_packed = [one for one in self._run_packed if one.is_open]
        return found

    def _packed_in_run(self, kind: str, piece: Piece) -> Packed:
        chain = (*self._chain, piece.view, kind)
        return Packed(kind, 0, lambda: self._lens.watch(self._account, chain))

    def _of_run(self, candidates: Sequence[Candidate], piece: Piece) -> list[Candidate]:
        start, end = self._run_start, piece.start + len(piece.text)
        return [
            replace(one, start=start, end=end, begin=start, via=f"{piece.view} > {one.via}")
            for one in candidates
        ]

    def _run_hold_from(self, first: int) -> int:
        for one in self._run_packed:
            digits, count = _DIGITS["base64"]
            first = min(first, self._run_start + one.hold_from // count * digits)
        return first


def _find_wide(text: memoryview, places: Sequence[tuple[int, int]]) -> list[Opening]:
    """Return what is opened by bytes above 0x7f, which are in ``places``, or just before them."""
    gates = wide_gates()
    found: set[Opening] = set()
    for start, end in places:
        first = max(0, start - _BEFORE_BYTES)
        near = bytes(text[first : end + _BEHIND_BYTES]) + PAD
        found.update((first + at, gate) for at, gate in gates.find(near))
    return sorted(found)
