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

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol, Self

from aesp_proxy.decide.secrets.findings import Findings
from aesp_proxy.decide.secrets.hyperscan import SLICE_BYTES_MAX
from aesp_proxy.decide.secrets.inflate import CODINGS_MAX, Chain, inflatable
from aesp_proxy.decide.secrets.reference import Candidate
from aesp_proxy.decide.secrets.watch import Sight
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Finding, Severity, Verdict

RAW_PIECE_BYTES = 2_048
RAW_HELD_BYTES_MAX = 1 << 16
"""Compressed bytes that may wait for content: more is a body made to carry none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPolicy:
    """How one body is scanned.

    Findings at or above ``threshold`` stop it (the default: any), unless ``verdict`` says
    for a rule and a severity what becomes of them. ``redacts`` is whether what is to be
    redacted can be: else it stops the body. ``is_json`` is what the body says it is.
    ``window_bytes`` is held back, 0 for message streams. ``inflated_bytes_max`` and
    ``inflate_ratio_max`` cap what a compressed body may become.
    """

    threshold: Severity = Severity.INFO
    verdict: Callable[[str, Severity], Verdict] | None = None
    redacts: bool = False
    is_json: bool = False
    window_bytes: int = 1_100
    findings_max: int = 64
    inflated_bytes_max: int = 1 << 30
    inflate_ratio_max: int = 200

    def __post_init__(self) -> None:
        if self.window_bytes < 0 or self.window_bytes > SLICE_BYTES_MAX:
            raise ConfigError(f"window_bytes must be 0 to {SLICE_BYTES_MAX}")
        if min(self.findings_max, self.inflated_bytes_max, self.inflate_ratio_max) < 1:
            raise ConfigError("findings_max and the inflate caps must be positive")

    def verdict_of(self, rule: str, severity: Severity) -> Verdict:
        """Return what becomes of a finding: deny, redact or audit."""
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
    codings = [coding.strip().lower() for coding in encoding.split(",")]
    codings = [coding for coding in codings if coding not in ("", "identity")]
    if not codings and policy.redacts:
        from aesp_proxy.decide.secrets.masking import MaskingMessages, MaskingScan  # noqa: PLC0415

        if policy.window_bytes:
            return MaskingScan(policy, findings, sight)
        return MaskingMessages(policy, findings, sight)
    if not codings:
        if policy.window_bytes:
            return _PlainScan(policy, findings, sight)
        return _MessageScan(policy, findings, sight)
    policy = replace(policy, redacts=False)  # what is compressed is not written anew
    if len(codings) > CODINGS_MAX:
        return _ClosedScan(f"the body is encoded more than {CODINGS_MAX} times")
    unknown = next((coding for coding in codings if not inflatable(coding)), None)
    if unknown is not None:
        return _ClosedScan(f"the content encoding {unknown[:20]!r} cannot be scanned")
    return _InflatedScan(codings, policy, findings, sight)


_NOTHING = Release()


class WatchedScan:
    """What all scans share: the findings, the threshold, and being stopped."""

    __slots__ = ("_findings", "_policy", "_watch", "stopped", "unscannable")

    def __init__(self, policy: StreamPolicy, findings: Findings, sight: Sight) -> None:
        self._policy = policy
        self._findings = findings
        self._watch = sight.open()
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
        return self._weigh(self._findings.take())

    def _weigh(self, fresh: tuple[Finding, ...]) -> tuple[Finding, ...]:
        verdict_of = self._policy.verdict_of
        if any(verdict_of(one.rule, one.severity) is Verdict.DENY for one in fresh):
            self.close()
        return fresh


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
        if len(chunk) > SLICE_BYTES_MAX:
            return _in_slices(self, chunk)
        fresh: tuple[Finding, ...] = ()
        found = self._watch.see(chunk)
        if found or self._watch.cut:
            fresh = self._judge(found, cut=self._watch.cut)
            if self._halted():
                self._held = b""
                return Release(findings=fresh)
        self._total += len(chunk)
        keep = max(self._window_bytes, self._total - self._watch.hold_from)
        cut = len(chunk) - keep
        if cut >= 0:
            data = self._held + chunk[:cut]
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
            return Release(findings=fresh)
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
        fresh = self._weigh(self._findings.take())
        return Release(data=b"" if self._halted() else chunk, findings=fresh)

    def finish(self) -> Release:
        if self.stopped:
            return _NOTHING
        fresh = self._judge(self._watch.finish(), cut=self._watch.cut)
        self.close()
        return Release(findings=fresh)


class _InflatedScan(WatchedScan):
    """A compressed body: raw bytes leave once what they inflate to is a window behind.

    The raw bytes are watched as well: names and comments of gzip headers are plain.
    """

    __slots__ = ("_held", "_inflater", "_raw", "_raw_held_bytes")

    def __init__(
        self, codings: Sequence[str], policy: StreamPolicy, findings: Findings, sight: Sight
    ) -> None:
        super().__init__(policy, findings, sight)
        self._raw = sight.open_plain()
        self._inflater = Chain(
            codings, bytes_max=policy.inflated_bytes_max, ratio_max=policy.inflate_ratio_max
        )
        # Each piece of raw bytes with how much had come out when it had gone in.
        self._held: deque[tuple[bytes, int]] = deque()
        self._raw_held_bytes = 0

    def close(self) -> None:
        super().close()
        self._raw.close()

    def feed(self, chunk: bytes) -> Release:
        if self.stopped:
            return Release(unscannable=self.unscannable)
        out: list[bytes] = []
        fresh: list[Finding] = []
        for offset in range(0, len(chunk), RAW_PIECE_BYTES):
            piece = chunk[offset : offset + RAW_PIECE_BYTES]
            fresh += self._see(piece)
            if self._halted():
                return self._drop(fresh)
            self._held.append((piece, self._inflater.yielded))
            self._raw_held_bytes += len(piece)
            self._let_go(out)
        if self._raw_held_bytes > RAW_HELD_BYTES_MAX + self._policy.window_bytes:
            return self._refuse("the compressed body carries too little content", fresh)
        return Release(data=b"".join(out), findings=tuple(fresh))

    def finish(self) -> Release:
        if self.stopped:
            return Release(unscannable=self.unscannable)
        self._inflater.finish()
        if self._inflater.problem:
            return self._refuse(self._inflater.problem, [])
        candidates = [*self._watch.finish(), *self._raw.finish()]
        fresh = self._judge(candidates, cut=self._watch.cut or self._raw.cut)
        if self._halted():
            return self._drop([*fresh])
        data = b"".join(piece for piece, _ in self._held)
        self.close()
        return Release(data=data, findings=fresh)

    def _see(self, piece: bytes) -> tuple[Finding, ...]:
        """Scan one raw piece and what it inflates to; may stop the scan."""
        self._findings.add(self._raw.see(piece), cut=self._raw.cut)
        for content in self._inflater.feed(piece):
            self._findings.add(self._watch.see(content), cut=self._watch.cut)
        fresh = self._weigh(self._findings.take())
        if self._inflater.problem and not self._halted():
            self.unscannable = self._inflater.problem
            self.close()
        return fresh

    def _let_go(self, out: list[bytes]) -> None:
        """Move to ``out`` the raw pieces that are a window behind, raw and inflated."""
        window_bytes = self._policy.window_bytes
        content_bytes = min(self._inflater.yielded - window_bytes, self._watch.hold_from)
        raw_bytes = max(window_bytes, self._inflater.taken - self._raw.hold_from)
        while self._held:
            piece, inflated_bytes = self._held[0]
            rest_bytes = self._raw_held_bytes - len(piece)
            if inflated_bytes > content_bytes or rest_bytes < raw_bytes:
                return
            self._held.popleft()
            self._raw_held_bytes = rest_bytes
            out.append(piece)

    def _drop(self, fresh: Sequence[Finding]) -> Release:
        self._held.clear()
        return Release(findings=tuple(fresh), unscannable=self.unscannable)

    def _refuse(self, reason: str, fresh: Sequence[Finding]) -> Release:
        self.unscannable = reason
        self.close()
        return self._drop(fresh)


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


def _in_slices(scan: _PlainScan, chunk: bytes) -> Release:
    """Feed a chunk that is longer than the engine is given at once."""
    data: list[bytes] = []
    fresh: list[Finding] = []
    for offset in range(0, len(chunk), SLICE_BYTES_MAX):
        step = scan.feed(chunk[offset : offset + SLICE_BYTES_MAX])
        data.append(step.data)
        fresh += step.findings
    return Release(data=b"".join(data), findings=tuple(fresh))
