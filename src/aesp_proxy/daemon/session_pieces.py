"""Ask, before something leaves, whether it completes a secret of which pieces have left before.

One memory for each principal of a worker (see ``decide.secrets.pieces``). What a scan of the
unit by itself finds is not told again here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from aesp_proxy.decide.secrets.pieces import PieceMemory, Unit
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.decide.secrets.slots import UNIT_BYTES_MAX
from aesp_proxy.decide.secrets.units import Familiar, head_units, name_units, text_units
from aesp_proxy.model.decision import Finding
from aesp_proxy.model.event import DnsQuery, EgressConnect, EgressRequest

_PRINCIPALS_MAX: Final = 64
Event = EgressConnect | EgressRequest | DnsQuery


class _Session:
    __slots__ = ("familiar", "memory")

    def __init__(self) -> None:
        self.familiar = Familiar()
        self.memory = PieceMemory()


class SessionPieces:
    """The pieces of all sessions of one worker, by principal."""

    __slots__ = ("_sessions",)

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def head(self, event: Event, scanner: SecretScanner) -> tuple[Finding, ...]:
        """Return what a name or a request's head completes; nothing found, it is remembered."""
        session = self._session(event.principal.principal_id)
        name = event.host.name
        units = list(name_units(name)) if session.familiar.is_new(name) else []
        if isinstance(event, EgressRequest):
            target = event.target.encode("utf-8", "surrogateescape")
            units += head_units(name, target, session.familiar.changed(event.headers))
        return _completed(session.memory, units, scanner)

    def clear(self) -> None:
        """Forget all pieces of all sessions."""
        self._sessions.clear()

    def text(
        self, event: Event, kind: str, text: bytes, scanner: SecretScanner
    ) -> tuple[Finding, ...]:
        """Return what a short body or message completes; nothing found, it is remembered."""
        session = self._session(event.principal.principal_id)
        return _completed(session.memory, text_units(kind, event.host.name, text), scanner)

    def _session(self, principal: str) -> _Session:
        session = self._sessions.get(principal)
        if session is None:
            session = self._sessions[principal] = _Session()
            if len(self._sessions) > _PRINCIPALS_MAX:
                self._sessions.popitem(last=False)
        self._sessions.move_to_end(principal)
        return session


def _completed(
    memory: PieceMemory, units: Iterable[Unit], scanner: SecretScanner
) -> tuple[Finding, ...]:
    units = tuple(units)
    steps = [memory.step(unit) for unit in units]
    joined = [one for step in steps for one in step.joined()]
    found: tuple[Finding, ...] = ()
    if joined:
        alone = b"\n".join(b" ".join(unit.slots) for unit in units)
        found = scanner.scan_joined(joined, alone)
    if not found:
        for step in steps:
            memory.keep(step)
    return found


class ShortText:
    """What a body or message says, as far as it is short enough to be a piece."""

    __slots__ = ("_text",)

    def __init__(self) -> None:
        self._text = bytearray()

    def hear(self, data: bytes) -> None:
        """Take what was scanned; over the bound no more is kept than shows that it is over."""
        if len(self._text) <= UNIT_BYTES_MAX:
            self._text += data[: UNIT_BYTES_MAX + 1]

    def take(self) -> bytes:
        """Return what was heard since the last call."""
        text = bytes(self._text)
        self._text.clear()
        return text
