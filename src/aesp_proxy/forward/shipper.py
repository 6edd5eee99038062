"""Bring batches to the aggregator, in order, until its signed receipt covers them.

Rules: never drops and never skips; goes on where the aggregator says, if the
batch is still here; what the aggregator refuses for good is said loudly and
tried again slowly, because only people can mend it. Randomness is passed in.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aesp_proxy.errors import UnavailableError
from aesp_proxy.forward.spool import Spool
from aesp_proxy.forward.transport import Answer, Transport
from aesp_proxy.record.faults import ChainError, Fault

PAUSE_FIRST_S: Final = 0.5
PAUSE_S_MAX: Final = 30.0
_STALLS_MAX: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """How one round went: batches sent, the newest covered, how many still wait."""

    sent: int
    covered: int
    waiting: int


class Shipper:
    """Ships from one spool over one transport."""

    def __init__(self, spool: Spool, transport: Transport, *, wall: Callable[[], float]) -> None:
        self._spool, self._transport, self._wall = spool, transport, wall

    def ship_once(self, *, keep_going: Callable[[], bool] = lambda: True) -> Shipped:
        """Ship everything that is sealed now.

        UnavailableError: later. TrustError: the aggregator refuses for good, or
        its receipt does not hold. Nothing is lost by either.
        """
        covered = self._covered()
        number, sent, stalls = covered + 1, 0, 0
        newest = self._spool.newest()
        while number <= newest and keep_going():
            answer = self._transport.post(self._spool.read(number))
            sent += 1
            following = self._after(number, answer, covered=covered)
            covered = max(covered, self._covered())
            stalls = stalls + 1 if following <= number else 0
            if stalls > _STALLS_MAX:
                raise UnavailableError(
                    f"the aggregator asks for batch {following} again and again",
                    remedy="batches wait in the spool",
                )
            number = following
        self._spool.release(now_s=self._wall())
        return Shipped(sent=sent, covered=covered, waiting=max(0, newest - covered))

    def _covered(self) -> int:
        receipt = self._spool.covered()
        return receipt.batch_no if receipt else 0

    def _after(self, number: int, answer: Answer, *, covered: int) -> int:
        """Give the number to send next, or raise what stands in the way."""
        if answer.status == 200:
            receipt = self._spool.store(answer.body)
            if receipt.batch_no < number:
                raise UnavailableError(
                    f"batch {number} was taken and the receipt covers {receipt.batch_no} only"
                )
            return receipt.batch_no + 1
        code, resume_from = _problem_of(answer.body)
        if answer.status == 409 and code == "gap":
            return self._resume(resume_from, covered=covered)
        if answer.status in {403, 409, 413, 422}:
            kind = _KINDS.get(code, Fault.CHANGED)
            raise ChainError(
                kind,
                f"the aggregator refuses batch {number}: {code or answer.status}"
                + _REMEDIES.get(code, ""),
            )
        raise UnavailableError(
            f"the aggregator answers {answer.status}", remedy="batches wait in the spool"
        )

    def _resume(self, resume_from: int, *, covered: int) -> int:
        if not 1 <= resume_from <= self._spool.newest():
            raise ChainError(
                Fault.FORKED, f"the aggregator asks for batch {resume_from}, which is not sealed"
            )
        if resume_from <= covered and not self._spool.has(resume_from):
            raise ChainError(
                Fault.MISSING,
                f"the aggregator signed for batch {covered} and asks for {resume_from} again, "
                "which was released on that word",
            )
        return resume_from


_REMEDIES: Final = {
    "unknown_certificate": ": revoked or ended? enrol this host again (aesp-proxy enroll --help)",
    "unknown_origin": ": enrol this host again (aesp-proxy enroll --help)",
    "quarantined": ": it forked before; who keeps the aggregator releases it",
    "fork": ": two histories of this host; was its state restored from a copy?",
}
_KINDS: Final = {
    "fork": Fault.FORKED,
    "quarantined": Fault.FORKED,
    "wrong_key": Fault.WRONG_KEY,
    "unknown_key": Fault.WRONG_KEY,
    "retired_key": Fault.WRONG_KEY,
    "foreign_key": Fault.WRONG_KEY,
    "other_origin": Fault.WRONG_KEY,
    "unknown_certificate": Fault.WRONG_KEY,
    "oversize": Fault.OVERSIZE,
    "too_large": Fault.OVERSIZE,
    "non_canonical": Fault.NON_CANONICAL,
    "seq_gap": Fault.SEQ_GAP,
}


def _problem_of(body: bytes) -> tuple[str, int]:
    try:
        problem = json.loads(body)
        code, resume_from = problem.get("code", ""), problem.get("resume_from", 0)
    except (ValueError, AttributeError, RecursionError):
        return "", 0
    if not isinstance(code, str) or type(resume_from) is not int:
        return "", 0
    return code[:64], resume_from


def pause_s(failures: int, unit: float, *, addresses: int = 1, asked_s: float = 0.0) -> float:
    """Give the pause after so many failures: exponential, full jitter, bounded.

    ``unit`` is a random number in [0, 1). At least a tenth of the range, so
    that a loop cannot spin. With several ``addresses`` the next is tried soon, and it
    grows when all have failed. ``asked_s`` is what an aggregator asks for at least.
    """
    laps, rest = divmod(failures, addresses)
    highest = PAUSE_FIRST_S if rest else min(PAUSE_S_MAX, PAUSE_FIRST_S * 2 ** min(laps, 16))
    pause = float(highest * (0.1 + 0.9 * unit))
    return pause if rest else max(pause, asked_s * (1 + unit))
