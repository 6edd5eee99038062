"""Fuzz target: a pack of git, damaged or made up, says the same however it is cut, or is damaged.

The first byte chooses where it is cut and whether the rest is a pack as it is or the content of
objects: of every sixteen bytes the first is the kind of an object, whole or a change.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from aesp_proxy.decide.secrets.codings import DamagedError
from aesp_proxy.decide.secrets.git_pack import PACK_START, GitPack

OBJECT_BYTES = 16
COPIED_TIMES_MAX = 256
"""A copy of seven bytes shows at most 128 of what it takes."""


class FindingError(AssertionError):
    """A promise that did not hold."""


def _objects(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), OBJECT_BYTES):
        kind, content = data[at], data[at + 1 : at + OBJECT_BYTES]
        head = bytes(((kind & 7) << 4 | len(content) & 15,))
        behind = {6: bytes((kind >> 3,)), 7: bytes(20)}.get(kind & 7, b"")
        yield head + behind + zlib.compress(content)


def _read(parts: list[bytes]) -> tuple[bytes, bool, bytes]:
    """Return what a pack says, whether it ended, and what is behind it; DamagedError."""
    pack = GitPack()
    said = b"".join(piece for part in parts if not pack.ended for piece in pack.pieces(part))
    return said, pack.ended, pack.unused


def fuzz_one(data: bytes) -> None:
    """Run one input."""
    first, rest = (data[0] if data else 0), data[1:]
    count = -(-len(rest) // OBJECT_BYTES)
    made = b"".join(_objects(rest)) if first & 1 else rest
    pack = PACK_START + b"\2" + count.to_bytes(4, "big") + made
    try:
        said, ended, unused = _read([pack])
    except DamagedError:
        return
    if len(said) > 1_000 * (COPIED_TIMES_MAX + 4) * len(pack):
        raise FindingError("more came out than may")
    cut = 12 + first % max(1, len(made))
    halves, ended_too, unused_too = _read([pack[:cut], pack[cut:]])
    if ended != ended_too or said != halves or (ended and len(unused) != len(unused_too)):
        raise FindingError("a pack in two pieces is another one")
