"""Fuzz target: damaged compressed bodies give pieces and a problem, never an exception.

The first byte chooses the codings; what comes out never exceeds its bound by a piece.
"""

from __future__ import annotations

from aesp_proxy.decide.secrets.codings import HTTP_CODINGS
from aesp_proxy.decide.secrets.inflate import Chain, coding_problem
from aesp_proxy.decide.secrets.views.packed import packed_kind

CODINGS = sorted(HTTP_CODINGS)
BYTES_MAX = 100_000


class FindingError(AssertionError):
    """A promise that did not hold."""


def _inflated(codings: list[str], parts: list[bytes]) -> tuple[bytes, bool]:
    chain = Chain(codings, bytes_max=BYTES_MAX, ratio_max=50)
    out = b"".join(piece for part in parts if not chain.problem for piece in chain.feed(part))
    if not chain.problem:
        chain.finish()
    return out, bool(chain.problem)


def fuzz_one(data: bytes) -> None:
    """Run one input."""
    first, rest = (data[0] if data else 0), data[1:]
    packed_kind(rest)
    coding_problem([rest[:20].decode("latin-1")])
    one, two = CODINGS[first % len(CODINGS)], CODINGS[first // 16 % len(CODINGS)]
    for codings in ([one], [one, two]):
        out, failed = _inflated(codings, [rest])
        if len(out) > BYTES_MAX + 1_000_000:
            raise FindingError("more came out than may")
        halves, failed_too = _inflated(codings, [rest[: first % 16], rest[first % 16 :]])
        if failed != failed_too or (not failed and out != halves):
            raise FindingError("a body in two pieces is another one")
