"""The inclusion proof of one event, from the stored batch and the log.

The proof binds the event's exact bytes to the Merkle root in the header that its host
signed: nobody who lacks the host's key can make one, the aggregator included. And it binds
that header to the log (C2SP tlog-proof): nobody can show another history to others, the
host included.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from aesp_proxy.aggregator.export.event import proof_json
from aesp_proxy.aggregator.export.reading import BatchReader
from aesp_proxy.aggregator.log.keys import load_log_keys
from aesp_proxy.aggregator.log.prove import LogProver
from aesp_proxy.aggregator.log.store import LogStore
from aesp_proxy.aggregator.proof_check import check_proof
from aesp_proxy.aggregator.stores import open_control, open_ledger_reader, open_objects
from aesp_proxy.errors import InputError, UnavailableError
from aesp_proxy.record.header import decode_header
from aesp_proxy.record.keyring import pinned
from aesp_proxy.record.tlog.policy import policy_of
from aesp_proxy.record.tlog.proof import LogProof, verify_proof

if TYPE_CHECKING:
    from aesp_proxy.aggregator.identity import DataDir
    from aesp_proxy.aggregator.ports import BatchPlace, BatchSource, ObjectStore


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
        log_proof = _log_proof(data, ledger, objects, place)
    return {
        "id": event.id,
        "origin": origin,
        "batch": place.batch_no,
        "key_id": key_id,
        "public_key": public_key.hex(),
        **proof_json(event.sealing),
        "log": log_proof.encode().decode() if log_proof else None,
    }


def _log_proof(
    data: DataDir, ledger: BatchSource, objects: ObjectStore, place: BatchPlace
) -> LogProof | None:
    """Prove that the log holds a batch, checked; None while it does not yet."""
    try:
        prover = LogProver(ledger, LogStore(objects))
    except UnavailableError:
        return None
    proof = prover.inclusion(place)
    if proof is not None:
        verify_proof(proof, prover.leaf(place), policy_of(load_log_keys(data).public, []))
    return proof


def _parts(event_id: str) -> tuple[str, int, int]:
    origin, epoch, seq = [*event_id.split("/", 2), "", ""][:3]
    for text in (epoch, seq):
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise InputError(f"{event_id[:80]!r} is not ORIGIN/EPOCH/SEQ", where="id")
    return origin, int(epoch), int(seq)
