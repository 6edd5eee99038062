"""Judge one batch: bytes in, a value out that says accept, duplicate or refuse and why.

The order is cheap before dear and certain before suspicious: size, framing,
identity, key, signature, then place in the chain, then the rows. Nothing is
believed of a batch whose signature does not hold; in particular only a batch
that the origin's own key signed can be a fork, so no stranger can put a host
into quarantine.

Rules: no I/O of its own (what is stored is asked through ``Standing``), no
clock (``now_ns`` is passed in). The words of :class:`Refusal` are API: they
stand in answers, counters and tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Protocol, assert_never

from aesp_proxy.aggregator.ports import AcceptedBatch, Identity, Notice, Origin, Role
from aesp_proxy.record.batch import (
    Limits,
    SealedBatch,
    decode_batch,
    notices_of,
    verify_envelope,
    verify_rows,
)
from aesp_proxy.record.canonical import POSITION
from aesp_proxy.record.faults import ChainError, Fault
from aesp_proxy.record.head import Head, genesis
from aesp_proxy.record.header import BatchHeader, decode_header, header_hash, signed_message
from aesp_proxy.record.keyring import KeyRing, Rotation, rotations_in
from aesp_proxy.record.signature import is_signed, key_id_of

if TYPE_CHECKING:
    from collections.abc import Sequence

CLOCK_AHEAD_NS_MAX: Final = 300 * 1_000_000_000
_TENANT: Final = POSITION["tenant_id"]


class Refusal(StrEnum):
    """Why a batch was not taken."""

    OVERSIZE = "oversize"
    CHANGED = "changed"
    NON_CANONICAL = "non_canonical"
    REORDERED = "reordered"
    MISSING = "missing"
    REPLAYED = "replayed"
    SEQ_GAP = "seq_gap"
    WRONG_KEY = "wrong_key"
    NOT_A_HOST = "not_a_host"
    OTHER_ORIGIN = "other_origin"
    UNKNOWN_ORIGIN = "unknown_origin"
    UNKNOWN_KEY = "unknown_key"
    FOREIGN_KEY = "foreign_key"
    RETIRED_KEY = "retired_key"
    BAD_SIGNATURE = "bad_signature"
    TENANT = "tenant"
    GAP = "gap"
    FORK = "fork"
    QUARANTINED = "quarantined"


_STATUS: Final = {
    Refusal.OVERSIZE: 413,
    Refusal.NOT_A_HOST: 403,
    Refusal.OTHER_ORIGIN: 403,
    Refusal.UNKNOWN_ORIGIN: 403,
    Refusal.UNKNOWN_KEY: 403,
    Refusal.FOREIGN_KEY: 403,
    Refusal.RETIRED_KEY: 403,
    Refusal.WRONG_KEY: 403,
    Refusal.TENANT: 403,
    Refusal.GAP: 409,
    Refusal.FORK: 409,
    Refusal.QUARANTINED: 409,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """To be stored, and then receipted. ``values`` are the rows in ``FIELDS`` order."""

    batch: AcceptedBatch
    values: list[list[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """Stored before, byte for byte: only the receipt is given again."""

    head: Head


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """Not taken. ``fork_of`` is, for a fork, the stored batch number it contradicts."""

    kind: Refusal
    message: str
    origin: str = ""
    batch_no: int = 0
    resume_from: int | None = None
    fork_of: int | None = None

    @property
    def status(self) -> int:
        """The HTTP status of the answer."""
        return _STATUS.get(self.kind, 422)


Judgement = Accept | Duplicate | Refuse


class Standing(Protocol):
    """What is known of origins and stored batches; answered from memory or disk."""

    def origin(self, name: str) -> Origin | None:
        """Return an enrolled origin."""

    def key_owner(self, key_id: str) -> str | None:
        """Return the origin a key is bound to."""

    def keyring(self, origin: Origin) -> KeyRing:
        """Return the keys of an origin: enrolled, then named by its own batches."""

    def head(self, name: str) -> Head | None:
        """Return the last stored batch of the origin, those of this group included."""

    def stored_hash(self, name: str, batch_no: int) -> bytes | None:
        """Return the header hash of a stored batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestLimits:
    """What one batch may cost; see ``record.batch.Limits``."""

    batch: Limits = field(default_factory=Limits)
    clock_ahead_ns_max: int = CLOCK_AHEAD_NS_MAX


def judge(
    data: bytes, *, identity: Identity, standing: Standing, limits: IngestLimits, now_ns: int
) -> Judgement:
    """Judge one encoded batch that ``identity`` has sent at ``now_ns``. Never raises for input."""
    origin_name, batch_no = "", 0
    try:
        sealed = decode_batch(data, bytes_max=limits.batch.batch_bytes_max)
        header = decode_header(sealed.header_bytes)
        origin_name, batch_no = header.origin, header.batch_no
        admitted = _admit(header, identity, standing)
        if isinstance(admitted, Refuse):
            return admitted
        origin, public_key = admitted
        head = standing.head(header.origin) or genesis(header.origin)
        if origin.quarantined_ns is not None or batch_no != head.batch_no + 1:
            return _out_of_turn(sealed, header, origin, public_key, head, standing)
        after = _verified_head(sealed, public_key, head, limits)
        _, values = verify_rows(header, sealed.body, limits=limits.batch)
        rotations = rotations_in(values, batch_no=batch_no)
    except ChainError as error:
        return _refuse_fault(error, origin_name, batch_no)
    taken = _taken_key(rotations, standing)
    if taken is not None:
        return Refuse(
            kind=Refusal.FOREIGN_KEY,
            message=f"the batch hands over to key {taken}, which is taken",
            origin=origin_name,
            batch_no=batch_no,
        )
    alien = {row[_TENANT] for row in values} - origin.tenants - {""}
    if alien:
        return Refuse(
            kind=Refusal.TENANT,
            message=f"origin {origin.name!r} does not own tenant {min(alien)!r}",
            origin=origin_name,
            batch_no=batch_no,
        )
    batch = AcceptedBatch(
        data=data,
        sealed=sealed,
        header=header,
        head=after,
        rotations=tuple(rotations),
        notices=_notices(head, header, values, limits, now_ns),
        received_ns=now_ns,
    )
    return Accept(batch=batch, values=values)


def _taken_key(rotations: Sequence[Rotation], standing: Standing) -> str | None:
    """Return a key that is named for the future but was somebody's before."""
    names = [key_id_of(rotation.public_key) for rotation in rotations]
    return next((name for name in names if standing.key_owner(name) is not None), None)


def _admit(
    header: BatchHeader, identity: Identity, standing: Standing
) -> tuple[Origin, bytes] | Refuse:
    """Say which enrolled origin and key the header is of, or why it is of none."""

    def refuse(kind: Refusal, message: str) -> Refuse:
        return Refuse(kind=kind, message=message, origin=header.origin, batch_no=header.batch_no)

    match identity.role:
        case Role.READER:
            return refuse(Refusal.NOT_A_HOST, "this certificate may read, not ship")
        case Role.HOST:
            pass
        case _:
            assert_never(identity.role)
    if identity.name != header.origin:
        return refuse(
            Refusal.OTHER_ORIGIN,
            f"the certificate is of origin {identity.name!r}, the batch of {header.origin!r}",
        )
    origin = standing.origin(header.origin)
    if origin is None:
        return refuse(Refusal.UNKNOWN_ORIGIN, f"origin {header.origin!r} is not enrolled")
    ring = standing.keyring(origin)
    try:
        return origin, ring.key_for(header.key_id, header.batch_no)
    except ChainError as error:
        if any(span.key_id == header.key_id for span in ring.spans):
            return refuse(Refusal.RETIRED_KEY, error.message)
        if standing.key_owner(header.key_id) is not None:
            return refuse(Refusal.FOREIGN_KEY, f"key {header.key_id} is another origin's")
        return refuse(Refusal.UNKNOWN_KEY, error.message)


def _out_of_turn(
    sealed: SealedBatch,
    header: BatchHeader,
    origin: Origin,
    public_key: bytes,
    head: Head,
    standing: Standing,
) -> Judgement:
    """Judge a batch that is not the next one, or comes from a quarantined origin."""

    def refuse(kind: Refusal, message: str, **more: int) -> Refuse:
        return Refuse(
            kind=kind, message=message, origin=origin.name, batch_no=header.batch_no, **more
        )

    if not _signature_holds(sealed, public_key):
        return refuse(Refusal.BAD_SIGNATURE, f"the signature of batch {header.batch_no} fails")
    # A signed header is evidence whatever body comes with it, so this stands first.
    known = (
        standing.stored_hash(origin.name, header.batch_no)
        if header.batch_no <= head.batch_no
        else None
    )
    if known is not None and known != header_hash(sealed.header_bytes):
        return refuse(
            Refusal.FORK,
            f"batch {header.batch_no} is stored with another hash: two histories",
            fork_of=header.batch_no,
        )
    if origin.quarantined_ns is not None:
        return refuse(
            Refusal.QUARANTINED,
            f"origin {origin.name!r} is in quarantine: {origin.quarantine_reason}",
        )
    if sha256(sealed.body).digest() != header.body_hash:
        return refuse(Refusal.CHANGED, f"the body of batch {header.batch_no} was changed")
    if known is not None:
        return Duplicate(head=head)
    return refuse(
        Refusal.GAP,
        f"batch {head.batch_no + 1} comes next, this is {header.batch_no}",
        resume_from=head.batch_no + 1,
    )


def _signature_holds(sealed: SealedBatch, public_key: bytes) -> bool:
    return is_signed(public_key, sealed.signature, signed_message(sealed.header_bytes))


class _BadSignatureError(ChainError):
    """The envelope's fault was its signature."""


def _verified_head(
    sealed: SealedBatch, public_key: bytes, head: Head, limits: IngestLimits
) -> Head:
    """Check signature, place, sizes and body hash of the batch that comes next."""
    try:
        _, after = verify_envelope(
            sealed, public_key=public_key, previous=head, limits=limits.batch
        )
    except ChainError as error:
        # The verifier has one word for both; asking again costs only the refused.
        if error.kind is Fault.CHANGED and not _signature_holds(sealed, public_key):
            raise _BadSignatureError(error.kind, error.message) from error
        raise
    return after


def _refuse_fault(error: ChainError, origin: str, batch_no: int) -> Refuse:
    """Say a fault that the record's own verifier found in our words."""
    if error.kind is Fault.FORKED:
        return Refuse(
            kind=Refusal.FORK,
            message=error.message,
            origin=origin,
            batch_no=batch_no,
            fork_of=batch_no - 1,
        )
    known = Refusal.__members__.get(error.kind.name, Refusal.CHANGED)
    if isinstance(error, _BadSignatureError):
        known = Refusal.BAD_SIGNATURE
    return Refuse(kind=known, message=error.message, origin=origin, batch_no=batch_no)


def _notices(
    head: Head,
    header: BatchHeader,
    values: Sequence[Sequence[Any]],
    limits: IngestLimits,
    now_ns: int,
) -> tuple[tuple[Notice, str], ...]:
    """Say what is noted about a batch that is accepted all the same."""
    found: list[tuple[Notice, str]] = []
    faults = notices_of(head, header)
    newest_ns = max(header.sealed_wall_ns, header.last_time_ns)
    ahead_ns = newest_ns - now_ns
    if ahead_ns > limits.clock_ahead_ns_max:
        found.append((Notice.CLOCK_AHEAD, f"{ahead_ns // 1_000_000_000} s ahead"))
    if Fault.CLOCK in faults:
        back_ns = head.sealed_wall_ns - header.sealed_wall_ns
        found.append((Notice.CLOCK_BACK, f"{back_ns // 1_000_000_000} s back"))
    if Fault.UNCLEAN in faults:
        found.append((Notice.UNCLEAN_RESTART, f"epoch {header.epoch}"))
    if Fault.LOST in faults:
        detail = f"{header.lost} lost, {header.dropped} dropped beside {len(values)} records"
        found.append((Notice.LOSSES, detail))
    return tuple(found)
