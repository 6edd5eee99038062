"""One sink's engine: read on from its cursor, deliver, and only then move the cursor.

A step does one piece of work and says how long to wait before the next; it never
sleeps, and never raises for what a sink or a disk does, only when its turn is over. Three
lanes take turns: live records, a back-fill, and refused events that an operator wants tried again.

Rules: the cursor moves after the sink has taken the events, in one transaction with
what it refused: so a crash repeats and never skips (at least once). A sink that cannot
be reached is tried for ever; no event is given up because of time. What a sink refuses
for itself becomes a dead letter; a sink that refuses everything is taken for one that
is set up wrongly, and waited for. Dead letters are bounded, exactly: at the bound nothing
more is delivered until an operator has replayed or dropped some, and that is told. Memory:
one stored batch and one request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from aesp_proxy.aggregator.export.backoff import delay_s
from aesp_proxy.aggregator.export.event import ExportEvent
from aesp_proxy.aggregator.export.reading import BatchReader, Unreadable
from aesp_proxy.aggregator.export.sinks.port import LaterError, Outgoing, UnacceptableError
from aesp_proxy.aggregator.leases import TurnLostError
from aesp_proxy.aggregator.store.exports import BACKFILL, LIVE, Cursor, DeadLetter
from aesp_proxy.errors import AespError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aesp_proxy.aggregator.export.settings import SinkSettings
    from aesp_proxy.aggregator.export.sinks.port import Sink
    from aesp_proxy.aggregator.ports import BatchPlace, BatchSource
    from aesp_proxy.aggregator.store.exports import Exports

IDLE_S: Final = 5.0
ROUND_BATCHES: Final = 64
REFUSED_RUN_MAX: Final = 20
"""Requests of one event refused in a row before the sink itself is taken to be wrong."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """What is passed in: the time, UTC nanoseconds, and a number from 0 to 1."""

    now_ns: Callable[[], int]
    random: Callable[[], float]


@dataclass(slots=True)
class _Chunk:
    """Events on their way, what was unreadable among them, and the cursor behind them."""

    events: list[Outgoing]
    unreadable: list[DeadLetter]
    cursor: Cursor

    @property
    def count(self) -> int:
        """How many of them could become dead letters."""
        return len(self.events) + len(self.unreadable)


class Exporter:
    """Delivers to one sink; one thread at a time."""

    def __init__(
        self,
        settings: SinkSettings,
        *,
        sink: Sink,
        source: BatchSource,
        store: Exports,
        shape: Callable[[ExportEvent], Outgoing],
        chance: Chance,
    ) -> None:
        self._settings = settings
        self._name = settings.name
        self._sink = sink
        self._source = source
        self._store = store
        self._shape = shape
        self._chance = chance
        self._reader = BatchReader(source, region=settings.region, proofs=settings.proofs)
        # What became of events of the chunk that is being tried: None was taken.
        self._settled: dict[tuple[int, int], DeadLetter | None] = {}
        self._refused_run = 0
        health = store.health(settings.name)
        self._failures = health.failing
        self.is_stopped = bool(health.stopped_ns)

    def step(self) -> float:
        """Do one piece of each lane; return the seconds until the next step is worth it.

        TurnLostError when another delivers to this sink now: nothing is kept here any more.
        """
        try:
            moved = [self._lane(LIVE), self._lane(BACKFILL), self._replay()]
        except TurnLostError:
            raise
        except AespError as error:
            return self._failed(error)
        self._failures = 0
        return 0.0 if any(moved) else IDLE_S

    def _failed(self, error: AespError) -> float:
        self._failures += 1
        asked_s = error.after_s if isinstance(error, LaterError) else 0.0
        wait_s = delay_s(self._failures, chance=self._chance.random(), asked_s=asked_s)
        now_ns = self._chance.now_ns()
        log.warning("export_failed", sink=self._name, error=str(error), again_in_s=round(wait_s, 1))
        try:
            self._store.note_failure(
                self._name, str(error), now_ns=now_ns, next_try_ns=now_ns + int(wait_s * 1e9)
            )
        except AespError as unkept:
            log.warning("export_failure_not_kept", sink=self._name, error=str(unkept))
        return wait_s

    def _room(self) -> int:
        """Count how many more refused events may be kept; say when that comes to nothing."""
        most = self._settings.dead_letters_max
        room = max(0, most - self._store.dead_count(self._name))
        if self.is_stopped == (room == 0):
            return room
        self._store.note_stopped(self._name, stopped_ns=0 if room else self._chance.now_ns())
        self.is_stopped = room == 0
        if self.is_stopped:
            log.critical("export_stopped", sink=self._name, dead_letters=most)
        else:
            log.info("export_goes_on", sink=self._name)
        return room

    def _lane(self, lane: str) -> bool:
        """Deliver the next chunk of a lane; False when there was none, or no room for refusals."""
        room = self._room()
        if not room:
            return False
        cursor = self._store.cursor(self._name, lane)
        if cursor is None:
            if lane != LIVE:
                return False
            cursor = self._first_cursor()
        chunk = self._next_chunk(cursor, items_max=room)
        if chunk.cursor == cursor:
            if cursor.until_position is not None:  # nothing is left to be filled in
                ended = Cursor(position=cursor.until_position, until_position=cursor.until_position)
                self._advance(lane, ended, delivered=0, refused=[])
            return False
        refused = self._deliver_all(chunk.events)
        self._advance(
            lane,
            chunk.cursor,
            delivered=len(chunk.events) - len(refused),
            refused=[*chunk.unreadable, *refused],
        )
        return True

    def _advance(
        self, lane: str, cursor: Cursor, *, delivered: int, refused: Sequence[DeadLetter]
    ) -> None:
        self._store.advance(
            self._name,
            lane,
            cursor,
            delivered=delivered,
            refused=refused,
            now_ns=self._chance.now_ns(),
        )
        self._settled.clear()
        if refused:
            log.error(
                "export_refused",
                sink=self._name,
                dead_letters=len(refused),
                first=refused[0].event,
                reason=refused[0].reason,
            )

    def _first_cursor(self) -> Cursor:
        """Begin where the settings say; durable, so that "now" is the first start's now."""
        at_end = self._settings.start == "now"
        cursor = Cursor(position=self._source.last_position() if at_end else 0)
        self._store.begin(self._name, cursor)
        return cursor

    def _replay(self) -> bool:
        """Try refused events again that an operator has queued; False when there were none."""
        letters = self._store.dead_letters(self._name, limit=self._settings.events_max, queued=True)
        if not letters:
            return False
        events: list[Outgoing] = []
        refused: list[DeadLetter] = []
        for letter in letters:
            found = self._found(letter)
            if isinstance(found, DeadLetter):
                refused.append(found)
            else:
                events += found
        refused += self._deliver_all(events)
        kept = {(letter.position, letter.row) for letter in refused}
        done = [letter.id for letter in letters if (letter.position, letter.row) not in kept]
        self._store.settle(self._name, done, refused, now_ns=self._chance.now_ns())
        self._settled.clear()
        return True

    def _found(self, letter: DeadLetter) -> list[Outgoing] | DeadLetter:
        """Return the events of a letter, or the letter with what is wrong now."""
        places = self._source.after(letter.position - 1, limit=1)
        if not places or places[0].position != letter.position:
            return DeadLetter(
                position=letter.position,
                row=letter.row,
                event=letter.event,
                reason="the batch is not stored any more",
            )
        if letter.row >= 0:
            found = [*self._reader.events(places[0], letter.row)][:1]
        else:
            found = [*self._reader.events(places[0], 0)]
        events: list[Outgoing] = []
        for item in found:
            if isinstance(item, Unreadable):
                return _unreadable(item)
            events.append(self._shape(item))
        return events

    def _next_chunk(self, cursor: Cursor, *, items_max: int) -> _Chunk:
        """Read on from ``cursor`` until a request is full or the stored batches end.

        ``items_max``: so many, at most, may be refused or are unreadable.
        """
        chunk = _Chunk(events=[], unreadable=[], cursor=cursor)
        size_bytes = 0
        for place in self._source.after(cursor.position, limit=ROUND_BATCHES):
            until = cursor.until_position
            if until is not None and place.position > until:
                break
            row = chunk.cursor.row
            for item in self._reader.events(place, row):
                if chunk.count >= items_max:
                    chunk.cursor = _at(chunk.cursor, row=row)
                    return chunk
                if isinstance(item, Unreadable):
                    chunk.unreadable.append(_unreadable(item))
                    row += 1
                    continue
                if self._settings.wants(item.record):
                    outgoing = self._shape(item)
                    size_bytes += _size_bytes(outgoing)
                    is_over = size_bytes > self._settings.bytes_max
                    if chunk.events and (is_over or len(chunk.events) >= self._settings.events_max):
                        chunk.cursor = _at(chunk.cursor, row=row)
                        return chunk
                    chunk.events.append(outgoing)
                row += 1
            chunk.cursor = _at(chunk.cursor, position=place.position)
        return chunk

    def _deliver_all(self, events: Sequence[Outgoing]) -> list[DeadLetter]:
        """Deliver what is not settled yet; return what was refused. LaterError otherwise."""
        left = [event for event in events if _key(event) not in self._settled]
        if left:
            self._deliver(left)
        letters = [self._settled[_key(event)] for event in events]
        return [letter for letter in letters if letter is not None]

    def _deliver(self, events: Sequence[Outgoing]) -> None:
        """Deliver some events; a request that is refused as a whole is halved."""
        try:
            delivery = self._sink.deliver(events)
        except UnacceptableError as error:
            if len(events) > 1:
                middle = len(events) // 2
                self._deliver(events[:middle])
                self._deliver(events[middle:])
                return
            self._refuse_alone(events[0], str(error))
            return
        for index, event in enumerate(events):
            if index in delivery.refused:
                self._settled[_key(event)] = _letter(event, delivery.refused[index])
            elif index not in delivery.later:
                self._settled[_key(event)] = None
                self._refused_run = 0
        if delivery.later:
            reason = next(iter(delivery.later.values()))
            raise LaterError(f"{len(delivery.later)} events: {reason}", after_s=delivery.after_s)

    def _refuse_alone(self, event: Outgoing, reason: str) -> None:
        """Take one event for refused, unless everything has been for a while."""
        self._refused_run += 1
        if self._refused_run > REFUSED_RUN_MAX:
            self._refused_run = 0
            kept = {key: letter for key, letter in self._settled.items() if letter is None}
            self._settled = dict[tuple[int, int], DeadLetter | None](kept)
            raise LaterError(f"it refuses everything, last with: {reason}")
        self._settled[_key(event)] = _letter(event, reason)


def _at(cursor: Cursor, *, position: int | None = None, row: int = 0) -> Cursor:
    return Cursor(
        position=cursor.position if position is None else position,
        row=row,
        until_position=cursor.until_position,
    )


def _key(outgoing: Outgoing) -> tuple[int, int]:
    return outgoing.event.position, outgoing.event.row


def _letter(outgoing: Outgoing, reason: str) -> DeadLetter:
    position, row = _key(outgoing)
    return DeadLetter(position=position, row=row, event=outgoing.id, reason=reason)


def _unreadable(item: Unreadable) -> DeadLetter:
    place: BatchPlace = item.place
    name = f"{place.origin} batch {place.batch_no}"
    shown = name if item.row < 0 else f"{place.origin}/{place.epoch}/{place.first_seq + item.row}"
    return DeadLetter(position=place.position, row=item.row, event=shown, reason=item.reason)


def _size_bytes(outgoing: Outgoing) -> int:
    # What JSON makes of it within a quarter, at a tenth of the price of packing it twice.
    return len(str(outgoing.body))
