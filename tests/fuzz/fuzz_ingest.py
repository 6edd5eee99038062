"""Fuzz target: whatever is posted or asked is answered, and only what was signed is accepted.

The first byte chooses: a batch as it would be posted, a patch on a batch that
holds, or the parameters of a query.
"""

from __future__ import annotations

import contextlib
from functools import cache
from urllib.parse import parse_qsl

from aesp_proxy.aggregator.ingest import Accept, IngestLimits, judge
from aesp_proxy.aggregator.ports import Identity, Origin, Role
from aesp_proxy.aggregator.query import parse_cursor, parse_query
from aesp_proxy.errors import InputError
from aesp_proxy.model.record import Outcome, Record, RecordId, RecordKind
from aesp_proxy.record.batch import Limits, draft, encode_batch, seal
from aesp_proxy.record.canonical import encode
from aesp_proxy.record.head import Head, genesis
from aesp_proxy.record.keyring import KeyRing, pinned
from aesp_proxy.record.signature import Signer, key_id_of, new_private_pem, signer_from_pem

NOW_NS = 1_800_000_000_000_000_000
ORIGIN = "h-fuzz"
LIMITS = IngestLimits(batch=Limits(batch_bytes_max=65_536, inflated_bytes_max=131_072, rows_max=64))


class FindingError(AssertionError):
    """A promise that did not hold."""


@cache
def key() -> tuple[bytes, Signer]:
    """Make the origin's key, once."""
    return signer_from_pem(new_private_pem())


@cache
def whole() -> bytes:
    """Seal the batch that the patches are made on."""
    record = Record(
        kind=RecordKind.DECISION,
        time_ns=NOW_NS,
        event_type="http",
        action="http.get",
        outcome=Outcome.SUCCESS,
        verdict="allow",
        reason="allowed",
        guard="egress_allowlist",
        severity="info",
        message="m",
        resource="r",
    )
    rows = [encode(record, RecordId(origin=ORIGIN, epoch=1, seq=seq)) for seq in (1, 2, 3)]
    header = draft(
        genesis(ORIGIN),
        key_id=key_id_of(key()[0]),
        epoch=1,
        first_seq=1,
        wall_ns=NOW_NS,
        mono_ns=1,
        boot_id="b",
        first_time_ns=NOW_NS,
        last_time_ns=NOW_NS,
    )
    return encode_batch(seal(rows, header=header, sign=key()[1]))


class Standing:
    """An aggregator that knows one origin and has no batch yet."""

    def origin(self, name: str) -> Origin | None:
        """Return the one origin."""
        return Origin(name=name, enrolled_ns=1, public_key=key()[0], tenants=frozenset())

    def key_owner(self, _: str) -> None:
        """No key is another's."""

    def keyring(self, origin: Origin) -> KeyRing:
        """Return the one key."""
        return pinned(origin.public_key)

    def head(self, _: str) -> Head | None:
        """Nothing is stored."""

    def stored_hash(self, _: str, __: int) -> None:
        """Nothing is stored."""


def post(data: bytes) -> None:
    """Post; only the batch that was sealed may be accepted."""
    judged = judge(
        data,
        identity=Identity(role=Role.HOST, name=ORIGIN),
        standing=Standing(),
        limits=LIMITS,
        now_ns=NOW_NS,
    )
    if isinstance(judged, Accept) and data != whole():
        raise FindingError(data)


def patched(patch: bytes) -> bytes:
    """Give the sealed batch with bytes replaced: two of place, one of value, again and again."""
    data = bytearray(whole())
    for at in range(0, len(patch) - 2, 3):
        data[int.from_bytes(patch[at : at + 2], "big") % len(data)] = patch[at + 2]
    return bytes(data)


def fuzz_one(data: bytes) -> None:
    """Run one input; anything but an answer or an InputError is a finding."""
    match data[:1]:
        case b"\x00":
            post(data[1:])
        case b"\x01":
            post(patched(data[1:]))
        case _:
            text = data[1:].decode("utf-8", "replace")
            with contextlib.suppress(InputError):
                parse_query(dict(parse_qsl(text)), now_ns=NOW_NS)
            with contextlib.suppress(InputError):
                parse_cursor(text)
