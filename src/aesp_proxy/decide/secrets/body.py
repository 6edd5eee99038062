"""Scan a body while it flows, and say which of its bytes may leave.

Rules:

- What has been released is always a prefix of what was fed, and all of it once
  the scan has finished with nothing found.
- The last ``window_bytes`` stay behind until more is known, so a secret is never
  released whole, however the body is cut into chunks; of one that is no longer
  than the window no byte is released.
- From the first finding at or above the threshold nothing is released any more,
  and what was held is dropped. So it is from the first byte that cannot be scanned.
- Memory is bounded by the window and one chunk, whatever the body inflates to.
- With ``window_bytes`` 0 (WebSocket and gRPC messages) each feed is one whole
  message: scanned by itself and as the continuation of those before it, then
  released. A secret over two messages is found when the second comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol, Self

from aesp_proxy.decide.secrets.findings import Findings
from aesp_proxy.decide.secrets.hyperscan import SLICE_BYTES_MAX
from aesp_proxy.decide.secrets.inflate import coding_problem, codings_of
from aesp_proxy.decide.secrets.reference import Candidate
from aesp_proxy.decide.secrets.rule import UNSCANNABLE
from aesp_proxy.decide.secrets.watch import Sight
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Finding, Severity, Verdict

PIECE_BYTES = 1 << 18
"""So much of a chunk is looked at at once: all that look at it find it in a core's cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPolicy:
    """How one body is scanned.

    Findings at or above ``threshold`` stop it (the default: any), unless ``verdict`` says
    for a rule and a severity what becomes of them. ``redacts`` is whether what is to be
    redacted can be: else it stops the body. ``unpacks`` is whether a compressed body goes on
    as what it inflates to. ``is_json`` is what the body says it is.
    ``window_bytes`` is held back, 0 for message streams. ``inflated_bytes_max`` and
    ``inflate_ratio_max`` cap what a compressed body may become. What cannot be scanned
    stops the body, or with ``records_unscannable`` is told and flows. ``hear`` is given
    what is scanned, inflated, before a byte of it is released; masked, where it is masked.
    """

    threshold: Severity = Severity.INFO
    verdict: Callable[[str, Severity], Verdict] | None = None
    redacts: bool = False
    unpacks: bool = False
    is_json: bool = False
    window_bytes: int = 1_100
    findings_max: int = 64
    inflated_bytes_max: int = 1 << 30
    inflate_ratio_max: int = 200
    records_unscannable: bool = False
    hear: Callable[[bytes], None] | None = None

    def __post_init__(self) -> None:
        if self.window_bytes < 0 or self.window_bytes > SLICE_BYTES_MAX:
            raise ConfigError(f"window_bytes must be 0 to {SLICE_BYTES_MAX}")
        if min(self.findings_max, self.inflated_bytes_max, self.inflate_ratio_max) < 1:
            raise ConfigError("findings_max and the inflate caps must be positive")

    def verdict_of(self, rule: str, severity: Severity) -> Verdict:
        """Return what becomes of a finding: deny, redact or audit."""
        if rule == UNSCANNABLE:
            return Verdict.AUDIT if self.records_unscannable else Verdict.DENY
        if self.verdict is None:
            return Verdict.DENY if severity >= self.threshold else Verdict.AUDIT
        verdict = self.verdict(rule, severity)
        return Verdict.DENY if verdict is Verdict.REDACT and not self.redacts else verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What a step lets go: bytes, what it found, and why it cannot go on (else empty)."""

    data: bytes = b""
    findings: tuple[Finding, ...] = ()
    unscannable: str = ""


class BodyScan(Protocol):
    """The scan of one body. ``stopped`` is true once nothing more will be released.

    ``feed`` and ``finish`` raise UnavailableError when the engine fails; nothing
    is released after that either. ``close`` may be called at any time, twice too.
    """

    @property
    def stopped(self) -> bool:
        """Whether nothing more will be released."""

    @property
    def unscannable(self) -> str:
        """Why the body cannot be scanned, empty while it can."""

    def feed(self, chunk: bytes) -> Release:
        """Take the next bytes of the body and return what may leave now."""

    def finish(self) -> Release:
        """Say that the body is complete and return what may still leave."""

    def close(self) -> None:
        """Let everything go; nothing is released after this."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def open_body(encoding: str, policy: StreamPolicy, findings: Findings, sight: Sight) -> BodyScan:
    """Open the scan of a body with this Content-Encoding (RFC 9110 section 8.4)."""
    codings = codings_of(encoding)
    if not codings and policy.redacts:
        from aesp_proxy.decide.secrets.masking import MaskingMessages, MaskingScan  # noqa: PLC0415

        if policy.window_bytes:
            return MaskingScan(policy, findings, sight)
        return MaskingMessages(policy, findings, sight)
    if not codings:
        if policy.window_bytes:
            return _PlainScan(policy, findings, sight)
        return _MessageScan(policy, findings, sight)
    problem = coding_problem(codings)
    if not problem and policy.unpacks:
        from aesp_proxy.decide.secrets.unpacked import UnpackedScan  # noqa: PLC0415

        return UnpackedScan(codings, policy, findings, sight)
    policy = replace(policy, redacts=False)  # what is compressed is not written anew
    if problem and policy.records_unscannable:
        findings.unscannable(problem)
        return _PlainScan(policy, findings, sight)
    if problem:
        return _ClosedScan(problem)
    from aesp_proxy.decide.secrets.inflated import InflatedScan  # noqa: PLC0415

    return InflatedScan(codings, policy, findings, sight)


_NOTHING = Release()


class WatchedScan:
    """What all scans share: the findings, the threshold, and being stopped."""

    __slots__ = ("_findings", "_policy", "_watch", "stopped", "unscannable")

    def __init__(self, policy: StreamPolicy, findings: Findings, sight: Sight) -> None:
        self._policy = policy
        self._findings = findings
        self._watch = sight.open(policy.hear)
        self.stopped = False
        self.unscannable = ""

    def close(self) -> None:
        """Let everything go; nothing is released after this."""
        self.stopped = True
        self._watch.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _halted(self) -> bool:
        """Tell whether a step has stopped the scan (asked anew after each)."""
        return self.stopped

    def _judge(self, candidates: Sequence[Candidate], *, cut: bool) -> tuple[Finding, ...]:
        """Return what is new among ``candidates``; stop at the threshold."""
        self._findings.add(candidates, cut=cut)
        return self._weigh()

    def _weigh(self) -> tuple[Finding, ...]:
        """Return what was noted since the last step; stop where something of it refuses."""
        self._cannot(self._watch.problem)
        fresh = self._findings.take()
        verdict_of = self._policy.verdict_of
        if any(verdict_of(one.rule, one.severity) is Verdict.DENY for one in fresh):
            self.close()
        return fresh

    def _cannot(self, problem: str) -> None:
        """Stop, or tell of it, when there is something that cannot be scanned."""
        if problem and self._policy.records_unscannable:
            self._findings.unscannable(problem)
        elif problem and not self.stopped:
            self.unscannable = problem
            self.close()


class _PlainScan(WatchedScan):
    """A body as it is: the last window is held, and what views wait for; the rest flows."""

    __slots__ = ("_held", "_total", "_window_bytes")

    def __init__(self, policy: StreamPolicy, findings: Findings, sight: Sight) -> None:
        super().__init__(policy, findings, sight)
        self._held = b""
        self._total = 0
        self._window_bytes = policy.window_bytes

    def feed(self, chunk: bytes) -> Release:
        if self.stopped:
            return _NOTHING
        fresh: tuple[Finding, ...] = ()
        for offset in range(0, len(chunk), PIECE_BYTES):
            found = self._watch.see(chunk[offset : offset + PIECE_BYTES])
            if found or self._watch.cut or self._watch.problem or self._findings.is_fresh:
                fresh += self._judge(found, cut=self._watch.cut)
                if self._halted():
                    self._held = b""
                    return Release(findings=fresh, unscannable=self.unscannable)
        self._total += len(chunk)
        keep = max(self._window_bytes, self._total - self._watch.hold_from)
        cut = len(chunk) - keep
        if cut >= 0:
            data = b"".join((self._held, memoryview(chunk)[:cut]))
            self._held = chunk[cut:]
        else:
            held = self._held + chunk
            cut = max(0, len(held) - keep)
            data, self._held = held[:cut], held[cut:]
        return Release(data=data, findings=fresh)

    def finish(self) -> Release:
        if self.stopped:
            return _NOTHING
        fresh = self._judge(self._watch.finish(), cut=self._watch.cut)
        held, self._held = self._held, b""
        if self._halted():
            return Release(findings=fresh, unscannable=self.unscannable)
        self.close()
        return Release(data=held, findings=fresh)


class _MessageScan(WatchedScan):
    """Messages: each goes or does not go as a whole."""

    __slots__ = ("_sight", "_total")

    def __init__(self, policy: StreamPolicy, findings: Findings, sight: Sight) -> None:
        super().__init__(policy, findings, sight)
        self._sight = sight
        self._total = 0

    def feed(self, chunk: bytes) -> Release:
        if self.stopped:
            return _NOTHING
        alone = self._sight.block(chunk)
        for candidate in alone.candidates:
            self._findings.add_here(candidate, self._total + candidate.start)
        for offset in range(0, len(chunk), SLICE_BYTES_MAX):
            piece = chunk[offset : offset + SLICE_BYTES_MAX]
            self._findings.add(self._watch.see(piece), cut=alone.cut or self._watch.cut)
        self._total += len(chunk)
        self._cannot(alone.problem)
        fresh = self._weigh()
        data = b"" if self._halted() else chunk
        return Release(data=data, findings=fresh, unscannable=self.unscannable)

    def finish(self) -> Release:
        if self.stopped:
            return _NOTHING
        fresh = self._judge(self._watch.finish(), cut=self._watch.cut)
        self.close()
        return Release(findings=fresh, unscannable=self.unscannable)


class _ClosedScan:
    """A body that cannot be scanned at all: nothing is released, each step says why."""

    __slots__ = ("stopped", "unscannable")

    def __init__(self, reason: str) -> None:
        self.stopped = True
        self.unscannable = reason

    def feed(self, chunk: bytes) -> Release:  # noqa: ARG002 - nothing of it is used
        return Release(unscannable=self.unscannable)

    def finish(self) -> Release:
        return Release(unscannable=self.unscannable)

    def close(self) -> None:
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return
