"""One decided event: its body scan, what refuses it later, and its outcome.

Steps 5 and 6 of the flow (see ``pipeline``). A scan that fails, a finding, or framing
that cannot be read turns the decision: a new record, and the answer is no from then on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from aesp_proxy.act.denial import Denial
from aesp_proxy.daemon.grpc_body import GrpcBody
from aesp_proxy.daemon.session_pieces import BodyPieces
from aesp_proxy.decide.engine import address_decision, content_decision, leak_guard
from aesp_proxy.decide.secrets.body import BodyScan, Release, StreamPolicy
from aesp_proxy.decide.secrets.inflate import coding_problem, codings_of
from aesp_proxy.decide.secrets.signed import signed_by
from aesp_proxy.decide.secrets.slots import UNIT_BYTES_MAX
from aesp_proxy.decide.snapshot import Snapshot
from aesp_proxy.errors import InputError
from aesp_proxy.intercept.port import Address
from aesp_proxy.model.decision import Decision, Finding, Reason, Severity, Verdict
from aesp_proxy.model.event import DnsQuery, EgressConnect, EgressRequest
from aesp_proxy.model.host import Host
from aesp_proxy.model.record import Ending
from aesp_proxy.normalize.http_head import Headers
from aesp_proxy.record.compose import decision_record, outcome_record

if TYPE_CHECKING:
    from aesp_proxy.daemon.pipeline import Pipeline

NOT_RECORDED = "not-recorded"


class EventExchange:
    """One decided event: its body scan, later refusals and its outcome."""

    __slots__ = (
        "_decided",
        "_ended",
        "_event",
        "_messages",
        "_noted",
        "_pieces",
        "_pipeline",
        "_policy",
        "_scan",
        "_seq",
        "_snapshot",
        "_started_ns",
        "denial",
        "redacted",
        "unpacks",
    )

    def __init__(
        self,
        pipeline: Pipeline,
        event: EgressConnect | EgressRequest | DnsQuery,
        decision: Decision,
        snapshot: Snapshot,
    ) -> None:
        self._pipeline = pipeline
        self._event = event
        self._snapshot = snapshot
        self._scan: BodyScan | None = None
        self._messages: GrpcBody | None = None
        self._policy: StreamPolicy | None = None
        self._pieces: BodyPieces | None = None
        self.redacted = 0
        self.unpacks = False
        self._noted: tuple[Finding, ...] = ()
        self._ended = False
        self._seq = 0
        self._started_ns = pipeline.elapsed_ns()
        self._decided = decision_record(event, decision, time_ns=event.time_ns)
        if decision.findings:
            self._decided = pipeline.cleaned(self._decided)  # the outcome says it again
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
            self.unpacks = _is_unpacked(event, snapshot)
            pipeline.let_out(event)

    def is_refused(self) -> bool:
        """Whether it must not go on."""
        return self.denial is not None

    def connecting(self, host: Host, addresses: tuple[Address, ...]) -> Denial | None:
        """Check the addresses that will be dialled, or told, before they are."""
        event = self._event
        port = None if isinstance(event, DnsQuery) else event.port
        decision = address_decision(host, port, addresses, self._snapshot)
        return None if decision is None else self._turn(decision)

    def body(self, chunk: bytes) -> bytes:
        """Scan body bytes; return those that may leave now."""
        if not self.spend(len(chunk)):
            return b""
        scan = self._scan or self._open_body()
        if scan is None:
            return chunk
        messages = self._messages
        if messages is None:
            return self._fed(lambda: scan.feed(chunk))
        try:
            whole = messages.feed(chunk)
        except InputError as error:
            self.refuse(Reason.UNSCANNABLE, str(error))
            return b""
        return b"".join(self._message(partial(messages.scanned, scan, m)) for m in whole)

    def finish_body(self, trailers: Headers) -> bytes:
        """End the body; return what was held back. Trailers are scanned too."""
        held = b""
        if self._messages is not None and not self._messages.is_between:
            self.refuse(Reason.MALFORMED, "the body ended in the middle of a gRPC message")
        scan, scanner = self._scan, self._snapshot.scanner
        if scan is not None:
            held = self._fed(scan.finish)
            if self._messages is None:
                self._complete("body")
        if trailers and not self.spend(sum(len(name) + len(value) for name, value in trailers)):
            return b""
        if trailers and scanner is not None:
            lines = b"".join(b"%b: %b\n" % field for field in trailers)
            self._tell(scanner.scan(lines, "trailers"))
            if not self.is_refused():
                self._tell(self._pipeline.pieces.trailers(self._event, lines, scanner))
        return b"" if self.is_refused() else held

    def message(self, data: bytes, location: str) -> bytes:
        """Scan one whole message; return it, or nothing when it may not leave."""
        if not self.spend(len(data)):
            return b""
        scan = self._scan or self._open_scan(location, "", 0)
        return data if scan is None else self._message(lambda: scan.feed(data))

    def _message(self, step: Callable[[], Release]) -> bytes:
        data = self._fed(step)
        self._complete("message")
        return b"" if self.is_refused() else data

    def _fed(self, step: Callable[[], Release]) -> bytes:
        """Run one step of the scan; refuse where parts of registered values are enough by now."""
        data = self._released(step)
        told = () if self._pieces is None or self.is_refused() else self._pieces.told()
        if told:
            self._tell(told)
        return b"" if self.is_refused() else data

    def _complete(self, kind: str) -> None:
        """Refuse where a short body or message has the last piece of a secret."""
        text = b"" if self._pieces is None else self._pieces.take()
        scanner = self._snapshot.scanner
        if text and scanner is not None and not self.is_refused():
            self._tell(self._pipeline.pieces.text(self._event, kind, text, scanner))

    def _tell(self, findings: tuple[Finding, ...]) -> None:
        """Judge findings of what is masked nowhere."""
        policy, self._policy = self._policy, None
        self._released(lambda: Release(findings=findings))
        self._policy = policy

    def spend(self, count: int) -> bool:
        """Count bytes that are about to leave; False, and refused, when they may not."""
        over = self._pipeline.may_send(count)
        if over is not None:
            self._turn(over)
        return over is None

    def _open_body(self) -> BodyScan | None:
        encoding, content_type = _body_kind(self._event)
        scanner, limits = self._snapshot.scanner, self._pipeline.scan
        # A coding over the whole body hides the messages: then it is a body like any other.
        is_grpc = content_type.startswith(b"application/grpc") and not encoding
        if is_grpc and scanner is not None and isinstance(self._event, EgressRequest):
            self._messages = GrpcBody(self._event.headers, limits, scanner)
            return self._open_scan("body", "", 0, rewrites=not self._messages.coding)
        window_bytes = limits.window_bytes
        if isinstance(self._event, EgressRequest):
            # A body that could be a piece waits for its end: then it is known what of.
            length = self._event.content_length or 0
            window_bytes = max(window_bytes, length if length <= UNIT_BYTES_MAX else 0)
        return self._open_scan("body", encoding, window_bytes)

    def _open_scan(
        self, location: str, encoding: str, window_bytes: int, *, rewrites: bool = True
    ) -> BodyScan | None:
        scanner, limits = self._snapshot.scanner, self._pipeline.scan
        if scanner is None:
            return None
        self._pieces = BodyPieces(self._pipeline.pieces.covered(self._event, scanner))
        policy = StreamPolicy(
            threshold=self._snapshot.severity_threshold,
            window_bytes=window_bytes,
            hear=self._pieces.hear,
            inflated_bytes_max=limits.inflated_bytes_max,
            inflate_ratio_max=limits.inflate_ratio_max,
        )
        guard, event = leak_guard(self._snapshot), self._event
        if guard is not None and isinstance(event, EgressRequest):
            place = self._place()
            policy = replace(
                policy,
                verdict=lambda rule, severity: guard.verdict(rule, severity, place),
                redacts=guard.may_redact
                and rewrites
                and (self.unpacks or not encoding)
                and not signed_by(event.headers),
                unpacks=self.unpacks,
                is_json=b"json" in _body_kind(event)[1],
                records_unscannable=guard.section.records_unscannable,
            )
        self._policy = policy
        self._scan = scanner.stream(location, encoding=encoding, policy=policy)
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
            redacts = self._policy is not None and self._policy.redacts
            decision = content_decision(
                release.findings, self._snapshot, self._place(), redacts=redacts
            )
            if decision.verdict is Verdict.REDACT:
                self._redact(decision)
            elif not decision.verdict.passes:
                self._turn(decision)
                return
            self._noted += release.findings
        if release.unscannable:
            self._turn(self._pipeline.refusal(Reason.UNSCANNABLE, release.unscannable))

    def _redact(self, decision: Decision) -> None:
        """Record that what was found is masked: a decision before its effect, as any."""
        now_ns = self._pipeline.now_ns()
        record = decision_record(self._event, decision, time_ns=now_ns)
        if self._pipeline.record(record) is None:
            self.denial = self._pipeline.unrecorded(self._event.principal)
            self.end(Ending(reason=Reason.RECORD_FAILED))
        self.redacted += len(decision.findings)

    def _place(self) -> tuple[Host, int] | None:
        event = self._event
        return (event.host, event.port) if isinstance(event, EgressRequest) else None

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
            verdict=Verdict.ALLOW,
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
        pipeline.session.sent(ending.bytes_out)
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
        return str(record_id) if record_id is not None else NOT_RECORDED


def _is_unpacked(event: EgressConnect | EgressRequest | DnsQuery, snapshot: Snapshot) -> bool:
    """Tell whether the body goes on without its Content-Encoding, so that it can be masked.

    Not in HTTP/1.0, which has no chunks, and where a field signs or hashes it.
    """
    guard = leak_guard(snapshot)
    if not isinstance(event, EgressRequest) or guard is None or not guard.may_redact:
        return False
    codings = codings_of(_body_kind(event)[0])
    return (
        bool(codings)
        and event.content_length != 0
        and event.http_version != "1.0"
        and not coding_problem(codings)
        and not signed_by(event.headers)
    )


def _body_kind(event: EgressConnect | EgressRequest | DnsQuery) -> tuple[str, bytes]:
    """Give Content-Encoding (all fields joined) and Content-Type of a request."""
    if not isinstance(event, EgressRequest):
        return "", b""
    encodings = [value for name, value in event.headers if name == b"content-encoding"]
    types = [value for name, value in event.headers if name == b"content-type"]
    return b",".join(encodings).decode("latin-1"), (types[0].lower() if types else b"")
