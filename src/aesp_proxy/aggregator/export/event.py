"""One record on its way out: the record, where it stands, and what every format says of it.

Rules: pure; an event says nothing that its record does not say, and the place
(origin, epoch, seq, batch) always; empty values are left out; the identity is
the record's own, so that a receiver can drop what it has seen before.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from aesp_proxy.model.decision import Severity, Verdict
from aesp_proxy.model.record import Record, RecordId, RecordKind

VENDOR: Final = "AESP"
PRODUCT: Final = "AESP Proxy"
_UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """How the batch of a record was sealed: what a proof of it starts from.

    ``header`` and ``signature`` are the batch's own bytes; ``path`` the hashes from
    the record's leaf to the Merkle root in the header, nearest first; ``row`` the
    record's own bytes, which are the leaf.
    """

    header: bytes
    signature: bytes
    leaf_index: int
    tree_size: int
    path: tuple[bytes, ...]
    row: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportEvent:
    """A record with its place; ``position`` and ``row`` are the aggregator's own count."""

    record: Record
    record_id: RecordId
    batch_no: int
    position: int
    row: int
    region: str = ""
    sealing: Sealing | None = None

    @property
    def id(self) -> str:
        """The identity, the same at every delivery: ``ORIGIN/EPOCH/SEQ``."""
        return str(self.record_id)


def place_of(event: ExportEvent) -> dict[str, Any]:
    """Return origin, epoch, seq and batch, and the proof where the event carries one."""
    place: dict[str, Any] = {
        "id": event.id,
        "origin": event.record_id.origin,
        "epoch": event.record_id.epoch,
        "seq": event.record_id.seq,
        "batch": event.batch_no,
    }
    if event.sealing is not None:
        place["proof"] = proof_json(event.sealing)
    return place


def proof_json(sealing: Sealing) -> dict[str, Any]:
    """Return a proof as JSON values; every byte string in hexadecimal."""
    return {
        "leaf_index": sealing.leaf_index,
        "tree_size": sealing.tree_size,
        "path": [node.hex() for node in sealing.path],
        "record": sealing.row.hex(),
        "header": sealing.header.hex(),
        "signature": sealing.signature.hex(),
    }


def details_of(event: ExportEvent) -> dict[str, Any]:
    """Return what the record says and formats have no field for, under one name each."""
    record = event.record
    return pruned(
        {
            **place_of(event),
            "kind": record.kind.value,
            "event_type": record.event_type,
            "action": record.action,
            "verdict": record.verdict,
            "reason": record.reason,
            "guard": record.guard,
            "severity": record.severity,
            "message": record.message,
            "trace_id": record.trace_id,
            "resource": record.resource,
            "target_type": record.target_type,
            "target_host": record.target_host,
            "target_path": record.target_path,
            "agent_id": record.agent_id,
            "agent_type": record.agent_type,
            "session_id": record.session_id,
            "tenant_id": record.tenant_id,
            "region": event.region,
            "policy_source": record.policy_source,
            "policy_violations": list(record.policy_violations),
            "applied_policies": list(record.applied_policies),
            "attempt_id": record.event_id,
            "correlates": correlated_id(event),
            "upstream_address": record.upstream_address,
            "risk_score": record.risk_score,
            "metadata": dict(record.metadata),
            "findings": [
                {
                    "rule": finding.rule,
                    "severity": finding.severity.word,
                    "where": finding.where,
                    "offset": finding.offset,
                    "masked": finding.masked,
                    "fingerprint": finding.fingerprint,
                }
                for finding in record.findings
            ],
        }
    )


def correlated_id(event: ExportEvent) -> str:
    """Return the identity of the decision that an outcome belongs to, else nothing."""
    if not event.record.correlates_seq:
        return ""
    origin, epoch = event.record_id.origin, event.record_id.epoch
    return str(RecordId(origin=origin, epoch=epoch, seq=event.record.correlates_seq))


def pruned(values: dict[str, Any]) -> dict[str, Any]:
    """Return ``values`` without what is empty, at every depth; 0 and False stay."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        shown = pruned(value) if isinstance(value, dict) else value
        if shown is not None and shown not in ("", {}, [], ()):
            kept[name] = shown
    return kept


def passed(record: Record) -> bool:
    """Whether the attempt went on, masked or not; a lifecycle record has nothing to refuse."""
    if record.kind is RecordKind.LIFECYCLE:
        return True
    return record.verdict in {Verdict.ALLOW, Verdict.AUDIT, Verdict.REDACT}


def severity_of(record: Record) -> Severity:
    """Return the severity; a word nobody knows counts as a warning."""
    by_word = {severity.word: severity for severity in Severity}
    return by_word.get(record.severity, Severity.WARNING)


def method_of(record: Record) -> str:
    """Return the HTTP method in upper case, nothing for what is no HTTP."""
    family, _, name = record.action.partition(".")
    return name.upper() if family == "http" else ""


def address_of(text: str) -> str:
    """Return ``text`` when it is an IP address, without a scope, else nothing."""
    try:
        return str(ip_address(text.partition("%")[0]))
    except ValueError:
        return ""


def upstream_ip(record: Record) -> str:
    """Return the address that was dialled, without its port."""
    host, colon, _ = record.upstream_address.rpartition(":")
    bare = host if colon else record.upstream_address
    return address_of(bare.removeprefix("[").removesuffix("]"))


def scheme_of(record: Record) -> str:
    """Return ``http`` or ``https`` of a URL, nothing for another resource."""
    try:
        scheme = urlsplit(record.resource).scheme
    except ValueError:
        return ""
    return scheme if scheme in {"http", "https"} else ""


def file_name(path: str) -> str:
    """Return the last part of a path, the path itself where it has none."""
    return path.rstrip("/").rpartition("/")[2] or path or _UNKNOWN
