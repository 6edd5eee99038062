"""Scan and mask a compressed body that goes on as what it inflates to, without its coding.

Only for a request whose head was sent so: no Content-Encoding, and no length that was said.
What cannot be inflated stops such a body, also where a policy records what cannot be
scanned: its beginning has left inflated, so its bytes as they are would be nonsense behind it.
The raw bytes do not leave, and are not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from aesp_proxy.decide.secrets.body import Release, StreamPolicy
from aesp_proxy.decide.secrets.findings import Findings
from aesp_proxy.decide.secrets.inflate import Chain
from aesp_proxy.decide.secrets.masking import MaskingScan
from aesp_proxy.decide.secrets.watch import Sight
from aesp_proxy.model.decision import Finding


class UnpackedScan:
    """What a compressed body inflates to, as ``MaskingScan`` lets it go."""

    __slots__ = ("_inflater", "_problem", "_scan")

    def __init__(
        self, codings: Sequence[str], policy: StreamPolicy, findings: Findings, sight: Sight
    ) -> None:
        self._scan = MaskingScan(policy, findings, sight)
        self._inflater = Chain(
            codings, bytes_max=policy.inflated_bytes_max, ratio_max=policy.inflate_ratio_max
        )
        self._problem = ""

    @property
    def stopped(self) -> bool:
        """Whether nothing more will be released."""
        return self._scan.stopped

    @property
    def unscannable(self) -> str:
        """Why the body cannot be scanned, empty while it can."""
        return self._problem or self._scan.unscannable

    def feed(self, chunk: bytes) -> Release:
        """Take the next bytes of the compressed body; return what may leave now, inflated."""
        data: list[bytes] = []
        fresh: list[Finding] = []
        if not self.stopped:
            for content in self._inflater.feed(chunk):
                step = self._scan.feed(content)
                data.append(step.data)
                fresh += step.findings
                if self._has_stopped():
                    break
            self._heed()
        return self._release(data, fresh)

    def finish(self) -> Release:
        """Say that the body is complete and return what may still leave."""
        if self.stopped:
            return self._release([], [])
        self._inflater.finish()
        self._heed()
        return self._release([], []) if self._problem else self._scan.finish()

    def _has_stopped(self) -> bool:
        """Tell whether a step has stopped the scan (asked anew after each)."""
        return self.stopped

    def _heed(self) -> None:
        if self._inflater.problem and not self.stopped:
            self._problem = self._inflater.problem
            self.close()

    def _release(self, data: Sequence[bytes], fresh: Sequence[Finding]) -> Release:
        if self.stopped:
            return Release(findings=tuple(fresh), unscannable=self.unscannable)
        return Release(data=b"".join(data), findings=tuple(fresh))

    def close(self) -> None:
        """Let everything go; nothing is released after this."""
        self._scan.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
