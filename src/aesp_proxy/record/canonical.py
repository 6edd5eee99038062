"""The one byte form of a record: a versioned msgpack array in a fixed field order.

Rules: one record has exactly one encoding, so a hash of the bytes is a hash of
the record; a row that decodes but does not encode back to the same bytes is
refused. Integers come first, then texts, then lists, because that order can be
type-checked in three operations on the hot path. ``FIELDS`` is the table that
the documentation is generated from. A new field is a new ``VERSION``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import or_
from typing import Any, Final

import ormsgpack

from aesp_proxy.errors import InputError
from aesp_proxy.model.decision import WRAPPED, Finding, Severity
from aesp_proxy.model.record import Outcome, Record, RecordId, RecordKind

VERSION: Final = 1
RECORD_BYTES_MAX: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One position of the array: ``kind`` is uint, text, texts, pairs or findings."""

    name: str
    kind: str
    meaning: str


def _field(name: str, kind: str, meaning: str) -> Field:
    return Field(name=name, kind=kind, meaning=meaning)


FIELDS: Final[tuple[Field, ...]] = (
    _field("version", "uint", "Layout of this array; 1."),
    _field("epoch", "uint", "Life of one journal writer, counted up for ever in one state."),
    _field("seq", "uint", "Place within the epoch, from 1, without holes."),
    _field("time_ns", "uint", "UTC, nanoseconds since 1970."),
    _field("correlates_seq", "uint", "In an outcome: seq of its decision; else 0."),
    _field("target_port", "uint", "Port aimed at, or 0."),
    _field("status", "uint", "HTTP status, or 0."),
    _field("bytes_out", "uint", "Body bytes sent upstream."),
    _field("bytes_in", "uint", "Body bytes received from upstream."),
    _field("duration_us", "uint", "Microseconds from decision to outcome."),
    _field("origin", "text", "The host that wrote it."),
    _field("kind", "text", "decision, outcome or lifecycle."),
    _field("event_type", "text", "What sort of attempt (AuditEvent.event_type)."),
    _field("action", "text", "The action, such as http.post or file.open."),
    _field("outcome", "text", "SUCCESS, FAILURE or DENIED."),
    _field("verdict", "text", "deny, ask, redact, audit or allow; empty in lifecycle records."),
    _field("reason", "text", "Why, one word of a closed set."),
    _field("guard", "text", "The guard or net that decided."),
    _field("severity", "text", "info, warning, error or critical."),
    _field("message", "text", "One sentence for people."),
    _field("resource", "text", "What was aimed at, secrets masked."),
    _field("target_type", "text", "Kind of resource (SiemEvent.target_type)."),
    _field("target_host", "text", "Canonical host, or empty."),
    _field("target_path", "text", "Path of URL or file, or empty."),
    _field("principal_id", "text", "The person or service account behind the agent."),
    _field("tenant_id", "text", "Tenant, or empty."),
    _field("session_id", "text", "One run of one agent."),
    _field("agent_id", "text", "The agent."),
    _field("agent_type", "text", "What kind of agent."),
    _field("source_ip", "text", "Peer address, or empty."),
    _field("user_agent", "text", "As sent by the client, or empty."),
    _field("risk_score", "text", "Decimal text, or empty."),
    _field("policy_name", "text", "Policy that was in force."),
    _field("policy_hash", "text", "Hash of that policy."),
    _field("policy_source", "text", "File and line of the item that decided."),
    _field("event_id", "text", "Identity of the attempt."),
    _field("trace_id", "text", "Trace identity given by the caller, or empty."),
    _field("upstream_address", "text", "Address and port dialled, or empty."),
    _field("policy_violations", "texts", "Names of the violated items."),
    _field("applied_policies", "texts", "Names of the policies that applied."),
    _field("metadata", "pairs", "Key and value texts, keys ascending and unique."),
    _field(
        "findings",
        "findings",
        "rule, severity 1-4, location (`body`, or wrapped: `body > base64`), offset, masked, "
        "fingerprint.",
    ),
)

POSITION: Final = {field.name: index for index, field in enumerate(FIELDS)}
_TYPES: Final = [{"uint": int, "text": str}.get(field.kind, list) for field in FIELDS]
_KIND, _OUTCOME = POSITION["kind"], POSITION["outcome"]
_UINT_COUNT: Final = sum(field.kind == "uint" for field in FIELDS)
_VIOLATIONS, _APPLIED = POSITION["policy_violations"], POSITION["applied_policies"]
_METADATA, _FINDINGS = POSITION["metadata"], POSITION["findings"]
_KINDS: Final = {kind.value: kind for kind in RecordKind}
_OUTCOMES: Final = {outcome.value: outcome for outcome in Outcome}
_FINDING_TYPES: Final = [str, int, str, int, str, str]
_SEVERITIES: Final = frozenset(int(severity) for severity in Severity)


def encode(record: Record, record_id: RecordId) -> bytes:
    """Pack one record. InputError when a value has no canonical form or is too long."""
    return pack_row(record, record_id.origin, record_id.epoch, record_id.seq)


def pack_row(record: Record, origin: str, epoch: int, seq: int) -> bytes:
    """Pack one record under its identity; the hot path of :func:`encode`.

    InputError: a value of another type, negative, of 63 bits or more, a lone
    surrogate, duplicate metadata keys, more than ``RECORD_BYTES_MAX`` bytes.
    """
    time_ns, correlates = record.time_ns, record.correlates_seq
    port, status = record.target_port, record.status
    out, received, duration = record.bytes_out, record.bytes_in, record.duration_us
    texts = _texts(record, origin)
    lists = _EMPTY
    if record.findings or record.metadata or record.policy_violations or record.applied_policies:
        lists = _lists(record)
    numbers = (VERSION, epoch, seq, time_ns, correlates, port, status, out, received, duration)
    try:
        # Two checks in C: ``|`` keeps any sign or high bit, ``join`` refuses what is no str.
        high = (seq | time_ns | correlates | port | status | out | received | duration) >> 63
        "".join(texts)
        row = ormsgpack.packb((*numbers, *texts, *lists))
    except (TypeError, ormsgpack.MsgpackEncodeError) as error:
        raise InputError(f"a record holds a value that has no canonical form: {error}") from error
    if high:
        raise InputError("a record holds a number below 0 or of 63 bits or more")
    if len(row) > RECORD_BYTES_MAX:
        raise InputError(f"a record is {len(row)} bytes, the limit is {RECORD_BYTES_MAX}")
    return row


def _texts(record: Record, origin: str) -> tuple[str, ...]:
    return (
        origin,
        str(record.kind),  # str(): a member of an enum packs at three times the cost of its word
        record.event_type,
        record.action,
        str(record.outcome),
        record.verdict,
        record.reason,
        record.guard,
        record.severity,
        record.message,
        record.resource,
        record.target_type,
        record.target_host,
        record.target_path,
        record.principal_id,
        record.tenant_id,
        record.session_id,
        record.agent_id,
        record.agent_type,
        record.source_ip,
        record.user_agent,
        record.risk_score,
        record.policy_name,
        record.policy_hash,
        record.policy_source,
        record.event_id,
        record.trace_id,
        record.upstream_address,
    )


_EMPTY: Final[tuple[tuple[()], ...]] = ((), (), (), ())


def _lists(record: Record) -> tuple[Any, ...]:
    metadata = sorted(record.metadata)
    keys = [key for key, _ in metadata]
    if len(set(keys)) != len(keys):
        raise InputError("a record holds the same metadata key twice")
    findings = tuple(_finding_row(finding) for finding in record.findings)
    try:
        "".join((*record.policy_violations, *record.applied_policies))
        "".join(text for pair in metadata for text in pair)
    except TypeError as error:
        raise InputError(f"a list in a record holds something else than text: {error}") from error
    return (record.policy_violations, record.applied_policies, metadata, findings)


def _finding_row(finding: Finding) -> tuple[str, int, str, int, str, str]:
    where = finding.where
    texts = (finding.rule, where, finding.masked, finding.fingerprint)
    try:
        "".join(texts)
        high = finding.offset >> 63
    except TypeError as error:
        raise InputError(f"a finding holds a value of another type: {error}") from error
    if high:
        raise InputError("a finding holds an offset below 0 or of 63 bits or more")
    return (
        finding.rule,
        int(finding.severity),
        where,
        finding.offset,
        finding.masked,
        finding.fingerprint,
    )


def decode_row(data: bytes) -> list[Any]:
    """Unpack one row into the values of ``FIELDS``, in that order, fully checked.

    InputError: not msgpack, wrong length, type, version or range, or bytes that
    are not the canonical form of what they say.
    """
    if len(data) > RECORD_BYTES_MAX:
        raise InputError(f"a record is {len(data)} bytes, the limit is {RECORD_BYTES_MAX}")
    try:
        values = ormsgpack.unpackb(data)
    except (ormsgpack.MsgpackDecodeError, RecursionError) as error:
        raise InputError(f"a record is not msgpack: {error}") from error
    if type(values) is not list or list(map(type, values)) != _TYPES:
        raise InputError("a record has fields of another number or type")
    if values[0] != VERSION:
        raise InputError(f"a record has version {values[0]}, known is {VERSION}")
    if values[_KIND] not in _KINDS or values[_OUTCOME] not in _OUTCOMES:
        raise InputError("a record has an unknown kind or outcome")
    if reduce(or_, values[:_UINT_COUNT]) >> 63:
        raise InputError("a record holds a number below 0 or of 63 bits or more")
    if values[_FINDINGS] or values[_METADATA] or values[_VIOLATIONS] or values[_APPLIED]:
        _check_lists(values)
    if ormsgpack.packb(values) != data:
        raise InputError("a record is not in canonical form")
    return values


def _check_lists(values: list[Any]) -> None:
    texts = values[_VIOLATIONS] + values[_APPLIED]
    if any(type(text) is not str for text in texts):
        raise InputError("a list of names in a record holds something else")
    for pair in values[_METADATA]:
        if type(pair) is not list or list(map(type, pair)) != [str, str]:
            raise InputError("the metadata of a record are not pairs of texts")
    keys = [key for key, _ in values[_METADATA]]
    if any(left >= right for left, right in pairwise(keys)):
        raise InputError("the metadata of a record are not in canonical order")
    for row in values[_FINDINGS]:
        if type(row) is not list or list(map(type, row)) != _FINDING_TYPES:
            raise InputError("a finding in a record has fields of another number or type")
        if row[1] not in _SEVERITIES or not 0 <= row[3] < 1 << 63:
            raise InputError("a finding in a record has a value out of range")


def decode(data: bytes) -> tuple[RecordId, Record]:
    """Unpack one record. InputError when the bytes are not exactly canonical."""
    return record_of(decode_row(data))


def record_of(values: list[Any]) -> tuple[RecordId, Record]:
    """Make a record of the values that :func:`decode_row` gave."""
    named = dict(zip(POSITION, values, strict=True))
    del named["version"]
    record_id = RecordId(origin=named.pop("origin"), epoch=named.pop("epoch"), seq=named.pop("seq"))
    named["kind"] = _KINDS[named["kind"]]
    named["outcome"] = _OUTCOMES[named["outcome"]]
    named["policy_violations"] = tuple(named["policy_violations"])
    named["applied_policies"] = tuple(named["applied_policies"])
    named["metadata"] = tuple((key, value) for key, value in named["metadata"])
    named["findings"] = tuple(_finding(row) for row in named["findings"])
    return record_id, Record(**named)


def _finding(row: list[Any]) -> Finding:
    rule, severity, where, offset, masked, fingerprint = row
    location, _, via = where.partition(WRAPPED)
    return Finding(
        rule=rule,
        severity=Severity(severity),
        location=location,
        offset=offset,
        masked=masked,
        fingerprint=fingerprint,
        via=via,
    )
