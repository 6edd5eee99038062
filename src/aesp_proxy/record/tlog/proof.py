"""The proof that a log holds an entry, as a text that needs no network (C2SP tlog-proof)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aesp_proxy.errors import InputError, TrustError
from aesp_proxy.record.merkle import HASH_BYTES, leaf_hash, verify_inclusion
from aesp_proxy.record.tlog.note import (
    NOTE_BYTES_MAX,
    Note,
    from_base64,
    parse_decimal,
    parse_note,
    to_base64,
)
from aesp_proxy.record.tlog.policy import Accepted, LogPolicy

PROOF_BYTES_MAX: Final = NOTE_BYTES_MAX + 8192
PATH_HASHES_MAX: Final = 63
_FIRST_LINE: Final = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogProof:
    """Entry ``index``, the path from its leaf to the root, and the checkpoint that signs that."""

    index: int
    path: tuple[bytes, ...]
    note: Note
    extra: bytes = b""

    def encode(self) -> bytes:
        """Write the proof."""
        extra = f"extra {to_base64(self.extra)}\n" if self.extra else ""
        head = f"{_FIRST_LINE}\n{extra}index {self.index}\n{hash_lines(self.path)}\n"
        return head.encode() + self.note.encode()


def hash_lines(hashes: Sequence[bytes]) -> str:
    """Write hashes, one a line."""
    return "".join(to_base64(node) + "\n" for node in hashes)


def parse_hash_lines(lines: Sequence[str]) -> tuple[bytes, ...]:
    """Read hashes, one a line, at most 63. InputError."""
    if len(lines) > PATH_HASHES_MAX:
        raise InputError(f"the proof has {len(lines)} hashes")
    path = tuple(from_base64(line, "a hash of the proof") for line in lines)
    if any(len(node) != HASH_BYTES for node in path):
        raise InputError("a hash of the proof has another length")
    return path


def parse_proof(data: bytes) -> LogProof:
    """Read a proof, unverified. InputError for anything but its form."""
    if len(data) > PROOF_BYTES_MAX:
        raise InputError(f"the proof has {len(data)} bytes")
    head, blank, note = data.partition(b"\n\n")
    try:
        first, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise InputError("the proof is not ASCII before its checkpoint") from error
    if first != _FIRST_LINE or not blank or not lines:
        raise InputError(f"the proof does not begin with {_FIRST_LINE}")
    extra = b""
    if lines[0].startswith("extra "):
        extra = from_base64(lines.pop(0).removeprefix("extra "), "the extra data")
        if not extra:
            raise InputError("the extra data is empty")
    if not lines or not lines[0].startswith("index "):
        raise InputError("the proof has no index")
    index = parse_decimal(lines.pop(0).removeprefix("index "), "the index")
    return LogProof(index=index, path=parse_hash_lines(lines), note=parse_note(note), extra=extra)


def verify_proof(proof: LogProof, entry: bytes, policy: LogPolicy) -> Accepted:
    """Check that the log holds ``entry``. TrustError when it does not, or too few say so."""
    accepted = policy.accept(proof.note)
    checkpoint = accepted.checkpoint
    if not verify_inclusion(
        leaf_hash(entry), proof.index, checkpoint.size, proof.path, checkpoint.root
    ):
        raise TrustError(f"the entry is not number {proof.index} of the log {checkpoint.origin}")
    return accepted
