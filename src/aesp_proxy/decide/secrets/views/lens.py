"""Look at bytes through views, and through views of views: a bounded graph of decodings.

Rules:

- A view is opened only around a gate, on a region of some kilobytes, or on a long run of
  digits. What it shows is matched like any block, and looked at again, ``DEPTH_MAX`` deep.
- Over a bound nothing is passed over in silence: ``Account`` says what it was.
- What is found does not depend on where a stream was cut into pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aesp_proxy.decide.secrets.hyperscan_gates import PAD, GateLocator
from aesp_proxy.decide.secrets.reference import Candidate
from aesp_proxy.decide.secrets.views.account import Account
from aesp_proxy.decide.secrets.views.packed import ChildWatch
from aesp_proxy.decide.secrets.views.place import (
    holds_packed,
    is_believed,
    is_promising,
    outside,
    outward,
)
from aesp_proxy.decide.secrets.views.runs import has_run
from aesp_proxy.decide.secrets.views.stream import LensStream
from aesp_proxy.decide.secrets.views.table import View

Match = Callable[[bytes], tuple[Sequence[Candidate], bool]]
SHORT_BYTES = 4_096
"""Up to so many bytes a text is asked at once whether it opens any view: few do."""

OpenWatch = Callable[[Account, tuple[str, ...]], ChildWatch]


class Lens:
    """What it takes to look through views: the gates, and how a text is matched."""

    __slots__ = ("gates", "match", "watch")

    def __init__(self, gates: GateLocator, match: Match, watch: OpenWatch) -> None:
        self.gates = gates
        self.match = match
        self.watch = watch

    def open(self, account: Account, chain: tuple[str, ...] = ()) -> LensStream:
        """Return the views of a new stream, which the views of ``chain`` have shown."""
        return LensStream(self, account, chain)

    def block(
        self,
        text: bytes,
        clear: Sequence[Candidate],
        account: Account,
        chain: tuple[str, ...] = (),
    ) -> list[Candidate]:
        """Return what is found through views of ``text``, in which ``clear`` stands in clear."""
        if len(text) <= SHORT_BYTES and self._opens_none(text):
            return []
        stream = self.open(account, chain)
        stream.know(clear)
        return stream.see(text) + stream.finish()

    def _opens_none(self, text: bytes) -> bool:
        """Tell whether a text that is all there opens no view: it has no gate and no run.

        What it is has to be asked of a stream otherwise, bytes above 0x7f too.
        """
        return text.isascii() and not has_run(text) and not self.gates.find(text + PAD)

    def look(
        self,
        view: View,
        region: bytes,
        at: int,
        base: int,
        account: Account,
        chain: tuple[str, ...],
    ) -> list[Candidate]:
        """Return what is found in ``region``, which begins at ``base``, through one view.

        ``at`` is where in it what opened the view ends.
        """
        if not account.spend(len(region)):
            return []
        shown = view.show(region) if view.show_at is None else view.show_at(region, at)
        if not shown or shown == region or not (is_promising(shown) or holds_packed(shown)):
            return []
        found = self.shown(shown, account, (*chain, view.name))
        found = [one for one in found if is_believed(view, one)]
        return [outward(view, region, base, one, shown) for one in found]

    def shown(self, text: bytes, account: Account, chain: tuple[str, ...]) -> list[Candidate]:
        """Return what is found in ``text``, which the last view of ``chain`` has shown."""
        if not account.spend(len(text)):
            return []
        found, cut = self.match(text)
        account.cut = account.cut or cut
        fresh = account.know(found)
        return fresh + outside(self.block(text, found, account, chain), found)
