"""Ask, before something leaves, whether it completes a secret of which pieces have left before.

One memory for each principal of a worker (see ``decide.secrets.pieces``). What a scan of the
unit by itself finds is not told again here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from aesp_proxy.decide.secrets.covered import CoveredMemory, CoveredUnit
from aesp_proxy.decide.secrets.head import percent_decoded
from aesp_proxy.decide.secrets.pieces import PieceMemory, Unit
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.decide.secrets.slots import UNIT_BYTES_MAX
from aesp_proxy.decide.secrets.units import Familiar, head_units, name_units, text_units
from aesp_proxy.model.decision import Finding
from aesp_proxy.model.event import DnsQuery, EgressConnect, EgressRequest

_PRINCIPALS_MAX: Final = 64
Event = EgressConnect | EgressRequest | DnsQuery


class _Session:
    __slots__ = ("covered", "familiar", "memory")

    def __init__(self) -> None:
        self.covered = CoveredMemory()
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
        name, familiar = event.host.name, session.familiar
        units = list(name_units(name)) if familiar.is_new(name) else []
        said = [name.encode("utf-8", "replace")] if units else []
        fields: list[tuple[bytes, bytes]] = []
        if isinstance(event, EgressRequest):
            target = event.target.encode("utf-8", "surrogateescape")
            fields = familiar.changed(event.headers)
            units += head_units(name, target, fields)
            said += [target, percent_decoded(target), *(value for _, value in fields)]
        found = _completed(session.memory, units, scanner)
        if not found and scanner.exact is not None and scanner.exact.has_parts:
            covered = session.covered.open(scanner.exact)
            covered.hear(b"\n".join(said))
            found = covered.told()
        if not found:
            familiar.keep(name, fields)
        return found

    def covered(self, event: Event, scanner: SecretScanner) -> CoveredUnit | None:
        """Return what hears a body or messages for parts of registered values, if there are any."""
        if scanner.exact is None or not scanner.exact.has_parts:
            return None
        return self._session(event.principal.principal_id).covered.open(scanner.exact)

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


class BodyPieces:
    """What of a body, or of messages, could be a piece: all of it while it is short."""

    __slots__ = ("_covered", "_text")

    def __init__(self, covered: CoveredUnit | None) -> None:
        self._covered = covered
        self._text = bytearray()

    def hear(self, data: bytes) -> None:
        """Take what was scanned; over the bound no more is kept than shows that it is over."""
        if len(self._text) <= UNIT_BYTES_MAX:
            self._text += data[: UNIT_BYTES_MAX + 1]
        if self._covered is not None:
            self._covered.hear(data)

    def told(self) -> tuple[Finding, ...]:
        """Return the registered values that are told with what was heard until now."""
        return () if self._covered is None else self._covered.told()

    def take(self) -> bytes:
        """Return what was heard since the last call, cut off where it is too long."""
        text = bytes(self._text)
        self._text.clear()
        return text
