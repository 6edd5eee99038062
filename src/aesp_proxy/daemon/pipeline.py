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
from dataclasses import dataclass, replace
from typing import Protocol

from aesp_proxy.act.denial import Denial
from aesp_proxy.daemon.budget import GUARD, RATE_GUARD, SendBudget
from aesp_proxy.daemon.denials import Denials
from aesp_proxy.daemon.exchange import NOT_RECORDED, EventExchange
from aesp_proxy.daemon.name_budget import NameBudget
from aesp_proxy.daemon.scrub import scrubbed, without_texts
from aesp_proxy.daemon.session import SessionCounter
from aesp_proxy.daemon.session_pieces import SessionPieces
from aesp_proxy.daemon.tally import Tally
from aesp_proxy.decide.engine import content_decision, decide
from aesp_proxy.decide.snapshot import Snapshot
from aesp_proxy.errors import InputError, RecordError
from aesp_proxy.model.context import NO_CONTEXT, Context
from aesp_proxy.model.decision import Decision, Finding, Reason, Severity, Verdict
from aesp_proxy.model.event import DnsQuery, EgressConnect, EgressRequest
from aesp_proxy.model.host import Host
from aesp_proxy.model.principal import Principal
from aesp_proxy.model.record import Outcome, Record, RecordId, RecordKind
from aesp_proxy.normalize.http import Tunnel, name_mismatch
from aesp_proxy.record.compose import refusal_record

_DO_NOT_RETRY = "Do not retry: the same request will be refused again."
_BOUNDS = "The operator bounds what a session may send: the settings budget.*."
_WAIT = "Wait a minute, then go on more slowly: the operator bounds requests a minute."


class Recorder(Protocol):
    """The journal: on return the record survives a killed process."""

    def append(self, record: Record) -> RecordId:
        """Write one record; raises ``RecordError`` when it cannot be made durable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanLimits:
    """How bodies are scanned: bytes held back, what a compressed body may become, messages."""

    window_bytes: int = 1_100
    inflated_bytes_max: int = 64 * 1024 * 1024
    inflate_ratio_max: int = 200
    message_bytes_max: int = 16 * 1024 * 1024


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
        session: SessionCounter,
        scan: ScanLimits,
        wall_ns: Callable[[], int],
        monotonic_ns: Callable[[], int],
        names: NameBudget | None = None,
        budget: SendBudget | None = None,
        user_of: Callable[[int], str] | None = None,
    ) -> None:
        self.snapshot = snapshot
        self._journal = journal
        self._identity = identity
        self.session = session
        self.scan = scan
        self._monotonic_ns = monotonic_ns
        self._names = names
        self.budget = budget
        self.tally = Tally()
        self.denials = Denials(wall_ns)
        self.pieces = SessionPieces()
        self.now_ns = wall_ns
        self._user_of = user_of
        self._principals: dict[tuple[str, int | None], Principal] = {}

    def principal(self, source_ip: str, uid: int | None = None) -> Principal:
        """Say who is behind a client connection: the user of its socket, where that counts."""
        known = self._principals.get((source_ip, uid))
        if known is None:
            who, user_of = self._identity, self._user_of
            known = Principal(
                principal_id=who.principal_id if uid is None or user_of is None else user_of(uid),
                agent_id=who.agent_id,
                agent_type=who.agent_type,
                session_id=who.session_id,
                tenant_id=who.tenant_id,
                source_ip=source_ip,
            )
            if len(self._principals) < 1_000:  # peers are loopback addresses: few
                self._principals[source_ip, uid] = known
        return known

    def connect(self, principal: Principal, host: Host, port: int) -> EventExchange:
        """Decide a CONNECT, or what a captured connection amounts to."""
        return self._decided(self._connection(principal, host, port), "")

    def raw(self, principal: Principal, host: Host, port: int) -> EventExchange:
        """Decide whether bytes that are neither TLS nor HTTP may be relayed unread."""
        return self._decided(self._connection(principal, host, port, raw=True), "")

    def sealed(self, principal: Principal, host: Host, port: int) -> EventExchange:
        """Decide whether the TLS of a host on the operator's list may be relayed unread."""
        return self._decided(self._connection(principal, host, port, sealed=True), "")

    def may_connect(self, principal: Principal, host: Host, port: int, *, raw: bool) -> bool:
        """Tell what ``connect`` or ``raw`` would say; nothing is recorded, nothing may go out."""
        snapshot = self.snapshot
        event = self._connection(principal, host, port, raw=raw)
        return decide(event, snapshot, self._context(snapshot)).verdict.passes

    def _connection(
        self,
        principal: Principal,
        host: Host,
        port: int,
        *,
        raw: bool = False,
        sealed: bool = False,
    ) -> EgressConnect:
        return EgressConnect(
            event_id="",
            time_ns=self.now_ns(),
            principal=principal,
            host=host,
            port=port,
            raw=raw,
            sealed=sealed,
        )

    def request(self, event: EgressRequest, tunnel: Tunnel | None) -> EventExchange:
        """Decide a request, its head complete."""
        return self._decided(event, name_mismatch(event, tunnel))

    def query(self, principal: Principal, host: Host, record_type: str) -> EventExchange:
        """Decide whether a name may be asked for."""
        event = DnsQuery(
            event_id="",
            time_ns=self.now_ns(),
            principal=principal,
            host=host,
            record_type=record_type,
        )
        return self._decided(event, "")

    def _decided(
        self, event: EgressConnect | EgressRequest | DnsQuery, mismatch: str
    ) -> EventExchange:
        snapshot = self.snapshot
        try:
            decision = (
                self.refusal(Reason.NAME_MISMATCH, f"the names disagree: {mismatch}")
                if mismatch
                else decide(event, snapshot, self._context(snapshot))
            )
            if self._names is not None and decision.verdict.passes:
                # Before the name is resolved: resolving is what tells it.
                too_much = self._names.refused(event.host, snapshot, self._monotonic_ns() / 1e9)
                if too_much:
                    decision = self.refusal(Reason.LIMIT_EXCEEDED, too_much)
            if snapshot.scanner is not None and decision.verdict.passes:
                found = self.pieces.head(event, snapshot.scanner)
                if found:
                    decision = self._completed(event, decision, found, snapshot)
            if self.budget is not None and decision.verdict.passes:
                decision = self._in_budget(self.budget, event, decision)
        except Exception as error:  # noqa: BLE001 - net 3: decide() never raises; if it did, the answer is no
            decision = self.refusal(Reason.ENGINE_FAILED, f"no decision: {type(error).__name__}")
        return EventExchange(self, event, decision, snapshot)

    def _completed(
        self,
        event: EgressConnect | EgressRequest | DnsQuery,
        decision: Decision,
        found: tuple[Finding, ...],
        snapshot: Snapshot,
    ) -> Decision:
        """Decide anew on a secret of which this event has the last piece."""
        place = (event.host, event.port) if isinstance(event, EgressRequest) else None
        other = content_decision(found, snapshot, place)
        if not other.verdict.passes:
            return other
        both = decision.findings + found
        return replace(decision, verdict=other.verdict, message=other.message, findings=both)

    def _in_budget(
        self,
        budget: SendBudget,
        event: EgressConnect | EgressRequest | DnsQuery,
        decision: Decision,
    ) -> Decision:
        over = budget.refused(event, self._monotonic_ns() / 1e9)
        return decision if over is None else self.over_budget(*over)

    def over_budget(self, guard: str, message: str) -> Decision:
        """Make the decision of a refusal by the operator's bounds."""
        wait = guard == RATE_GUARD
        steps = (_WAIT,) if wait else (_DO_NOT_RETRY, _BOUNDS)
        decision = self.refusal(Reason.LIMIT_EXCEEDED, message)
        return replace(decision, guard=guard, remediation=steps)

    def may_send(self, count: int) -> Decision | None:
        """Count bytes that are about to leave; the refusal when they are too many."""
        budget = self.budget
        if budget is None or budget.spend(count):
            return None
        return self.over_budget(GUARD, budget.told_bytes())

    def let_out(self, event: EgressConnect | EgressRequest | DnsQuery) -> None:
        """Count what is let out, its decision recorded."""
        if isinstance(event, EgressRequest):
            self.session.let_out()
        if self.budget is not None:
            self.budget.let_out(event, self._monotonic_ns() / 1e9)

    def _context(self, snapshot: Snapshot) -> Context:
        return NO_CONTEXT if snapshot.rules is None else self.session.context()

    def malformed(self, principal: Principal, error: InputError, target: str) -> Denial:
        """Refuse bytes that could not be read without doubt."""
        return self._refuse_bytes(principal, Reason.MALFORMED, str(error), target)

    def unsupported(self, principal: Principal, message: str, target: str) -> Denial:
        """Refuse a protocol, or a part of one, that is not spoken here."""
        return self._refuse_bytes(principal, Reason.UNSUPPORTED, message, target)

    def limited(self, principal: Principal, message: str, target: str) -> Denial:
        """Refuse because a limit was reached before an event existed."""
        return self._refuse_bytes(principal, Reason.LIMIT_EXCEEDED, message, target)

    def failed(self, principal: Principal, message: str, target: str) -> Denial:
        """Refuse because the interceptor itself failed (net 4)."""
        return self._refuse_bytes(principal, Reason.INTERCEPTOR_FAILED, message, target)

    def query_refused(self, principal: Principal, reason: Reason, message: str) -> Denial:
        """Refuse a query, or many, of which no name can be told."""
        return self._refuse_bytes(principal, reason, message, "", action="dns.query")

    def _refuse_bytes(
        self,
        principal: Principal,
        reason: Reason,
        message: str,
        target: str,
        action: str = "tcp.connect",
    ) -> Denial:
        decision = self.refusal(reason, message)
        record = refusal_record(
            principal, decision, target=target, time_ns=self.now_ns(), action=action
        )
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
        scanner = self.snapshot.scanner
        try:
            if scanner is not None and _may_quote(record):
                record = scrubbed(record, scanner)
            if record.outcome is Outcome.DENIED:
                self.denials.note(record.action, record.resource, record.reason)
            begun_ns = self._monotonic_ns()
            record_id = self._journal.append(record)
            if record_id.seq:
                self.tally.recorded(record, append_us=(self._monotonic_ns() - begun_ns) // 1000)
            else:
                self.tally.lost(record)
        except RecordError:
            self.tally.unrecorded()
            return None
        except Exception:  # noqa: BLE001 - net 3: a journal that breaks in a new way denies too
            self.tally.unrecorded()
            return None
        return record_id

    def cleaned(self, record: Record) -> Record:
        """Return a record without the secrets in it; without all texts where it cannot be told."""
        scanner = self.snapshot.scanner
        try:
            return record if scanner is None else scrubbed(record, scanner)
        except Exception:  # noqa: BLE001 - net 3: what fails in a new way quotes nothing either
            return without_texts(record)

    def deny(self, record: Record, decision: Decision, principal: Principal) -> Denial:
        """Record a refusal and give the answer; a refusal stands even unrecorded."""
        self.session.refused()
        record_id = self.record(record)
        return Denial(
            decision=decision,
            correlation_id=str(record_id) if record_id is not None else NOT_RECORDED,
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
            correlation_id=NOT_RECORDED,
            tenant_id=principal.tenant_id,
            principal_id=principal.principal_id,
        )

    def elapsed_ns(self) -> int:
        """Monotonic nanoseconds."""
        return self._monotonic_ns()


def _may_quote(record: Record) -> bool:
    """Tell whether a record may hold what no scan has seen: all but what passed clean."""
    passed_clean = record.kind is RecordKind.DECISION and record.outcome is Outcome.SUCCESS
    came_off = record.kind is RecordKind.OUTCOME and not record.message
    return bool(record.findings) or not (passed_clean or came_off)
