"""What one scan may spend on views, what it has seen already, and what it could not do."""

from __future__ import annotations

from collections.abc import Iterable

from aesp_proxy.decide.secrets.reference import Candidate

DEPTH_MAX = 4
TOO_DEEP = f"it is wrapped more than {DEPTH_MAX} times"
_SHOWN_FREE_BYTES = 2 << 20
_SHOWN_TIMES = 32
_KNOWN_MAX = 4_096
_LOOK_BYTES = 1_024
_OPENING_BYTES = 128
"""What is paid for a look, and for a gate's hit, beside what is read and shown: they take time
too."""


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

    def spend(self, looked_bytes: int) -> bool:
        """Take what a view reads or shows; False, and cut, when there is no more."""
        self._left_bytes -= looked_bytes + _LOOK_BYTES
        if self._left_bytes < 0:
            self.cut = True
        return not self.cut

    def pay(self, openings: int) -> None:
        """Take what so many hits of gates cost; cut when there is no more."""
        self._left_bytes -= openings * _OPENING_BYTES
        if self._left_bytes < 0:
            self.cut = True

    def refuse(self, problem: str) -> None:
        """Note, once, why something could not be looked through."""
        self.problem = self.problem or problem
