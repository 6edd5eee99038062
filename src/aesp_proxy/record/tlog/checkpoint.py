"""Checkpoints: the signed head of a log's tree (C2SP tlog-checkpoint)."""

from __future__ import annotations

from dataclasses import dataclass

from aesp_proxy.errors import InputError
from aesp_proxy.record.merkle import EMPTY_ROOT, HASH_BYTES
from aesp_proxy.record.tlog.note import from_base64, parse_decimal, to_base64


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """How many leaves a log has, and the RFC 6962 root over them (32 bytes).

    ``extensions`` are opaque lines that are signed too; a log of ours writes none.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The text that is signed."""
        lines = (self.origin, str(self.size), to_base64(self.root), *self.extensions)
        return "".join(line + "\n" for line in lines)


def parse_checkpoint(text: str) -> Checkpoint:
    """Read the text of a note as a checkpoint. InputError when it is none."""
    *lines, last = text.split("\n")
    if len(lines) < 3 or last or not all(lines):
        raise InputError("the checkpoint has not the three lines of one")
    size = parse_decimal(lines[1], "the size of the tree")
    root = from_base64(lines[2], "the root")
    if len(root) != HASH_BYTES or (not size and root != EMPTY_ROOT):
        raise InputError("the root is none of that tree")
    return Checkpoint(origin=lines[0], size=size, root=root, extensions=tuple(lines[3:]))
