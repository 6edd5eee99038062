"""Reads and checks the proof of one event, without network, stores or trust in who gave it.

Rules: nothing in the proof is believed but what a signature or a hash path binds to a key that
the caller knows; the key that the proof itself carries proves that it is whole, and not whose
record it is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aesp_proxy.aggregator.export.event import Sealing
from aesp_proxy.errors import InputError, TrustError
from aesp_proxy.record.canonical import decode
from aesp_proxy.record.header import decode_header, signed_message
from aesp_proxy.record.merkle import leaf_hash, verify_inclusion
from aesp_proxy.record.signature import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, is_signed, key_id_of
from aesp_proxy.record.tlog.proof import parse_proof, verify_proof

if TYPE_CHECKING:
    from aesp_proxy.model.record import Record, RecordId
    from aesp_proxy.record.tlog.policy import Accepted, LogPolicy
    from aesp_proxy.record.tlog.proof import LogProof

PROOF_BYTES_MAX: Final = 1 << 20
_PATH_MAX: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class EventProof:
    """A proof as it was read, unverified; ``log`` is None where it has none."""

    sealing: Sealing
    public_key: bytes
    log: LogProof | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvedEvent:
    """What a proof proves: the record, the batch, and the checkpoint of the log that holds it."""

    record_id: RecordId
    record: Record
    batch_no: int
    key_id: str
    log_index: int = 0
    log: Accepted | None = None


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


def read_event_proof(data: bytes) -> EventProof:
    """Read what ``aggregator proof`` prints, unverified. InputError when it is none."""
    if len(data) > PROOF_BYTES_MAX:
        raise InputError(f"the proof has {len(data)} bytes")
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError("the proof is not JSON") from error
    if not isinstance(said, dict):
        raise InputError("the proof is no JSON object")
    path = said.get("path")
    if not isinstance(path, list) or len(path) > _PATH_MAX:
        raise InputError("the proof has no path, or too long a one")
    log = said.get("log")
    if log is not None and not isinstance(log, str):
        raise InputError("the proof of the log is no text")
    return EventProof(
        sealing=Sealing(
            header=_hex(said.get("header"), "header"),
            signature=_hex(said.get("signature"), "signature", SIGNATURE_BYTES),
            leaf_index=_count(said.get("leaf_index"), "leaf_index"),
            tree_size=_count(said.get("tree_size"), "tree_size"),
            path=tuple(_hex(node, "path") for node in path),
            row=_hex(said.get("record"), "record"),
        ),
        public_key=_hex(said.get("public_key"), "public_key", PUBLIC_KEY_BYTES),
        log=parse_proof(log.encode()) if log is not None else None,
    )


def verify_event_proof(
    proof: EventProof, *, public_key: bytes | None, policy: LogPolicy | None
) -> ProvedEvent:
    """Check a proof against the host's key, where it is known, and a policy for the log.

    TrustError for whatever does not hold, a proof without the log where a policy is given
    included; ChainError (a TrustError) for bytes that are no header or record.
    """
    sealing = proof.sealing
    if public_key is not None and public_key != proof.public_key:
        raise TrustError("the batch is signed by another key than the one given")
    check_proof(sealing, public_key=proof.public_key)
    header = decode_header(sealing.header)
    record_id, record = decode(sealing.row)
    expected = (header.origin, header.epoch, header.first_seq + sealing.leaf_index)
    if (record_id.origin, record_id.epoch, record_id.seq) != expected:
        raise TrustError("the record has not the place that its batch gives it")
    log = None
    if policy is not None:
        if proof.log is None:
            raise TrustError("the log did not hold this batch yet when the proof was made")
        log = verify_proof(proof.log, sealing.header + sealing.signature, policy)
    return ProvedEvent(
        record_id=record_id,
        record=record,
        batch_no=header.batch_no,
        key_id=key_id_of(proof.public_key),
        log_index=proof.log.index if proof.log else 0,
        log=log,
    )


def check_names(proved: ProvedEvent, event_id: str, batch_no: int | None) -> None:
    """Check that a proof is of the event that was asked for. TrustError when of another."""
    if str(proved.record_id) != event_id:
        raise TrustError(f"the proof is of {proved.record_id}", where=event_id)
    if batch_no not in (None, proved.batch_no):
        raise TrustError(
            f"the record stands in batch {proved.batch_no}, the event says {batch_no}",
            where=event_id,
        )


def _hex(text: object, name: str, size: int | None = None) -> bytes:
    try:
        data = bytes.fromhex(text) if isinstance(text, str) else None
    except ValueError:
        data = None
    if data is None or (size is not None and len(data) != size):
        raise InputError("is not what it should be", where=name)
    return data


def _count(value: Any, name: str) -> int:  # noqa: ANN401 - JSON
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise InputError("is not a count", where=name)
    return value
