"""Ask, before something leaves, whether it completes a secret of which pieces have left before.

One memory for each principal (see ``decide.secrets.pieces``), kept alike by all workers
(``shared_pieces``). What a scan of the unit by itself finds is not told again here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from aesp_proxy.daemon.shared_pieces import PieceQueues, Said
from aesp_proxy.decide.secrets.covered import CoveredMemory, CoveredUnit
from aesp_proxy.decide.secrets.head import percent_decoded
from aesp_proxy.decide.secrets.pieces import PieceMemory, Step, Unit
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.decide.secrets.slots import UNIT_BYTES_MAX
from aesp_proxy.decide.secrets.units import Familiar, head_units, name_units, text_units
from aesp_proxy.model.decision import Finding
from aesp_proxy.model.event import DnsQuery, EgressConnect, EgressRequest

_PRINCIPALS_MAX: Final = 64
Event = EgressConnect | EgressRequest | DnsQuery


class _Session:
    __slots__ = ("covered", "familiar", "memory")

    def __init__(self, tell: Callable[[str, int], None] | None) -> None:
        self.covered = CoveredMemory(tell)
        self.familiar = Familiar()
        self.memory = PieceMemory()


class SessionPieces:
    """The pieces of all sessions, by principal; ``queues`` lead to the other workers."""

    __slots__ = ("_queues", "_sessions")

    def __init__(self, queues: PieceQueues | None = None) -> None:
        self._queues = queues
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def head(self, event: Event, scanner: SecretScanner) -> tuple[Finding, ...]:
        """Return what a name or a request's head completes; nothing found, it is remembered."""
        self.hear()
        principal = event.principal.principal_id
        session = self._session(principal)
        name, familiar = event.host.name, session.familiar
        units = list(name_units(name)) if familiar.is_new(name) else []
        said = [name.encode("utf-8", "replace")] if units else []
        fields: list[tuple[bytes, bytes]] = []
        if isinstance(event, EgressRequest):
            target = event.target.encode("utf-8", "surrogateescape")
            decoded = percent_decoded(target)
            fields = familiar.changed(event.headers)
            units += head_units(name, decoded, fields)
            said += [target, decoded, *[value for _, value in fields]]
        found = self._completed(principal, units, scanner)
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
        self.hear()
        return self._session(event.principal.principal_id).covered.open(scanner.exact)

    def clear(self) -> None:
        """Forget all pieces of all sessions."""
        self._sessions.clear()

    def text(
        self, event: Event, kind: str, text: bytes, scanner: SecretScanner
    ) -> tuple[Finding, ...]:
        """Return what a short body or message completes; nothing found, it is remembered."""
        self.hear()
        principal = event.principal.principal_id
        return self._completed(principal, text_units(kind, event.host.name, text), scanner)

    def trailers(self, event: Event, lines: bytes, scanner: SecretScanner) -> tuple[Finding, ...]:
        """Return what trailers complete, which are a unit by themselves; else remember them."""
        found = self.text(event, "trailers", lines, scanner)
        covered = None if found else self.covered(event, scanner)
        if covered is None:
            return found
        covered.hear(lines)
        return covered.told()

    def hear(self) -> list[tuple[str, Step]]:
        """Take in what other workers have let leave; return the steps, each with whose it is."""
        steps: list[tuple[str, Step]] = []
        for principal, piece in () if self._queues is None else self._queues.heard():
            session = self._session(principal)
            if isinstance(piece, Said):
                session.covered.keep(piece.fingerprint, piece.bits)
                continue
            step = session.memory.step(piece)
            session.memory.keep(step)
            session.familiar.hear(piece)
            steps.append((principal, step))
        return steps

    def _completed(
        self, principal: str, units: Iterable[Unit], scanner: SecretScanner
    ) -> tuple[Finding, ...]:
        units = tuple(units)
        memory = self._session(principal).memory
        steps = [memory.step(unit) for unit in units]
        found = _joined(steps, scanner)
        if found:
            return found
        for step in steps:
            memory.keep(step)
        news = [step.unit for step in steps if step.is_news]
        if self._queues is None or not news:
            return ()
        for unit in news:
            self._queues.tell(principal, unit)
        # What another worker lets leave at this very time has heard nothing of it.
        return _joined([step for whose, step in self.hear() if whose == principal], scanner)

    def _told(self, principal: str, fingerprint: str, bits: int) -> None:
        if self._queues is not None:
            self._queues.tell(principal, Said(fingerprint=fingerprint, bits=bits))
            self.hear()

    def _session(self, principal: str) -> _Session:
        session = self._sessions.get(principal)
        if session is None:
            tell = None if self._queues is None else partial(self._told, principal)
            session = self._sessions[principal] = _Session(tell)
            if len(self._sessions) > _PRINCIPALS_MAX:
                self._sessions.popitem(last=False)
        self._sessions.move_to_end(principal)
        return session


def _joined(steps: Sequence[Step], scanner: SecretScanner) -> tuple[Finding, ...]:
    """Return what the pieces of steps are together that no unit says by itself."""
    joined = [one for step in steps for one in step.joined()]
    if not joined:
        return ()
    alone = b"\n".join(b" ".join(step.unit.slots) for step in steps)
    return scanner.scan_joined(joined, alone)


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
