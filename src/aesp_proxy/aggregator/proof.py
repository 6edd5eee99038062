"""The inclusion proof of one event, from the stored batch, and its check.

The proof binds the event's exact bytes to the Merkle root in the header that its host
signed: nobody who lacks the host's key can make one, the aggregator included.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from aesp_proxy.aggregator.export.event import proof_json
from aesp_proxy.aggregator.export.reading import BatchReader
from aesp_proxy.aggregator.stores import open_control, open_ledger_reader, open_objects
from aesp_proxy.errors import InputError, TrustError
from aesp_proxy.record.header import decode_header, signed_message
from aesp_proxy.record.keyring import pinned
from aesp_proxy.record.merkle import leaf_hash, verify_inclusion
from aesp_proxy.record.signature import is_signed

if TYPE_CHECKING:
    from aesp_proxy.aggregator.export.event import Sealing
    from aesp_proxy.aggregator.identity import DataDir


def event_proof(data: DataDir, event_id: str) -> dict[str, Any]:
    """Return the proof of the event ``ORIGIN/EPOCH/SEQ``, checked before it is given.

    InputError for an id that is none or names no stored event; TrustError when what is
    stored does not hold.
    """
    origin, epoch, seq = _parts(event_id)
    with ExitStack() as stack:
        objects = open_objects(data)
        stack.callback(objects.close)
        ledger = open_ledger_reader(data, objects)
        stack.callback(ledger.close)
        control = open_control(data)
        stack.callback(control.close)
        place = ledger.holding(origin, epoch, seq)
        enrolled = control.origin(origin)
        if place is None or enrolled is None:
            raise InputError("names no stored event", where=event_id)
        event = BatchReader(ledger, proofs=True).event(place, seq - place.first_seq)
        ring = pinned(enrolled.public_key)
        for rotation in ledger.rotations(origin):
            ring = ring.rotated(rotation)
        if event.sealing is None:
            raise InputError("carries no proof", where=event_id)
        key_id = decode_header(event.sealing.header).key_id
        public_key = ring.key_for(key_id, place.batch_no)
        check_proof(event.sealing, public_key=public_key)
    return {
        "id": event.id,
        "origin": origin,
        "batch": place.batch_no,
        "key_id": key_id,
        "public_key": public_key.hex(),
        **proof_json(event.sealing),
    }


def check_proof(sealing: Sealing, *, public_key: bytes) -> None:
    """Check a proof against the host's public key (32 raw bytes); TrustError when it fails."""
    header = decode_header(sealing.header)
    if not is_signed(public_key, sealing.signature, signed_message(sealing.header)):
        raise TrustError("the signature over the batch's header fails")
    included = verify_inclusion(
        leaf_hash(sealing.row), sealing.leaf_index, header.count, sealing.path, header.root
    )
    if not included or sealing.tree_size != header.count:
        raise TrustError("the record is not in the batch that the header signs")


def _parts(event_id: str) -> tuple[str, int, int]:
    origin, epoch, seq = [*event_id.split("/", 2), "", ""][:3]
    for text in (epoch, seq):
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise InputError(f"{event_id[:80]!r} is not ORIGIN/EPOCH/SEQ", where="id")
    return origin, int(epoch), int(seq)
