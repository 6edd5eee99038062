"""Tiles and entry bundles: where they are and what is in them (C2SP tlog-tiles)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aesp_proxy.errors import InputError
from aesp_proxy.record.merkle import HASH_BYTES

TILE_WIDTH: Final = 256
TILE_HEIGHT: Final = 8
ENTRY_BYTES_MAX: Final = 65_535
LEVEL_MAX: Final = 63
_PATH_CHARS_MAX: Final = 64
_LENGTH_BYTES: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One tile: ``level`` None is a bundle of entries, ``width`` below 256 a partial one."""

    level: int | None
    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """Its place below the log's prefix: ``tile/0/x001/x234/067.p/8``."""
        digits = f"{self.index:03d}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        parts = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        number = "/".join([*(f"x{part}" for part in parts[:-1]), parts[-1]])
        level = "entries" if self.level is None else str(self.level)
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{level}/{number}{partial}"

    @property
    def whole(self) -> Tile:
        """The full tile in the same place."""
        return Tile(level=self.level, index=self.index)


def parse_tile_path(path: str) -> Tile:
    """Read a place that :attr:`Tile.path` writes, and no other. InputError."""
    place, _, width = path.partition(".p/")
    root, _, rest = place.partition("/")
    level, _, number = rest.partition("/")
    digits = "".join(part.removeprefix("x") for part in number.split("/"))
    if root != "tile" or len(path) > _PATH_CHARS_MAX or not digits.isascii():
        raise InputError("the path is none of a tile")
    try:
        tile = Tile(
            level=None if level == "entries" else int(level),
            index=int(digits),
            width=int(width) if width else TILE_WIDTH,
        )
    except ValueError as error:
        raise InputError("the path is none of a tile") from error
    in_range = 0 <= (tile.level or 0) <= LEVEL_MAX and 1 <= tile.width <= TILE_WIDTH
    if not in_range or tile.path != path:
        raise InputError("the path is none of a tile")
    return tile


def tile_at(level: int | None, index: int, size: int) -> Tile:
    """Give the tile at a place of a tree of ``size`` leaves. InputError when there is none."""
    width = min(TILE_WIDTH, (size >> TILE_HEIGHT * (level or 0)) - index * TILE_WIDTH)
    if width < 1:
        raise InputError(f"a log of {size} entries has no such tile")
    return Tile(level=level, index=index, width=width)


def edge_tiles(size: int) -> list[Tile]:
    """Give the partial tiles of a tree of ``size`` leaves, lowest level first."""
    found = []
    level = 0
    while size >> TILE_HEIGHT * level:
        index, width = divmod(size >> TILE_HEIGHT * level, TILE_WIDTH)
        if width:
            found.append(Tile(level=level, index=index, width=width))
        level += 1
    return found


def join_hashes(hashes: Sequence[bytes]) -> bytes:
    """Write the content of a tile."""
    return b"".join(hashes)


def split_hashes(data: bytes, width: int) -> list[bytes]:
    """Read a tile of ``width`` hashes, or the beginning of a wider one. InputError."""
    if len(data) < width * HASH_BYTES or len(data) % HASH_BYTES:
        raise InputError("a tile has another length than its place says")
    return [data[at : at + HASH_BYTES] for at in range(0, width * HASH_BYTES, HASH_BYTES)]


def join_entries(entries: Sequence[bytes]) -> bytes:
    """Write the content of a bundle. InputError for an entry over 65,535 bytes."""
    if any(len(entry) > ENTRY_BYTES_MAX for entry in entries):
        raise InputError(f"an entry has more than {ENTRY_BYTES_MAX} bytes")
    return b"".join(len(entry).to_bytes(_LENGTH_BYTES) + entry for entry in entries)


def split_entries(data: bytes, width: int) -> list[bytes]:
    """Read a bundle of ``width`` entries, or the beginning of a wider one. InputError."""
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        end = at + _LENGTH_BYTES + int.from_bytes(data[at : at + _LENGTH_BYTES])
        if end > len(data) or at + _LENGTH_BYTES > len(data):
            raise InputError("a bundle of entries is cut off")
        entries.append(data[at + _LENGTH_BYTES : end])
        at = end
    if not width <= len(entries) <= TILE_WIDTH:
        raise InputError("a bundle has another number of entries than its place says")
    return entries[:width]
