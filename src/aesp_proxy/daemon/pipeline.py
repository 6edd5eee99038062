"""The flow on one page: event, decision, record, and only then the effect.

1. An interceptor hands over an event (or bytes that are none).
2. ``decide`` answers; names that disagree are refused before it is asked.
3. The decision is written to the journal. If that fails, the answer is no.
4. The interceptor is told, and acts.
5. Streams are scanned as they flow; a finding is a new decision on the event.
6. The outcome is a second record.

Net 3: whatever fails between 1 and 4 is a denial (``record_failed`` or
``engine_failed``). All of it is synchronous and in the worker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from aesp_proxy.act.denial import Denial
from aesp_proxy.decide.engine import address_decision, content_decision, decide
from aesp_proxy.decide.secrets.body import BodyScan, Release, StreamPolicy
from aesp_proxy.decide.snapshot import Snapshot
from aesp_proxy.errors import InputError, RecordError
from aesp_proxy.intercept.port import Address
from aesp_proxy.model.decision import Decision, Finding, Reason, Severity, Verdict
from aesp_proxy.model.event import EgressConnect, EgressRequest
from aesp_proxy.model.host import Host
from aesp_proxy.model.principal import Principal
from aesp_proxy.model.record import Ending, Record, RecordId
from aesp_proxy.normalize.http import Tunnel, name_mismatch
from aesp_proxy.normalize.http_head import Headers
from aesp_proxy.record.compose import decision_record, outcome_record, refusal_record

_DO_NOT_RETRY = "Do not retry: the same request will be refused again."
_NOT_RECORDED = "not-recorded"


class Recorder(Protocol):
    """The journal: on return the record survives a killed process."""

    def append(self, record: Record) -> RecordId:
        """Write one record; raises ``RecordError`` when it cannot be made durable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanLimits:
    """How bodies are scanned: bytes held back, and what a compressed body may become."""

    window_bytes: int = 1_100
    inflated_bytes_max: int = 64 * 1024 * 1024
    inflate_ratio_max: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who the agent of this worker is; the peer address is added per connection."""

    principal_id: str
    agent_id: str
    agent_type: str
    session_id: str
    tenant_id: str = ""


class Pipeline:
    """Decides and records for the interceptors of one worker.

    ``snapshot`` is replaced by one assignment on reload; ``wall_ns`` and
    ``monotonic_ns`` are clocks in nanoseconds.
    """

    def __init__(
        self,
        *,
        snapshot: Snapshot,
        journal: Recorder,
        identity: Identity,
        scan: ScanLimits,
        wall_ns: Callable[[], int],
        monotonic_ns: Callable[[], int],
    ) -> None:
        self.snapshot = snapshot
        self._journal = journal
        self._identity = identity
        self.scan = scan
        self._monotonic_ns = monotonic_ns
        self.now_ns = wall_ns
        self._principals: dict[str, Principal] = {}

    def principal(self, source_ip: str) -> Principal:
        """Say who is behind a client connection."""
        known = self._principals.get(source_ip)
        if known is None:
            who = self._identity
            known = Principal(
                principal_id=who.principal_id,
                agent_id=who.agent_id,
                agent_type=who.agent_type,
                session_id=who.session_id,
                tenant_id=who.tenant_id,
                source_ip=source_ip,
            )
            if len(self._principals) < 1_000:  # peers are loopback addresses: few
                self._principals[source_ip] = known
        return known

    def connect(self, principal: Principal, host: Host, port: int) -> EventExchange:
        """Decide a CONNECT."""
        event = EgressConnect(
            event_id="", time_ns=self.now_ns(), principal=principal, host=host, port=port
        )
        return self._decided(event, "")

    def request(self, event: EgressRequest, tunnel: Tunnel | None) -> EventExchange:
        """Decide a request, its head complete."""
        return self._decided(event, name_mismatch(event, tunnel))

    def _decided(self, event: EgressConnect | EgressRequest, mismatch: str) -> EventExchange:
        snapshot = self.snapshot
        try:
            decision = (
                self.refusal(Reason.NAME_MISMATCH, f"the names disagree: {mismatch}")
                if mismatch
                else decide(event, snapshot)
            )
        except Exception as error:  # noqa: BLE001 - net 3: decide() never raises; if it did, the answer is no
            decision = self.refusal(Reason.ENGINE_FAILED, f"no decision: {type(error).__name__}")
        return EventExchange(self, event, decision, snapshot)

    def malformed(self, principal: Principal, error: InputError, target: str) -> Denial:
        """Refuse bytes that could not be read without doubt."""
        return self._refuse_bytes(principal, Reason.MALFORMED, str(error), target)

    def limited(self, principal: Principal, message: str, target: str) -> Denial:
        """Refuse because a limit was reached before an event existed."""
        return self._refuse_bytes(principal, Reason.LIMIT_EXCEEDED, message, target)

    def failed(self, principal: Principal, message: str, target: str) -> Denial:
        """Refuse because the interceptor itself failed (net 4)."""
        return self._refuse_bytes(principal, Reason.INTERCEPTOR_FAILED, message, target)

    def _refuse_bytes(
        self, principal: Principal, reason: Reason, message: str, target: str
    ) -> Denial:
        decision = self.refusal(reason, message)
        record = refusal_record(principal, decision, target=target, time_ns=self.now_ns())
        return self.deny(record, decision, principal)

    def refusal(self, reason: Reason, message: str) -> Decision:
        """Make the decision of a refusal that no guard has given."""
        snapshot = self.snapshot
        return Decision(
            verdict=Verdict.DENY,
            reason=reason,
            guard="pipeline",
            severity=Severity.ERROR,
            message=message,
            policy_name=snapshot.policy_name,
            policy_hash=snapshot.policy_hash,
            remediation=(_DO_NOT_RETRY,),
        )

    # recording --------------------------------------------------------------------

    def record(self, record: Record) -> RecordId | None:
        """Write a record; None when it could not be written, and then nothing may pass."""
        try:
            return self._journal.append(record)
        except RecordError:
            return None
        except Exception:  # noqa: BLE001 - net 3: a journal that breaks in a new way denies too
            return None

    def deny(self, record: Record, decision: Decision, principal: Principal) -> Denial:
        """Record a refusal and give the answer; a refusal stands even unrecorded."""
        record_id = self.record(record)
        return Denial(
            decision=decision,
            correlation_id=str(record_id) if record_id is not None else _NOT_RECORDED,
            tenant_id=principal.tenant_id,
            principal_id=principal.principal_id,
        )

    def unrecorded(self, principal: Principal) -> Denial:
        """The answer to an allowed attempt whose record could not be written (net 3)."""
        decision = Decision(
            verdict=Verdict.DENY,
            reason=Reason.RECORD_FAILED,
            guard="pipeline",
            severity=Severity.CRITICAL,
            message="the decision could not be recorded, so nothing passes",
            policy_name=self.snapshot.policy_name,
            policy_hash=self.snapshot.policy_hash,
            remediation=("Tell the operator: the audit journal of this host cannot be written.",),
        )
        return Denial(
            decision=decision,
            correlation_id=_NOT_RECORDED,
            tenant_id=principal.tenant_id,
            principal_id=principal.principal_id,
        )

    def elapsed_ns(self) -> int:
        """Monotonic nanoseconds."""
        return self._monotonic_ns()


class EventExchange:
    """One decided event: its body scan, later refusals and its outcome."""

    __slots__ = (
        "_decided",
        "_ended",
        "_event",
        "_noted",
        "_pipeline",
        "_scan",
        "_seq",
        "_snapshot",
        "_started_ns",
        "denial",
    )

    def __init__(
        self,
        pipeline: Pipeline,
        event: EgressConnect | EgressRequest,
        decision: Decision,
        snapshot: Snapshot,
    ) -> None:
        self._pipeline = pipeline
        self._event = event
        self._snapshot = snapshot
        self._scan: BodyScan | None = None
        self._noted: tuple[Finding, ...] = ()
        self._ended = False
        self._seq = 0
        self._started_ns = pipeline.elapsed_ns()
        self._decided = decision_record(event, decision, time_ns=event.time_ns)
        self.denial: Denial | None = None
        if not decision.verdict.passes:
            self.denial = pipeline.deny(self._decided, decision, event.principal)
            self._ended = True
            return
        record_id = pipeline.record(self._decided)
        if record_id is None:
            self.denial = pipeline.unrecorded(event.principal)
            self._ended = True
        else:
            self._seq = record_id.seq

    def is_refused(self) -> bool:
        """Whether it must not go on."""
        return self.denial is not None

    def connecting(self, host: Host, addresses: tuple[Address, ...]) -> Denial | None:
        """Check the addresses that will be dialled, before they are."""
        decision = address_decision(host, self._event.port, addresses, self._snapshot)
        return None if decision is None else self._turn(decision)

    def body(self, chunk: bytes) -> bytes:
        """Scan body bytes; return those that may leave now."""
        scan = self._scan or self._open_scan("body", self._pipeline.scan.window_bytes)
        return chunk if scan is None else self._released(lambda: scan.feed(chunk))

    def finish_body(self, trailers: Headers) -> bytes:
        """End the body; return what was held back. Trailers are scanned too."""
        held = b""
        scan, scanner = self._scan, self._snapshot.scanner
        if scan is not None:
            held = self._released(scan.finish)
        if trailers and scanner is not None:
            lines = b"".join(b"%b: %b\n" % field for field in trailers)
            self._released(lambda: Release(findings=scanner.scan(lines, "trailers")))
        return b"" if self.is_refused() else held

    def message(self, data: bytes, location: str) -> bytes:
        """Scan one whole message; return it, or nothing when it may not leave."""
        scan = self._scan or self._open_scan(location, 0)
        return data if scan is None else self._released(lambda: scan.feed(data))

    def _open_scan(self, location: str, window_bytes: int) -> BodyScan | None:
        scanner, limits = self._snapshot.scanner, self._pipeline.scan
        if scanner is None:
            return None
        encoding, content_type = _body_kind(self._event)
        if content_type.startswith(b"application/grpc"):
            window_bytes = 0  # a held-back tail would stall a call that waits for its answer
        policy = StreamPolicy(
            threshold=self._snapshot.severity_threshold,
            window_bytes=window_bytes,
            inflated_bytes_max=limits.inflated_bytes_max,
            inflate_ratio_max=limits.inflate_ratio_max,
        )
        is_body = location == "body"
        self._scan = scanner.stream(location, encoding=encoding if is_body else "", policy=policy)
        return self._scan

    def _released(self, step: Callable[[], Release]) -> bytes:
        """Run one step of the scan; what it may not release, or its failure, refuses."""
        if self.is_refused():
            return b""
        try:
            release = step()
            self._judge(release)
        except Exception as error:  # noqa: BLE001 - net 3: a scan that fails denies
            text = f"the scan failed: {type(error).__name__}"
            self._turn(self._pipeline.refusal(Reason.ENGINE_FAILED, text))
            return b""
        return b"" if self.is_refused() else release.data

    def _judge(self, release: Release) -> None:
        if release.findings:
            decision = content_decision(release.findings, self._snapshot)
            if not decision.verdict.passes:
                self._turn(decision)
                return
            self._noted += release.findings
        if release.unscannable:
            self._turn(self._pipeline.refusal(Reason.UNSCANNABLE, release.unscannable))

    def refuse(self, reason: Reason, message: str) -> Denial:
        """Refuse in the middle, for a reason of the wire (limits, framing)."""
        return self._turn(self._pipeline.refusal(reason, message))

    def _turn(self, decision: Decision) -> Denial:
        """Replace the allowing decision by a refusal: a new record, and the outcome."""
        if self.denial is None:
            now_ns = self._pipeline.now_ns()
            record = decision_record(self._event, decision, time_ns=now_ns)
            self.denial = self._pipeline.deny(record, decision, self._event.principal)
            self.end(Ending(reason=decision.reason, detail=decision.message))
        return self.denial

    def fail(self, ending: Ending) -> Denial:
        """Record that an allowed attempt did not come off; return the answer for the client."""
        decision = Decision(
            verdict=Verdict.DENY,
            reason=ending.reason,
            guard="egress",
            severity=Severity.WARNING,
            message=ending.detail,
            policy_name=self._snapshot.policy_name,
            policy_hash=self._snapshot.policy_hash,
        )
        correlation = self.end(ending)
        return Denial(
            decision=decision,
            correlation_id=correlation,
            tenant_id=self._event.principal.tenant_id,
            principal_id=self._event.principal.principal_id,
        )

    def end(self, ending: Ending) -> str:
        """Record the outcome, once; returns the record's id, empty when there was one."""
        if self._ended:
            return ""
        self._ended = True
        if self._scan is not None:
            self._scan.close()
        pipeline = self._pipeline
        record_id = pipeline.record(
            outcome_record(
                self._decided,
                ending=ending,
                time_ns=pipeline.now_ns(),
                correlates_seq=self._seq,
                duration_us=(pipeline.elapsed_ns() - self._started_ns) // 1_000,
                findings=self._noted,
            )
        )
        return str(record_id) if record_id is not None else _NOT_RECORDED


def _body_kind(event: EgressConnect | EgressRequest) -> tuple[str, bytes]:
    """Give Content-Encoding (all fields joined) and Content-Type of a request."""
    if not isinstance(event, EgressRequest):
        return "", b""
    encodings = [value for name, value in event.headers if name == b"content-encoding"]
    types = [value for name, value in event.headers if name == b"content-type"]
    return b",".join(encodings).decode("latin-1"), (types[0].lower() if types else b"")
