"""A log as a witness sees it: checkpoints of a tree of numbered entries, honest or forked."""

from __future__ import annotations

from aesp_proxy.record.merkle import leaf_hashes, root
from aesp_proxy.record.tlog.checkpoint import Checkpoint
from aesp_proxy.record.tlog.note import KeyType, Note, SigningNoteKey, sign_text, signing_key
from aesp_proxy.record.tlog.proof import hash_lines
from aesp_proxy.record.tlog.tile import join_hashes
from aesp_proxy.record.tlog.tree import Edge, TreeReader, grow

ORIGIN = "agg.example/log"
LOG = signing_key(ORIGIN, KeyType.ED25519, b"\x01" * 32)


def leaves(size: int, *, fork: int | None = None) -> list[bytes]:
    """Give the leaves of a tree; from ``fork`` on those of another history."""
    entries = [b"%d" % n if fork is None or n < fork else b"other %d" % n for n in range(size)]
    return leaf_hashes(entries)


def note(size: int, *, fork: int | None = None, key: SigningNoteKey = LOG) -> Note:
    """Sign a checkpoint."""
    text = Checkpoint(origin=key.public.name, size=size, root=root(leaves(size, fork=fork))).text
    return Note(text=text, signatures=(sign_text(text, key, time_s=0),))


def consistency(old: int, size: int, *, fork: int | None = None) -> list[bytes]:
    """Prove that a tree of ``size`` begins with one of ``old``."""
    edge, full = grow(Edge(), leaves(size, fork=fork))
    stored = {tile: join_hashes(hashes) for tile, hashes in [*full, *edge.tiles()]}
    return TreeReader(size=size, read=stored.__getitem__).consistency(old)


def request(
    old: int, size: int, *, fork: int | None = None, key: SigningNoteKey = LOG, bare: bool = False
) -> bytes:
    """Write an add-checkpoint request; ``bare`` without its proof."""
    proof = [] if bare or old > size else consistency(old, size, fork=fork)
    return f"old {old}\n{hash_lines(proof)}\n".encode() + note(size, fork=fork, key=key).encode()
