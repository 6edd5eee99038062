"""Scan a compressed body: what it inflates to, while its raw bytes wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from aesp_proxy.decide.secrets.body import Release, StreamPolicy, WatchedScan
from aesp_proxy.decide.secrets.findings import Findings
from aesp_proxy.decide.secrets.inflate import Chain
from aesp_proxy.decide.secrets.watch import Sight
from aesp_proxy.model.decision import Finding

RAW_PIECE_BYTES = 2_048
RAW_HELD_BYTES_MAX = 1 << 16
"""Compressed bytes that may wait for content: more is a body made to carry none."""


class InflatedScan(WatchedScan):
    """A compressed body: raw bytes leave once what they inflate to is a window behind.

    The raw bytes are watched as well: names and comments of gzip headers are plain.
    """

    __slots__ = ("_given_up", "_held", "_inflater", "_raw", "_raw_held_bytes")

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
        self._given_up = False

    def close(self) -> None:
        """Let everything go; nothing is released after this."""
        super().close()
        self._raw.close()

    def feed(self, chunk: bytes) -> Release:
        """Take the next bytes of the body and return what may leave now."""
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
            self._give_up("the compressed body carries too little content")
            fresh += self._weigh()
            if self._halted():
                return self._drop(fresh)
        return Release(data=b"".join(out), findings=tuple(fresh))

    def finish(self) -> Release:
        """Say that the body is complete and return what may still leave."""
        if self.stopped:
            return Release(unscannable=self.unscannable)
        self._inflater.finish()
        self._give_up(self._inflater.problem)
        if self._halted():
            return self._drop([])
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
        for content in () if self._given_up else self._inflater.feed(piece):
            self._findings.add(self._watch.see(content), cut=self._watch.cut)
        fresh = self._weigh()
        self._give_up(self._inflater.problem)
        return fresh + self._findings.take()

    def _give_up(self, problem: str) -> None:
        """Stop, or go on with the raw bytes alone, when the stream cannot be inflated."""
        if problem and not self._given_up:
            self._given_up = True
            self._cannot(problem)

    def _let_go(self, out: list[bytes]) -> None:
        """Move to ``out`` the raw pieces that are a window behind, raw and inflated."""
        window_bytes = self._policy.window_bytes
        content_bytes = min(self._inflater.yielded - window_bytes, self._watch.hold_from)
        if self._given_up:
            content_bytes = self._inflater.yielded
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
