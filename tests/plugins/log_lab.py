"""A log under test: a shelf of batches for a ledger, and objects whose writes fail as told."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from aesp_proxy.aggregator.log.integrate import Integrator
from aesp_proxy.aggregator.log.keys import LogKeys
from aesp_proxy.aggregator.log.prove import LogProver, watch_answer
from aesp_proxy.aggregator.log.store import SIGNED_KEY, LogStore
from aesp_proxy.aggregator.ports import BatchPlace, SignedHeader
from aesp_proxy.errors import RecordError
from aesp_proxy.forward.transport import Answer
from aesp_proxy.record.header import BatchHeader, encode_header, header_hash, signed_message
from aesp_proxy.record.merkle import EMPTY_ROOT, leaf_hashes, root
from aesp_proxy.record.signature import key_id_of, signer_from_seed
from aesp_proxy.record.tlog.checkpoint import parse_checkpoint
from aesp_proxy.record.tlog.key_list import sign_key_list
from aesp_proxy.record.tlog.note import (
    KeyType,
    Note,
    SigningNoteKey,
    parse_note,
    sign_text,
    signing_key,
)
from aesp_proxy.record.tlog.policy import policy_of
from aesp_proxy.record.tlog.tile import Tile, split_entries, split_hashes

KEY = signing_key("agg.example/log", KeyType.ED25519, b"\x01" * 32)
KEYS = LogKeys(signing=(KEY,))
HOST_KEY, HOST_SIGN = signer_from_seed(b"\x07" * 32)


def signed_header(position: int, origin: str, batch_no: int, *, salt: int = 0) -> SignedHeader:
    """Make what a ledger holds of a batch."""
    header = encode_header(
        BatchHeader(
            origin=origin,
            epoch=0,
            key_id=key_id_of(HOST_KEY),
            batch_no=batch_no,
            prev_hash=bytes(32),
            first_seq=0,
            count=0,
            first_time_ns=0,
            last_time_ns=0,
            sealed_wall_ns=salt,
            sealed_mono_ns=1,
            boot_id="boot",
            root=EMPTY_ROOT,
            body_bytes=0,
            inflated_bytes=0,
            body_hash=bytes(32),
        )
    )
    place = BatchPlace(
        position=position,
        origin=origin,
        batch_no=batch_no,
        epoch=0,
        first_seq=0,
        count=0,
        header_hash=header_hash(header),
        received_ns=1,
    )
    return SignedHeader(place=place, header=header, signature=HOST_SIGN(signed_message(header)))


@dataclass
class Shelf:
    """The reading side of a ledger, in memory."""

    batches: list[SignedHeader] = field(default_factory=list)
    gap: int = 1
    """How far positions are from each other."""

    def add(self, count: int, *, origin: str = "h-one", salt: int = 0) -> None:
        """Accept so many more batches."""
        for _ in range(count):
            known = sum(item.place.origin == origin for item in self.batches[-1:])
            last = self.batches[-1].place if self.batches else None
            number = last.batch_no + 1 if last and known else self._next_no(origin)
            position = (last.position if last else 0) + self.gap
            self.batches.append(signed_header(position, origin, number, salt=salt))

    def _next_no(self, origin: str) -> int:
        return 1 + sum(item.place.origin == origin for item in self.batches)

    def headers_after(self, position: int, *, limit: int) -> list[SignedHeader]:
        """Return batches after a position."""
        return [item for item in self.batches if item.place.position > position][:limit]

    def find(self, origin: str, batch_no: int) -> BatchPlace | None:
        """Return where a batch is."""
        for item in self.batches:
            if (item.place.origin, item.place.batch_no) == (origin, batch_no):
                return item.place
        return None

    @property
    def leaves(self) -> list[bytes]:
        """What the log should hold."""
        return [item.header + item.signature for item in self.batches]


@dataclass
class Objects:
    """An object store in memory; ``fault`` may fail a write, before, after or half way."""

    by_hash = False

    kept: dict[str, bytes] = field(default_factory=dict)
    fault: Callable[[int], str] = lambda _: ""
    writes: int = 0
    signed: list[bytes] = field(default_factory=list)

    def put_all(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Store all, or fail as told: ``not done``, ``done``, ``torn``."""
        self.writes += 1
        how = self.fault(self.writes)
        count = {"not done": 0, "torn": len(objects) // 2}.get(how, len(objects))
        for key, content in objects[:count]:
            self.kept[key] = content
            if key == SIGNED_KEY:
                self.signed.append(content)
        if how:
            raise RecordError(f"made to fail: {how}")

    def get(self, key: str) -> bytes:
        """Return one object."""
        return self.kept[key]

    def find(self, key: str) -> bytes | None:
        """Return one object, if it is there."""
        return self.kept.get(key)

    def remove_all(self, keys: Sequence[str]) -> int:
        """Delete what is there."""
        return sum(self.kept.pop(key, None) is not None for key in keys)


def integrator(shelf: Any, objects: Any, keys: LogKeys = KEYS) -> Integrator:
    """Start an integrator, as a new process would."""
    made = Integrator(ledger=shelf, store=LogStore(objects), keys=keys)
    made.start()
    return made


def assert_provable(objects: Objects, leaves: Sequence[bytes], keys: LogKeys = KEYS) -> int:
    """Ask that every checkpoint is that of a beginning of ``leaves``, all of it in the tiles.

    Gives the size of the newest that was signed.
    """
    policy = policy_of(keys.public, [])
    sizes = [0]
    for note in map(parse_note, [*objects.signed, *filter(None, [objects.find("log/checkpoint")])]):
        checkpoint = policy.accept(note).checkpoint
        assert checkpoint.root == root(leaf_hashes(leaves[: checkpoint.size]))
        sizes.append(checkpoint.size)
    kept = objects.find(SIGNED_KEY)
    size = parse_checkpoint(parse_note(kept).text).size if kept else 0
    assert size == max(sizes), "a checkpoint that was signed is forgotten"
    hashes, entries = [], []
    store = LogStore(objects)
    for first in range(0, size, 256):
        width = min(256, size - first)
        hashes += split_hashes(store.read(Tile(level=0, index=first // 256, width=width)), width)
        bundle = store.read(Tile(level=None, index=first // 256, width=width))
        entries += split_entries(bundle, width)
    assert entries == list(leaves[:size])
    assert hashes == leaf_hashes(entries)
    return size


RECEIPT_KEY, RECEIPT_SIGN = signer_from_seed(b"\x0c" * 32)


@dataclass
class Region:
    """An aggregator as a host's watch sees it: a shelf, its log, and what it answers."""

    shelf: Shelf = field(default_factory=Shelf)
    objects: Objects = field(default_factory=Objects)
    keys: LogKeys = KEYS
    status: int = 200
    cosigners: Sequence[SigningNoteKey] = ()

    def accept(self, count: int = 1, **more: Any) -> None:
        """Accept and log so many more batches."""
        self.shelf.add(count, **more)
        self.log()

    def log(self) -> None:
        """Log what is on the shelf."""
        made = integrator(self.shelf, self.objects, self.keys)
        while made.step():
            pass
        text = made.note.text
        lines = [sign_text(text, key, time_s=1) for key in self.cosigners]
        note = Note(text=text, signatures=(*made.note.signatures, *lines))
        LogStore(self.objects).publish(note)

    def rewrite(self, at: int) -> None:
        """Make another history from batch ``at`` on, and a log of it, as if it was always so."""
        origins = [item.place.origin for item in self.shelf.batches[at:]]
        del self.shelf.batches[at:]
        for origin in origins:
            self.shelf.add(1, origin=origin, salt=9)
        self.objects = Objects()
        self.log()

    def get(self, name: str, origin: str = "h-one") -> Answer:
        """Answer as ``GET /v1/log/proof`` does."""
        asked = dict(parse_qsl(name.partition("?")[2]))
        prover = LogProver(self.shelf, LogStore(self.objects))
        place = self.shelf.find(origin, int(asked["batch"]))
        listed = sign_key_list(self.keys.public, public_key=RECEIPT_KEY, sign=RECEIPT_SIGN)
        said = watch_answer(prover, place, int(asked["since"]), listed)
        return Answer(status=self.status, body=json.dumps(said).encode())
