"""Which key may sign which batches of an origin, and how one key hands over to the next.

Rules: a key is known because it was pinned, or because a record in a batch
signed by its predecessor names it and the batch from which it holds, which is
the very next one. A retired key signs nothing more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from aesp_proxy.model.record import Outcome, Record, RecordKind
from aesp_proxy.record.canonical import POSITION
from aesp_proxy.record.faults import ChainError, Fault
from aesp_proxy.record.signature import PUBLIC_KEY_BYTES, key_id_of

ROTATION_EVENT: Final = "audit.key_rotated"
_EVENT_TYPE, _KIND = POSITION["event_type"], POSITION["kind"]
_METADATA: Final = POSITION["metadata"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySpan:
    """One key of one origin: ``to_batch`` 0 means that it still holds."""

    public_key: bytes
    from_batch: int = 1
    to_batch: int = 0

    @property
    def key_id(self) -> str:
        """The key's name."""
        return key_id_of(self.public_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRing:
    """The keys of one origin, in the order in which they held."""

    spans: tuple[KeySpan, ...] = ()

    def key_for(self, key_id: str, batch_no: int) -> bytes:
        """Give the raw public key for a batch. ChainError(WRONG_KEY) when none may sign it."""
        spans = [span for span in self.spans if span.key_id == key_id]
        if not spans:
            raise ChainError(Fault.WRONG_KEY, f"batch {batch_no} is signed by unknown key {key_id}")
        for span in spans:
            if span.from_batch <= batch_no and (not span.to_batch or batch_no <= span.to_batch):
                return span.public_key
        raise ChainError(
            Fault.WRONG_KEY, f"key {key_id} is retired or not yet valid at batch {batch_no}"
        )

    def rotated(self, rotation: Rotation) -> KeyRing:
        """Give the ring after one rotation; the keys that held end where the new one begins."""
        ended = tuple(
            span if span.to_batch else replace(span, to_batch=rotation.from_batch - 1)
            for span in self.spans
            if span.key_id != key_id_of(rotation.public_key)
        )
        begun = KeySpan(public_key=rotation.public_key, from_batch=rotation.from_batch)
        return KeyRing(spans=(*ended, begun))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """A new key and the first batch that it signs."""

    public_key: bytes
    from_batch: int


def pinned(public_key: bytes) -> KeyRing:
    """Give a ring of one key that holds from the first batch."""
    return KeyRing(spans=(KeySpan(public_key=public_key),))


def rotation_record(rotation: Rotation, *, old_key_id: str, time_ns: int) -> Record:
    """Make the record in which the old key names the new one."""
    new_key_id = key_id_of(rotation.public_key)
    return Record(
        kind=RecordKind.LIFECYCLE,
        time_ns=time_ns,
        event_type=ROTATION_EVENT,
        action="audit.rotate_key",
        outcome=Outcome.SUCCESS,
        verdict="",
        reason="",
        guard="",
        severity="info",
        message=f"key {old_key_id} hands over to {new_key_id} from batch {rotation.from_batch}",
        resource=new_key_id,
        metadata=(
            ("from_batch", str(rotation.from_batch)),
            ("public_key", rotation.public_key.hex()),
        ),
    )


def rotations_in(values: Iterable[list[Any]], *, batch_no: int) -> list[Rotation]:
    """Read the rotations from the verified rows of a batch.

    ChainError(WRONG_KEY) for one that does not begin at the very next batch.
    """
    return [
        _read(dict(row[_METADATA]), batch_no)
        for row in values
        if row[_EVENT_TYPE] == ROTATION_EVENT and row[_KIND] == "lifecycle"
    ]


def _read(metadata: dict[str, str], batch_no: int) -> Rotation:
    try:
        public_key = bytes.fromhex(metadata["public_key"])
        from_batch = int(metadata["from_batch"])
    except (KeyError, ValueError) as error:
        raise ChainError(Fault.WRONG_KEY, "a key rotation is not readable") from error
    if len(public_key) != PUBLIC_KEY_BYTES or from_batch != batch_no + 1:
        raise ChainError(Fault.WRONG_KEY, "a key rotation does not begin at the next batch")
    return Rotation(public_key=public_key, from_batch=from_batch)
