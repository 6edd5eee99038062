"""One line of the audit record, before it is numbered and signed.

The fields cover AuditEvent of the AESP specification and SiemEvent of the
deployment specification. Nothing here may hold a secret: values are masked
before a record is made. The event's identity is (origin, epoch, seq), given by
the journal; there are no random ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from aesp_proxy.model.decision import Finding, Reason

CONTENT_KEY: Final = "content"
"""The key of ``metadata`` under which a connection that nobody read says so, with one of:"""
NOT_READ_RAW: Final = "not read: neither TLS nor HTTP"
NOT_READ_SEALED: Final = "not read: TLS passed through by the operator's setting"


class RecordKind(StrEnum):
    """A decision is written before its effect, an outcome after it."""

    DECISION = "decision"
    OUTCOME = "outcome"
    LIFECYCLE = "lifecycle"


class Outcome(StrEnum):
    """The AuditEvent outcome."""

    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DENIED = "DENIED"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordId:
    """Where a record stands: unique for ever, and its own correlation id."""

    origin: str
    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.origin}/{self.epoch}/{self.seq}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an allowed attempt came off: the facts of its outcome record.

    ``status`` is the HTTP status or 0; ``bytes_out``/``bytes_in`` count body bytes
    to and from upstream; ``detail`` says what went wrong, where something did.
    """

    reason: Reason = Reason.ALLOWED
    status: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    upstream_address: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What one record says.

    ``time_ns`` is UTC nanoseconds. ``correlates_seq`` is, in an outcome, the
    seq of its decision in the same epoch, else 0. ``status`` is the HTTP status
    or 0; ``bytes_out``/``bytes_in`` count body bytes to and from upstream;
    ``duration_us`` is microseconds from decision to outcome. ``metadata`` is
    sorted by key.
    """

    kind: RecordKind
    time_ns: int
    event_type: str
    action: str
    outcome: Outcome
    verdict: str
    reason: str
    guard: str
    severity: str
    message: str
    resource: str
    target_type: str = ""
    target_host: str = ""
    target_port: int = 0
    target_path: str = ""
    principal_id: str = ""
    tenant_id: str = ""
    session_id: str = ""
    agent_id: str = ""
    agent_type: str = ""
    source_ip: str = ""
    user_agent: str = ""
    risk_score: str = ""
    policy_name: str = ""
    policy_hash: str = ""
    policy_source: str = ""
    policy_violations: tuple[str, ...] = ()
    applied_policies: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    event_id: str = ""
    trace_id: str = ""
    correlates_seq: int = 0
    status: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    duration_us: int = 0
    upstream_address: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
