"""Keep the rules of a capture: put in, compared, put back when they are not what they were.

What cannot be put in is told, and tried again. Who is meant is found out again too: a
group has other members, a cgroup was made anew. When the process ends without a word, the
rules stay: the captured have no way out then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aesp_proxy.errors import AespError, ConfigError, UnavailableError
from aesp_proxy.intercept.capture import tables
from aesp_proxy.intercept.capture.ruleset import FAMILY, NAME
from aesp_proxy.intercept.capture.tables import Table
from aesp_proxy.intercept.capture.wish import Wish

CHECK_S: Final = 5.0
RETRY_S: Final = 1.0
REMEDY: Final = "CAP_NET_ADMIN in this network namespace, and a kernel with nf_tables"
_SHOWN_MAX: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What happened to the rules.

    ``event`` is ``installed``, ``found`` (they stood), ``repaired``, ``changed`` (others are
    captured), ``broken`` (they do not stand), ``mended`` (they do again) or ``released``.
    """

    event: str
    message: str
    repairs: int = 0

    @property
    def holds(self) -> bool:
        """Whether the rules stand after it."""
        return self.event not in ("broken", "released")


class Keeper:
    """The rules of one wish, and what became of them; ``tell`` takes what happens."""

    def __init__(self, wish: Wish, tell: Callable[[News], None]) -> None:
        self.wish, self._tell = wish, tell
        self._table: Table | None = None
        self._broken = ""
        self.repairs = 0
        self.last: News | None = None

    @property
    def pause_s(self) -> float:
        """Seconds until it is to be looked at again, whatever happens."""
        return RETRY_S if self._broken else CHECK_S

    def start(self) -> None:
        """Put the rules in; ConfigError for a wish that cannot be, UnavailableError."""
        table = self.wish.table()
        try:
            there = not tables.differences(table)
            if not there:
                tables.replace(table)
        except OSError as error:
            raise UnavailableError(why_not(error), where="nftables", remedy=REMEDY) from error
        self._table = table
        word = "found" if there else "installed"
        self._say(word, f"what is sent by {self.wish.told()} leads to the proxy")

    def look(self, *, at_names: bool) -> None:
        """Compare and put right; ``at_names`` finds out anew who is meant."""
        was_broken = self._broken
        try:
            self._compare()
            if at_names or was_broken:
                self._find_out()
        except (ConfigError, OSError) as error:
            self._break(str(error) if isinstance(error, AespError) else why_not(error))
            return
        if was_broken:
            self._broken = ""
            self._say("mended", "the rules stand again")

    def release(self) -> None:
        """Take the rules away; UnavailableError where they stay."""
        try:
            tables.remove(FAMILY, NAME)
        except OSError as error:
            raise UnavailableError(why_not(error), where="nftables") from error
        self._say("released", f"what is sent by {self.wish.told()} goes its own way again")

    def _find_out(self) -> None:
        table = self.wish.table()
        if table != self._table:
            tables.replace(table)
            self._table = table
            self._say("changed", "others belong to who is captured: the rules were made anew")

    def _compare(self) -> None:
        table = self._table or self.wish.table()
        different = tables.differences(table)
        if different:
            tables.replace(table)
            self.repairs += 1
            more = len(different) - _SHOWN_MAX
            shown = "; ".join(different[:_SHOWN_MAX]) + (f"; {more} more" if more > 0 else "")
            self._say("repaired", f"somebody changed the rules, they were put back: {shown}")

    def _break(self, why: str) -> None:
        if why != self._broken:
            self._broken = why
            self._say("broken", f"the captured may have a way past the proxy: {why}")

    def _say(self, event: str, message: str) -> None:
        self.last = News(event=event, message=message, repairs=self.repairs)
        self._tell(self.last)


def why_not(error: OSError) -> str:
    """Say what the kernel answered."""
    return f"the packet rules cannot be read or written: {error.strerror or error}"
