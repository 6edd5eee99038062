"""Collect where gates have opened views, and say which regions are whole to be looked at.

Rules:

- Gates near each other open one region, of at most ``REGION_BYTES_MAX``, so that each byte
  is shown a bounded number of times however many gates open.
- A region is looked at once the bytes behind it are there, or the stream has ended.
- Each reading of what surrounds a gate is paid for, whether the view fits or not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from aesp_proxy.decide.secrets.reference import Candidate
from aesp_proxy.decide.secrets.views.account import Account
from aesp_proxy.decide.secrets.views.place import end_of
from aesp_proxy.decide.secrets.views.table import (
    BROKEN_VIEW,
    VIEWS,
    View,
    interruptions,
)

REGION_BYTES_MAX = 16_384
_CLEAR_MAX = 1_024
_APART_BYTES = 8
"""What surrounds gates nearer to each other is the same; asked once."""


@dataclass(frozen=True, slots=True)
class Look:
    """A view to open on the bytes from ``start`` to ``until``; ``mark`` is what opened it."""

    view: View
    start: int
    mark: int
    until: int


@dataclass(slots=True)
class _Region:
    """Bytes that one view is to show; ``marks`` are where the gates ended that opened it."""

    view: View
    start: int
    until: int
    marks: list[int] = field(default_factory=list)


class Regions:
    """The regions of one stream that wait."""

    __slots__ = ("_account", "_clear", "_last", "_waiting")

    def __init__(self, account: Account) -> None:
        self._account = account
        self._waiting: list[_Region] = []
        self._last: dict[str, _Region] = {}
        self._clear: deque[tuple[int, int]] = deque(maxlen=_CLEAR_MAX)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def start(self) -> int:
        """The offset of the first byte that waits; there is one."""
        return min(region.start for region in self._waiting)

    def know(self, clear: Iterable[Candidate]) -> None:
        """Take note of what stands in clear: it needs no mending."""
        self._clear.extend((one.start, end_of(one)) for one in clear)

    def note(self, name: str, mark: int) -> None:
        """Take note of a gate of the view ``name`` that ended at ``mark``."""
        view = VIEWS[name]
        start, until = max(0, mark - view.back_bytes), mark + view.ahead_bytes
        last = self._last.get(name)
        if last is None or start > last.until or until - last.start > REGION_BYTES_MAX:
            last = self._last[name] = _Region(view, start, until)
            self._waiting.append(last)
        last.until = max(last.until, until)
        marks = last.marks
        if not marks or mark - marks[-1] >= _APART_BYTES or view is BROKEN_VIEW:
            marks.append(mark)

    def ready(self, buffer: bytes, base: int, *, is_last: bool) -> Iterator[Look]:
        """Yield what to look at in ``buffer``, which begins at ``base``; all if it ``is_last``."""
        total = base + len(buffer)
        waiting, self._waiting = self._waiting, []
        for region in waiting:
            if total < region.until and not is_last:
                self._waiting.append(region)
                continue
            if self._last.get(region.view.name) is region:
                del self._last[region.view.name]
            yield from self._looks(region, buffer, base)

    def _looks(self, region: _Region, buffer: bytes, base: int) -> Iterator[Look]:
        if region.view is BROKEN_VIEW:
            yield from self._mending(region, buffer, base)
            return
        for mark in region.marks:
            if not self._account.spend(0):
                return
            if _fits(region.view, mark, region.start, buffer, base):
                yield Look(region.view, region.start, mark, region.until)
                return

    def _mending(self, region: _Region, buffer: bytes, base: int) -> Iterator[Look]:
        """Yield the views that mend what is interrupted behind a literal, or before it."""
        text = buffer[region.start - base : region.until - base]
        done: dict[str, int] = {}
        clear = deque(sorted(self._clear))
        for mark in region.marks:
            while clear and clear[0][1] < mark:
                clear.popleft()
            if clear and clear[0][0] < mark:
                continue
            for name in interruptions(text, mark - region.start):
                if not self._account.spend(0):
                    return
                view = VIEWS[name]
                if mark > done.get(name, -1) and _fits(view, mark, region.start, buffer, base):
                    done[name] = mark + BROKEN_VIEW.ahead_bytes // 2
                    start = max(region.start, mark - BROKEN_VIEW.back_bytes)
                    yield Look(view, start, mark, mark + BROKEN_VIEW.ahead_bytes)


def _fits(view: View, mark: int, low: int, buffer: bytes, base: int) -> bool:
    """Tell whether what surrounds ``mark``, from ``low`` on, is worth opening ``view`` for."""
    start = max(low, mark - view.near_bytes)
    around = buffer[start - base : mark + view.near_bytes - base]
    return view.fits(around, mark - start)
