"""Where the log lies in the object store: static files that any web server can serve.

``log/checkpoint`` and ``log/tile/...`` are what C2SP tlog-tiles names. ``log-state/signed``
is the newest checkpoint that was ever signed, which may be ahead of the published one while
witnesses are asked. Nothing but these two is ever written again under the same name.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

from aesp_proxy.errors import InputError, RecordError, UnavailableError
from aesp_proxy.record.tlog.note import Note, parse_note
from aesp_proxy.record.tlog.tile import TILE_WIDTH, Tile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from aesp_proxy.aggregator.ports import ObjectStore

PREFIX: Final = "log/"
CHECKPOINT_KEY: Final = PREFIX + "checkpoint"
SIGNED_KEY: Final = "log-state/signed"


class LogStore:
    """Tiles, bundles and the two checkpoints of one log.

    ``held`` is asked before each write whether it is still ours to write, and ``turn`` is
    entered around each write of a checkpoint: it refuses who lost its lease, and makes who
    takes over wait for the end of the write. Tiles need no more than the first: who writes
    them late writes the same bytes.
    """

    def __init__(
        self,
        objects: ObjectStore,
        *,
        held: Callable[[], bool] = lambda: True,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._objects, self._held, self._turn = objects, held, turn

    @property
    def is_shared(self) -> bool:
        """Whether asking for an object that may not be there costs a round trip."""
        return self._objects.by_hash

    def published(self) -> Note | None:
        """Return the checkpoint that everyone sees; RecordError when it is damaged."""
        return self._note(CHECKPOINT_KEY)

    def signed(self) -> Note | None:
        """Return the newest checkpoint that was signed; RecordError when it is damaged."""
        return self._note(SIGNED_KEY)

    def keep_signed(self, note: Note) -> None:
        """Keep a checkpoint before anyone is shown it; durable on return."""
        with self._turn():
            self._put([(SIGNED_KEY, note.encode())])

    def publish(self, note: Note) -> None:
        """Show a checkpoint to everyone; durable on return."""
        with self._turn():
            self._put([(CHECKPOINT_KEY, note.encode())])

    def put(self, tiles: Sequence[tuple[Tile, bytes]]) -> None:
        """Store tiles and bundles; all are durable on return."""
        self._put([(PREFIX + tile.path, content) for tile, content in tiles])

    def read(self, tile: Tile) -> bytes:
        """Return a tile or bundle, or the full one in its place. RecordError."""
        found = self._objects.find(PREFIX + tile.path)
        if found is None and tile.width < TILE_WIDTH:
            found = self._objects.find(PREFIX + tile.whole.path)
        if found is None:
            raise RecordError("is not there", where=PREFIX + tile.path, remedy="restore the log")
        return found

    def drop_partial(self, tile: Tile, widths: Iterable[int]) -> None:
        """Remove partial tiles whose full one is there: nobody needs them any more."""
        partial = (Tile(level=tile.level, index=tile.index, width=width) for width in widths)
        self._objects.remove_all([PREFIX + tile.path for tile in partial])

    def _put(self, objects: Sequence[tuple[str, bytes]]) -> None:
        if not self._held():
            raise UnavailableError("another aggregator keeps the log now", remedy="let it")
        self._objects.put_all(objects)

    def _note(self, key: str) -> Note | None:
        data = self._objects.find(key)
        try:
            return None if data is None else parse_note(data)
        except InputError as error:
            raise RecordError(
                f"is damaged: {error.message}", where=key, remedy="restore it from a backup"
            ) from error
