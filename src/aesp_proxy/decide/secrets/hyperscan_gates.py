"""Find with Hyperscan where a view is worth opening: many short expressions, whole blocks.

Beside ``hyperscan`` the only module that knows the wheel; its rules hold here too. A gate
is bounded in width, so a stream is served by blocks that overlap by ``OVERLAP_BYTES``.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from typing import cast

import hyperscan as hs

from aesp_proxy.decide.secrets.views.forms import WIDE_GATES, Gate
from aesp_proxy.errors import ConfigError, UnavailableError

OPENINGS_MAX = 16_384
OVERLAP_BYTES = 256
"""No gate is wider: a hit that ends in new bytes begins at most so far before them."""

Opening = tuple[int, int]
"""(offset just past the form, index of the gate)."""


def _collect(index: int, _start: int, end: int, _flags: int, found: object) -> bool:
    noted = cast("list[Opening]", found)
    noted.append((end, index))
    return len(noted) >= OPENINGS_MAX


class GateLocator:
    """All gates as one database; immutable and safe to share between threads."""

    __slots__ = ("_database", "_own", "views")

    def __init__(self, views: Sequence[str], database: hs.Database) -> None:
        self.views = tuple(views)
        self._database = database
        self._own = threading.local()

    def find(self, data: bytes) -> list[Opening]:
        """Return the openings in ``data``, ascending; OPENINGS_MAX of them: there may be more.

        UnavailableError when the engine fails.
        """
        found: list[Opening] = []
        try:
            self._database.scan(data, _collect, 0, found, self._scratch())
        except hs.error as failure:
            if len(found) < OPENINGS_MAX:
                raise UnavailableError(f"the scan failed: {type(failure).__name__}") from failure
        return found

    def _scratch(self) -> hs.Scratch:
        try:
            own: hs.Scratch = self._own.scratch
        except AttributeError:
            own = self._own.scratch = hs.Scratch(self._database)
        return own

    def dump(self) -> bytes:
        """Return the database as bytes for ``load_gates``; forms can be read from it."""
        names = ",".join(self.views).encode()
        return len(names).to_bytes(4, "big") + names + hs.dumpb(self._database)


def compile_gates(gates: Sequence[Gate]) -> GateLocator:
    """Compile ``gates``; ConfigError when one is not accepted."""
    database = hs.Database(mode=hs.HS_MODE_BLOCK)
    expressions = [gate.expression for gate in gates]
    try:
        database.compile(expressions=expressions, ids=list(range(len(gates))), elements=len(gates))
    except hs.error as failure:
        raise ConfigError(f"Hyperscan refuses a gate: {failure}") from failure
    return GateLocator([gate.view for gate in gates], database)


@cache
def wide_gates() -> GateLocator:
    """Return the gates for bytes above 0x7f; they are the same for all rules."""
    return compile_gates(WIDE_GATES)


def load_gates(blob: bytes) -> GateLocator:
    """Return the gates that ``GateLocator.dump`` wrote; ``hs.error`` for another machine."""
    size = int.from_bytes(blob[:4], "big")
    database = hs.loadb(blob[4 + size :], hs.HS_MODE_BLOCK)
    database.scratch = hs.Scratch(database)
    return GateLocator(blob[4 : 4 + size].decode().split(","), database)
