"""What can be wrong with a chain of batches, in one closed set of words.

The words are API: they stand in the output of ``audit verify``, in the answers
of the aggregator and in the tests, one of which exists for each word.
"""

from __future__ import annotations

from enum import StrEnum

from aesp_proxy.errors import TrustError


class Fault(StrEnum):
    """One kind of fault."""

    CHANGED = "changed"
    """Bytes are not the bytes that were signed."""
    MISSING = "missing"
    """A batch, or a record within one, is not there."""
    REORDERED = "reordered"
    """A batch or record stands in another place than its number says."""
    FORKED = "forked"
    """Two histories: same number with another hash, or another predecessor."""
    REPLAYED = "replayed"
    """The same batch, or an epoch that has ended, a second time."""
    TRUNCATED = "truncated"
    """The chain ends before the newest batch that a receipt or head names."""
    CLOCK = "clock"
    """Sealing times go backwards."""
    WRONG_KEY = "wrong_key"
    """Signed by a key that is unknown, retired, or not that origin's."""
    SEQ_GAP = "seq_gap"
    """The first sequence number of a batch does not follow the last one."""
    NON_CANONICAL = "non_canonical"
    """Bytes that are not the one canonical form of what they say."""
    OVERSIZE = "oversize"
    """More bytes or rows than the limit allows, found before inflating."""
    LOST = "lost"
    """The host itself declares, signed, that records were lost."""
    UNCLEAN = "unclean"
    """The writer ended without closing its journal (killed, or power lost)."""


NOTES = frozenset({Fault.UNCLEAN})
"""What is worth saying and is not a fault of the record: a killed proxy is no forgery."""


class ChainError(TrustError):
    """A batch does not hold; ``kind`` says how, ``row`` which row, -1 for none."""

    def __init__(self, kind: Fault, message: str, *, where: str = "", row: int = -1) -> None:
        super().__init__(message, where=where)
        self.kind = kind
        self.row = row
