"""Scan a body that flows, and overwrite what a policy says is to be overwritten.

Rules, beside those of ``body``:

- What leaves has the length of what came; of a secret no byte leaves as it was but those
  that hold the format together (see ``overwrite``).
- What adjoins a secret as the same token is overwritten too, to the token's end, however
  far that is: a rule may have matched only its beginning.
- A private key is overwritten from its head to its end, at most ``ARMOUR_BYTES_MAX``.
- What cannot be overwritten (it has left already, is no longer than its format, or has
  no end) stops the body, as a finding that is refused does.
- ``hear`` is given what leaves, masked: of a secret that has not left there are no pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from aesp_proxy.decide.secrets.body import Release, StreamPolicy, WatchedScan
from aesp_proxy.decide.secrets.findings import Findings
from aesp_proxy.decide.secrets.hyperscan import SLICE_BYTES_MAX
from aesp_proxy.decide.secrets.overwrite import is_token, overwrite
from aesp_proxy.decide.secrets.reference import Candidate
from aesp_proxy.decide.secrets.watch import Sight
from aesp_proxy.model.decision import WRAPPED, Finding, Verdict

ARMOUR_BYTES_MAX: Final = 64 * 1024
_BEGIN: Final = b"-----BEGIN"
_END: Final = b"-----END"
_NOT_MASKED: Final = "a secret in it cannot be masked any more"
_MASKABLE: Final = frozenset(("base64", "base32", "hex"))
"""Wrappings of letters and digits alone."""
_NOTHING: Final = Release()


class MaskingScan(WatchedScan):
    """A body as it is: the last window is held, what leaves has its secrets overwritten."""

    __slots__ = ("_armour", "_armour_bytes", "_hear", "_held", "_is_open", "_left")

    def __init__(self, policy: StreamPolicy, findings: Findings, sight: Sight) -> None:
        super().__init__(replace(policy, hear=None), findings, sight)
        self._hear = policy.hear
        self._held = bytearray()
        self._left = 0  # offset in the stream of the first byte that is held
        self._is_open = False  # the last byte overwritten was the last that had come
        self._armour = -1  # offset from which a private key is still to be overwritten
        self._armour_bytes = 0

    def feed(self, chunk: bytes) -> Release:
        """Take the next bytes of the body and return what may leave now."""
        data: list[bytes] = []
        fresh: list[Finding] = []
        for offset in range(0, len(chunk), SLICE_BYTES_MAX):
            if self._halted():
                break
            piece = chunk[offset : offset + SLICE_BYTES_MAX]
            fresh += self._take(piece)
            waiting = self._left + len(self._held) - self._watch.hold_from
            data.append(self._leave(max(self._policy.window_bytes, waiting)))
        return self._release(b"".join(data), fresh)

    def finish(self) -> Release:
        """Say that the body is complete and return what may still leave."""
        if self._halted():
            return _NOTHING
        fresh = self._mask(self._watch.finish())
        self._mask_armour(is_last=True)
        if self._halted():
            return self._release(b"", fresh)
        data = self._leave(0)
        self.close()
        return Release(data=data, findings=tuple(fresh))

    def _release(self, data: bytes, fresh: Sequence[Finding]) -> Release:
        if self._halted():
            self._held.clear()
            # What came before the secret in this chunk stays too: it is too late for it.
            return Release(findings=tuple(fresh), unscannable=self.unscannable)
        return Release(data=data, findings=tuple(fresh))

    def _take(self, piece: bytes) -> Sequence[Finding]:
        at = len(self._held)
        self._held += piece
        if self._is_open:
            self._go_on(at)
        fresh = self._mask(self._watch.see(piece))
        self._mask_armour(is_last=False)
        return fresh

    def _leave(self, window_bytes: int) -> bytes:
        cut = max(0, len(self._held) - window_bytes)
        data = bytes(self._held[:cut])
        del self._held[:cut]
        self._left += cut
        if self._hear is not None and data:
            self._hear(data)
        return data

    def _mask(self, candidates: Sequence[Candidate]) -> tuple[Finding, ...]:
        fresh = self._judge(candidates, cut=self._watch.cut)
        for candidate in candidates:
            if self._policy.verdict_of(candidate.rule.id, candidate.severity) is Verdict.REDACT:
                self._overwrite(candidate)
        return fresh

    def _overwrite(self, candidate: Candidate) -> None:
        held = self._held
        start = candidate.start - self._left
        stop = candidate.stop - self._left
        if start < 0 or not candidate.value or not _is_maskable(candidate):
            self.unscannable = _NOT_MASKED
            self.close()
            return
        # Of a registered value a piece was found, or a spelling; of a wrapping, the inside.
        if candidate.fingerprint or candidate.via:
            while start > 0 and is_token(held[start - 1]):
                start -= 1
        while stop < len(held) and is_token(held[stop]):
            stop += 1
        stop = min(stop, len(held))
        if _is_armour(candidate):
            self._armour = candidate.start if self._armour < 0 else self._armour
            return
        overwrite(held, start, stop, json=self._policy.is_json)
        self._is_open = stop == len(held)

    def _go_on(self, at: int) -> None:
        """Overwrite the rest of a token whose beginning was overwritten."""
        stop = at
        while stop < len(self._held) and is_token(self._held[stop]):
            stop += 1
        overwrite(self._held, at, stop, json=self._policy.is_json)
        self._is_open = stop == len(self._held)

    def _mask_armour(self, *, is_last: bool) -> None:
        """Overwrite a private key as far as it has come; its end may be cut."""
        if self._armour < 0 or self._halted():
            return
        start = max(0, self._armour - self._left)
        end = self._held.find(_END, start)
        stop = end if end >= 0 else len(self._held) - (0 if is_last else len(_END))
        if stop > start:
            overwrite(self._held, start, stop)
            self._armour = self._left + stop
            self._armour_bytes += stop - start
        if end >= 0:
            self._armour, self._armour_bytes = -1, 0
        elif self._armour_bytes > ARMOUR_BYTES_MAX:
            self.unscannable = "a private key in it has no end"
            self.close()


class MaskingMessages(WatchedScan):
    """Messages: each leaves as a whole, its secrets overwritten, or not at all."""

    __slots__ = ("_hear", "_sight", "_total")

    def __init__(self, policy: StreamPolicy, findings: Findings, sight: Sight) -> None:
        super().__init__(replace(policy, hear=None), findings, sight)
        self._hear = policy.hear
        self._sight = sight
        self._total = 0

    def feed(self, chunk: bytes) -> Release:
        """Take one message and return it as it may leave."""
        if self._halted():
            return _NOTHING
        seen = self._sight.block(chunk)
        candidates = seen.candidates
        for candidate in candidates:
            self._findings.add_here(candidate, self._total + candidate.start)
        over: list[Candidate] = []
        for offset in range(0, len(chunk), SLICE_BYTES_MAX):
            over += self._watch.see(chunk[offset : offset + SLICE_BYTES_MAX])
        self._findings.add(over, cut=seen.cut or self._watch.cut)
        self._cannot(seen.problem)
        fresh = self._weigh()
        begun = any(one.start < self._total and self._is_masked(one) for one in over)
        endless = any(
            (_goes_on(one, chunk) or not _is_maskable(one)) and self._is_masked(one)
            for one in candidates
        )
        self._total += len(chunk)
        if begun or endless:
            self.unscannable = _NOT_MASKED
            self.close()
        if self._halted():
            return Release(findings=fresh, unscannable=self.unscannable)
        data = self._overwritten(chunk, candidates)
        if self._hear is not None:
            self._hear(data)
        return Release(data=data, findings=fresh)

    def finish(self) -> Release:
        """End the messages; nothing is held."""
        if self._halted():
            return _NOTHING
        fresh = self._judge(self._watch.finish(), cut=self._watch.cut)
        self.close()
        return Release(findings=fresh, unscannable=self.unscannable)

    def _is_masked(self, candidate: Candidate) -> bool:
        verdict = self._policy.verdict_of(candidate.rule.id, candidate.severity)
        return verdict is Verdict.REDACT

    def _overwritten(self, message: bytes, candidates: Sequence[Candidate]) -> bytes:
        masked = [one for one in candidates if self._is_masked(one)]
        if not masked:
            return message
        data = bytearray(message)
        for one in masked:
            start, stop = one.start, one.stop
            if _is_armour(one):
                stop = data.find(_END, start)
            while (one.fingerprint or one.via) and start > 0 and is_token(data[start - 1]):
                start -= 1
            while stop < len(data) and is_token(data[stop]):
                stop += 1
            overwrite(data, start, min(stop, len(data)), json=self._policy.is_json)
        return bytes(data)


def _is_armour(candidate: Candidate) -> bool:
    return candidate.value.startswith(_BEGIN) and not candidate.via


def _is_maskable(candidate: Candidate) -> bool:
    """Tell whether overwriting letters destroys what was found: not where escapes spell it."""
    return not candidate.via or candidate.via.partition(WRAPPED)[0] in _MASKABLE


def _goes_on(candidate: Candidate, message: bytes) -> bool:
    """Tell whether a private key does not end in its message."""
    return _is_armour(candidate) and message.find(_END, candidate.start) < 0
