"""Look at bytes through views, and through views of views: a bounded graph of decodings.

Rules:

- A view is opened only around a gate, on a region of at most ``REGION_BYTES_MAX``. What a
  view shows is matched like any block, and looked at again, ``DEPTH_MAX`` views deep.
- Over a bound nothing is passed over in silence: ``Account`` says what it was.
- Memory is the regions that wait for what follows them, and ``BACK_BYTES``.
- What is found does not depend on where a stream was cut into pieces.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from aesp_proxy.decide.secrets.hyperscan_gates import (
    OPENINGS_MAX,
    OVERLAP_BYTES,
    GateLocator,
    wide_gates,
)
from aesp_proxy.decide.secrets.reference import Candidate
from aesp_proxy.decide.secrets.views.forms import BROKEN
from aesp_proxy.decide.secrets.views.table import (
    BACK_BYTES,
    BROKEN_VIEW,
    FITS_BYTES,
    VIEWS,
    View,
    interruptions,
)

DEPTH_MAX = 4
REGION_BYTES_MAX = 16_384
SLICE_BYTES = 65_536
_SHOWN_FREE_BYTES = 8 << 20
_SHOWN_TIMES = 32
_KNOWN_MAX = 4_096
_CLEAR_MAX = 1_024
_PAD = b"\n\n"
_NOT_INSIDE = {
    "rot13": ("rot13",),
    "reversed": ("reversed",),
    BROKEN: ("joined", "fields", "spaced", "lines", "marked-up", "message"),
}
"""Views that are not opened inside others: they would undo them, or mend what is mended."""

TOO_DEEP = f"it is wrapped more than {DEPTH_MAX} times"

Match = Callable[[bytes], tuple[Sequence[Candidate], bool]]


class Account:
    """What one scan may spend on views; ``cut`` and ``problem`` say that it was not enough."""

    __slots__ = ("_known", "_left_bytes", "cut", "problem")

    def __init__(self) -> None:
        self._left_bytes = _SHOWN_FREE_BYTES
        self.cut = False
        self.problem = ""
        self._known: set[int] = set()

    def earn(self, seen_bytes: int) -> None:
        """Allow more for so many bytes of the scan itself."""
        self._left_bytes += seen_bytes * _SHOWN_TIMES

    def know(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Return those that are new; the same value of the same rule is told once."""
        fresh = []
        for one in candidates:
            key = hash((one.rule.id, one.value))
            if key not in self._known:
                if len(self._known) < _KNOWN_MAX:
                    self._known.add(key)
                fresh.append(one)
        return fresh

    def spend(self, shown_bytes: int) -> bool:
        """Take what a view shows; False, and cut, when there is no more."""
        self._left_bytes -= shown_bytes
        if self._left_bytes < 0:
            self.cut = True
        return not self.cut


class Lens:
    """What it takes to look through views: the gates, and how a text is matched."""

    __slots__ = ("gates", "match")

    def __init__(self, gates: GateLocator, match: Match) -> None:
        self.gates = gates
        self.match = match

    def open(self, account: Account, depth: int = 1, inside: str = "") -> LensStream:
        """Return the views of a new stream, ``depth`` views deep and ``inside`` a view."""
        return LensStream(self, account, depth, inside)

    def block(
        self,
        text: bytes,
        clear: Sequence[Candidate],
        account: Account,
        depth: int = 1,
        inside: str = "",
    ) -> list[Candidate]:
        """Return what is found through views of ``text``, in which ``clear`` stands in clear."""
        stream = self.open(account, depth, inside)
        stream.know(clear)
        found = []
        for at in range(0, len(text), SLICE_BYTES):
            found += stream.see(text[at : at + SLICE_BYTES])
        return found + stream.finish()

    def look(
        self, view: View, region: bytes, at: int, base: int, account: Account, depth: int
    ) -> list[Candidate]:
        """Return what is found in ``region``, which begins at ``base``, through one view.

        ``at`` is where in it what opened the view ends.
        """
        shown = view.show(region) if view.show_at is None else view.show_at(region, at)
        if not shown or shown == region or not account.spend(len(shown)):
            return []
        found, cut = self.match(shown)
        account.cut = account.cut or cut
        fresh = account.know(found)
        fresh += outside(self.block(shown, found, account, depth + 1, view.name), found)
        fresh = [one for one in fresh if _is_believed(view, one)]
        return [_outward(view, region, base, one, shown) for one in fresh]


def outside(through: list[Candidate], clear: Sequence[Candidate]) -> list[Candidate]:
    """Return what was seen through views without what stands in ``clear`` at the same place.

    A view that mends a text may show a longer value of a secret that needs no mending.
    """
    if not through or not clear:
        return through
    return [
        one
        for one in through
        if not any(
            one.rule is other.rule and one.start < _end(other) and other.start < _end(one)
            for other in clear
        )
    ]


def _end(one: Candidate) -> int:
    return max(one.end, one.start + len(one.value))


def _is_believed(view: View, one: Candidate) -> bool:
    """Tell whether what a mending view shows is a token: joined words have no digit, one case."""
    if not view.mends or any(byte in b"0123456789" for byte in one.value):
        return True
    upper = sum(65 <= byte <= 90 for byte in one.value)
    return upper >= _MIXED_MIN and sum(97 <= byte <= 122 for byte in one.value) >= _MIXED_MIN


_MIXED_MIN = 4


def _outward(view: View, region: bytes, base: int, one: Candidate, shown: bytes) -> Candidate:
    """Return a candidate of what a view has ``shown`` as one of what ``region`` is a part of."""
    begin = one.begin if one.begin >= 0 else one.start
    start, end = _place(view, region, shown[begin : one.end if one.via else _end(one)])
    via = f"{view.name} > {one.via}" if one.via else view.name
    return replace(one, start=base + start, end=base + end, begin=base + start, via=via)


def _place(view: View, region: bytes, text: bytes) -> tuple[int, int]:
    """Return the shortest part of ``region`` that shows ``text``, by bisection from both ends."""
    low, high = 0, len(region)
    while low < high:
        middle = (low + high) // 2
        if text in view.show(region[:middle]):
            high = middle
        else:
            low = middle + 1
    end = low
    low, high = 0, end
    while low < high:
        middle = (low + high + 1) // 2
        if text in view.show(region[middle:end]):
            low = middle
        else:
            high = middle - 1
    return low, end


class LensStream:
    """The views of one stream of bytes, seen piece by piece.

    ``hold_from`` is the offset from which bytes wait to be looked at: before it all
    views that were opened are done.
    """

    __slots__ = (
        "_account",
        "_base",
        "_buffer",
        "_clear",
        "_depth",
        "_inside",
        "_last",
        "_lens",
        "_waiting",
    )

    def __init__(self, lens: Lens, account: Account, depth: int, inside: str) -> None:
        self._lens = lens
        self._account = account
        self._depth = depth
        self._inside = inside
        self._buffer = b""
        self._base = 0
        self._waiting: list[_Region] = []
        self._last: dict[str, _Region] = {}
        self._clear: deque[tuple[int, int]] = deque(maxlen=_CLEAR_MAX)

    @property
    def _total(self) -> int:
        return self._base + len(self._buffer)

    @property
    def hold_from(self) -> int:
        """The offset of the first byte that still waits."""
        if not self._waiting:
            return self._total
        return min(region.start for region in self._waiting)

    def know(self, clear: Iterable[Candidate]) -> None:
        """Take note of what stands in clear: it needs no mending."""
        self._clear.extend((one.start, _end(one)) for one in clear)

    def see(self, data: bytes) -> list[Candidate]:
        """Return what becomes known with ``data``; longer than SLICE_BYTES, it is sliced."""
        if len(data) <= SLICE_BYTES:
            return self._see(data)
        found: list[Candidate] = []
        for at in range(0, len(data), SLICE_BYTES):
            found += self._see(data[at : at + SLICE_BYTES])
        return found

    def _see(self, data: bytes) -> list[Candidate]:
        if self._depth == 1:
            self._account.earn(len(data))
        near = self._buffer[-OVERLAP_BYTES:]
        text = near + data + _PAD
        self._note(self._lens.gates, text, len(near))
        if not text.isascii():
            self._note(wide_gates(), text, len(near))
        self._buffer += data
        found = self._ready(self._total) if self._waiting else []
        spare = self.hold_from - BACK_BYTES - self._base
        if spare > 0:
            self._buffer = self._buffer[spare:]
            self._base += spare
        return found

    def finish(self) -> list[Candidate]:
        """End the stream; return what its last regions show."""
        return self._ready(-1)

    def _note(self, gates: GateLocator, text: bytes, low: int) -> None:
        """Note the regions that gates open which end after the first ``low`` bytes of ``text``."""
        openings = gates.find(text)
        if len(openings) >= OPENINGS_MAX:
            self._account.cut = True
        base = self._total - low
        high = len(text) - len(_PAD)
        names = gates.views
        for end, gate in openings:
            name = names[gate]
            if not low < end <= high or (self._inside in _NOT_INSIDE.get(name, ())):
                continue
            view, at = VIEWS[name], base + end
            start, until = max(0, at - view.back_bytes), at + view.ahead_bytes
            last = self._last.get(name)
            if last and start <= last.until and until - last.start <= REGION_BYTES_MAX:
                last.until = max(last.until, until)
                last.marks.append(at)
                continue
            if self._depth > DEPTH_MAX:
                self._account.problem = self._account.problem or TOO_DEEP
                return
            region = self._last[name] = _Region(view, start, until, at)
            self._waiting.append(region)

    def _ready(self, total: int) -> list[Candidate]:
        """Look at the regions that are whole once ``total`` bytes are here, all when negative."""
        found: list[Candidate] = []
        still: list[_Region] = []
        for region in self._waiting:
            if 0 <= total < region.until:
                still.append(region)
                continue
            if self._last.get(region.view.name) is region:
                del self._last[region.view.name]
            for view, start, mark, until in self._looks(region):
                text = self._buffer[start - self._base : until - self._base]
                found += self._lens.look(
                    view, text, mark - start, start, self._account, self._depth
                )
        self._waiting = still
        return found

    def _looks(self, region: _Region) -> Iterator[tuple[View, int, int, int]]:
        """Yield what to look at: the region by its view, or what is broken by what mends it."""
        if region.view is not BROKEN_VIEW:
            mark = self._fit(region)
            if mark is not None:
                yield region.view, region.start, mark, region.until
            return
        text = self._buffer[region.start - self._base : region.until - self._base]
        done: dict[str, int] = {}
        clear = deque(sorted(self._clear))
        for mark in region.marks:
            while clear and clear[0][1] < mark:
                clear.popleft()
            if clear and clear[0][0] < mark:
                continue
            for name in interruptions(text, mark - region.start):
                if mark > done.get(name, -1):
                    done[name] = mark + BROKEN_VIEW.ahead_bytes // 2
                    start = max(region.start, mark - BROKEN_VIEW.back_bytes)
                    yield VIEWS[name], start, mark, mark + BROKEN_VIEW.ahead_bytes

    def _fit(self, region: _Region) -> int | None:
        """Return the first mark around which it looks as the view expects, None without one."""
        fits = region.view.fits
        if fits is None:
            return region.marks[0]
        for mark in region.marks:
            start = max(region.start, mark - FITS_BYTES) - self._base
            if fits(self._buffer[start : mark + FITS_BYTES - self._base]):
                return mark
        return None


class _Region:
    """Bytes from ``start`` to ``until`` that one view is to show; ``marks`` are what opened it."""

    __slots__ = ("marks", "start", "until", "view")

    def __init__(self, view: View, start: int, until: int, mark: int) -> None:
        self.marks = [mark]
        self.view = view
        self.start = start
        self.until = until
