"""Watch bytes for candidates: a block at once, or a stream piece by piece.

Rules:

- A watch keeps the last ``CONTEXT_BYTES`` that its stream saw, enough to confirm any
  hit, and nothing else; memory does not grow with the stream.
- What is found does not depend on where the stream was cut into pieces.
- Hits of one piece over ``confirms_max`` are not looked at, nor more matches than a
  budget by the bytes seen: ``cut`` says so, and whoever watches must refuse.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.decide.secrets.hyperscan import HITS_MAX, Hit, Locator
from aesp_proxy.decide.secrets.hyperscan_gates import GateLocator
from aesp_proxy.decide.secrets.reference import Candidate, Confirmer
from aesp_proxy.decide.secrets.views.account import Account
from aesp_proxy.decide.secrets.views.lens import Lens
from aesp_proxy.decide.secrets.views.place import outside
from aesp_proxy.decide.secrets.views.stream import LensStream

CONFIRMS_MAX = 1_024
CONFIRM_BYTES_EACH = 256
"""One more hit of a piece for each so many bytes: manuals are dense in what looks like tokens."""
_CLEAR_MAX = 64
"""Candidates in clear that are remembered, so that no view tells of them again."""

EFFORT_FREE = 4_096
EFFORT_BYTES = 64
"""One more look for each so many bytes, so that a hostile body is bounded work a byte."""


def confirms_max(size: int) -> int:
    """Return how many hits are looked at in a piece of ``size`` bytes."""
    return min(CONFIRMS_MAX + size // CONFIRM_BYTES_EACH, HITS_MAX - 1)


def confirm_block(
    confirmer: Confirmer, hits: list[Hit], data: bytes
) -> tuple[Sequence[Candidate], bool]:
    """Return the candidates behind the hits of a block, and whether it was cut."""
    found, effort = _confirm(confirmer, hits, data, 0, {})
    return found, len(hits) > confirms_max(len(data)) or _too_much(effort, len(data))


def _confirm(
    confirmer: Confirmer, hits: list[Hit], text: bytes, base: int, ends: dict[int, int]
) -> tuple[Sequence[Candidate], int]:
    """Confirm ``hits``, which ascend by end; ``ends`` is where each rule's last candidate ended."""
    candidates = []
    total = 0
    for end, index, whole in hits[: confirms_max(len(text))]:
        last_end = ends.get(index, 0)
        if end <= last_end:
            continue
        candidate, effort = confirmer.confirm(index, text, base, end, last_end, whole=whole)
        total += effort
        if candidate is not None:
            ends[index] = end
            candidates.append(candidate)
        if _too_much(total, base + len(text)):
            break
    return candidates, total


def _too_much(effort: int, seen_bytes: int) -> bool:
    return effort > EFFORT_FREE + seen_bytes // EFFORT_BYTES


class Watch:
    """One stream under watch.

    ``cut`` is true once there was too much to look at; ``problem`` says, once, why
    something could not be looked through.
    """

    __slots__ = (
        "_account",
        "_clear",
        "_confirmer",
        "_effort",
        "_ends",
        "_exact",
        "_hear",
        "_lens",
        "_stream",
        "cut",
    )

    def __init__(
        self,
        locator: Locator,
        confirmer: Confirmer,
        exact: ExactIndex | None,
        views: LensStream | None,
        account: Account,
        hear: Callable[[bytes], None] | None = None,
    ) -> None:
        self._stream = locator.open()
        self._hear = hear
        self._confirmer = confirmer
        self._ends: dict[int, int] = {}
        self._effort = 0
        self._exact = None if exact is None else exact.open()
        self._account = account
        self._clear: deque[Candidate] = deque(maxlen=_CLEAR_MAX)
        self._lens = views
        self.cut = False

    @property
    def problem(self) -> str:
        """Why something could not be looked through, empty while all could."""
        return self._account.problem

    @property
    def hold_from(self) -> int:
        """The offset from which bytes must stay: they wait to be seen through a view."""
        return self._stream.total if self._lens is None else self._lens.hold_from

    def see(self, data: bytes) -> Sequence[Candidate]:
        """Return the candidates that become known with ``data`` (at most SLICE_BYTES_MAX of it).

        UnavailableError when the engine fails.
        """
        if self._hear is not None:
            self._hear(data)
        stream = self._stream
        tail = stream.tail
        hits = stream.scan(data)
        found = self._confirm(hits, tail + data) if hits else ()
        if self._exact is not None:
            exact = self._exact.see(tail, data, stream.total - len(data))
            self.cut = self.cut or self._exact.cut
            found = [*found, *exact] if exact else found
        if self._lens is None:
            return found
        self._know(self._lens, found)
        through = self._lens.see(data)
        return self._with_views(found, through) if through or self._account.cut else found

    def finish(self) -> Sequence[Candidate]:
        """End the stream and return the candidates that only its end decides."""
        hits = self._stream.finish()
        found = self._confirm(hits, self._stream.tail) if hits else ()
        if self._lens is None:
            return found
        self._know(self._lens, found)
        return self._with_views(found, self._lens.finish())

    def _know(self, lens: LensStream, found: Sequence[Candidate]) -> None:
        if found:
            self._clear.extend(found)
            lens.know(found)

    def _with_views(
        self, found: Sequence[Candidate], through: list[Candidate]
    ) -> Sequence[Candidate]:
        """Return both without what views show of what stands in clear."""
        if self._account.cut:
            self.cut = True
        if not through:
            return found
        known = {(one.rule.id, one.value) for one in self._clear}
        new = outside(through, self._clear)
        return [*found, *(one for one in new if (one.rule.id, one.value) not in known)]

    def close(self) -> None:
        """Let the stream go; closing again does nothing."""
        self._stream.close()
        if self._lens is not None:
            self._lens.close()

    def _confirm(self, hits: list[Hit], text: bytes) -> Sequence[Candidate]:
        base = self._stream.total - len(text)
        found, effort = _confirm(self._confirmer, hits, text, base, self._ends)
        self._effort += effort
        if len(hits) > confirms_max(len(text)) or _too_much(self._effort, base + len(text)):
            self.cut = self._account.cut = True
        return found


class Sight:
    """What it takes to watch: opened once a stream, or used for a block."""

    __slots__ = ("_confirmer", "_exact", "_lens", "_locator")

    def __init__(
        self,
        locator: Locator,
        confirmer: Confirmer,
        gates: GateLocator,
        exact: ExactIndex | None,
    ) -> None:
        self._locator = locator
        self._confirmer = confirmer
        self._exact = exact
        self._lens = Lens(gates, self.plain, self._inside)

    def open(self, hear: Callable[[bytes], None] | None = None) -> Watch:
        """Return a watch over a new stream, of which ``hear`` is told; the caller closes it."""
        account = Account()
        views = self._lens.open(account, ())
        return Watch(self._locator, self._confirmer, self._exact, views, account, hear)

    def open_plain(self) -> Watch:
        """Return a watch that looks at what stands in clear and through no view."""
        return Watch(self._locator, self._confirmer, self._exact, None, Account())

    def _inside(self, account: Account, chain: tuple[str, ...]) -> Watch:
        views = self._lens.open(account, chain)
        return Watch(self._locator, self._confirmer, self._exact, views, account)

    def block(self, data: bytes) -> Seen:
        """Return what is seen in a block of its own, in clear and through views."""
        found, cut = self.plain(data)
        account = Account()
        if found:
            account.know(found)
        through = outside(self._lens.block(data, found, account), found)
        if not (found or through or cut or account.cut or account.problem):
            return _NOTHING
        return Seen(candidates=[*found, *through], cut=cut or account.cut, problem=account.problem)

    def plain(self, data: bytes) -> tuple[Sequence[Candidate], bool]:
        """Return what stands in clear in a block, and whether there was too much to look at."""
        hits = self._locator.block(data)
        found, cut = confirm_block(self._confirmer, hits, data) if hits else ((), False)
        if self._exact is None:
            return found, cut
        exact, exact_cut = self._exact.block(data)
        return [*found, *exact], cut or exact_cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a block shows; ``cut``: there was too much; ``problem``: some of it is not seen."""

    candidates: Sequence[Candidate] = ()
    cut: bool = False
    problem: str = ""

    @property
    def is_clean(self) -> bool:
        """Whether there is nothing to tell."""
        return not self.candidates and not self.cut and not self.problem


_NOTHING = Seen()
