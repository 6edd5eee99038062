from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aesp_proxy.errors import InputError
from aesp_proxy.record.merkle import (
    EMPTY_ROOT,
    inclusion_proof,
    leaf_hash,
    root,
    verify_consistency,
    verify_inclusion,
)
from aesp_proxy.record.tlog.tile import (
    Tile,
    join_entries,
    join_hashes,
    parse_tile_path,
    split_entries,
    tile_at,
)
from aesp_proxy.record.tlog.tree import Edge, TreeReader, grow, load_edge

LEAVES = [leaf_hash(number.to_bytes(4)) for number in range(66_000)]
SIZES = [*range(1, 20), 127, 128, 255, 256, 257, 511, 512, 513, 700, 65_535, 65_536, 65_537]


def built(steps: list[int]) -> tuple[Edge, dict[str, bytes]]:
    """Grow a tree in steps as the aggregator does, with what it stores."""
    edge, stored = Edge(), {}
    for size in steps:
        edge, full = grow(edge, LEAVES[edge.size : size])
        for tile, hashes in [*full, *edge.tiles()]:
            assert stored.setdefault(tile.path, join_hashes(hashes)) == join_hashes(hashes)
    return edge, stored


def reader(size: int, stored: dict[str, bytes]) -> TreeReader:
    return TreeReader(size=size, read=lambda tile: stored[tile.path])


def mth(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:  # noqa: FBT001
    """RFC 6962 section 2.1.2, word for word."""
    n = len(leaves)
    if m == n:
        return [] if whole else [mth(leaves)]
    k = 1
    while k * 2 < n:
        k *= 2
    if m <= k:
        return [*subproof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], whole=False), mth(leaves[:k])]


@pytest.mark.parametrize("size", SIZES)
def test_the_root_from_tiles_is_that_of_the_leaves(size: int):
    edge, stored = built([size])
    assert edge.root == root(LEAVES[:size]) == reader(size, stored).root()
    assert load_edge(size, lambda tile: stored[tile.path]) == edge


def test_a_tree_of_nothing_has_the_root_of_nothing():
    assert Edge().root == EMPTY_ROOT == TreeReader(size=0, read=lambda _: b"").root()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 900), min_size=1, max_size=6, unique=True), st.data())
def test_growing_in_any_steps_gives_the_proofs_of_the_rfc(steps: list[int], data: st.DataObject):
    steps = sorted(steps)
    size = steps[-1]
    edge, stored = built(steps)
    leaves = LEAVES[:size]
    assert edge.root == mth(leaves)
    index = data.draw(st.integers(0, size - 1))
    path = reader(size, stored).inclusion(index)
    assert path == inclusion_proof(leaves, index)
    assert verify_inclusion(leaves[index], index, size, path, edge.root)
    old = data.draw(st.integers(1, size))
    proof = reader(size, stored).consistency(old)
    assert proof == subproof(old, leaves, whole=True)
    old_root = mth(leaves[:old])
    assert verify_consistency(old, size, old_root, edge.root, proof)
    assert not verify_consistency(old, size, bytes(32), edge.root, proof)
    assert not verify_consistency(old, size, old_root, bytes(32), proof)
    for at in range(len(proof)):
        changed = [*proof[:at], bytes(32), *proof[at + 1 :]]
        assert not verify_consistency(old, size, old_root, edge.root, changed)
        assert not verify_consistency(old, size, old_root, edge.root, proof[:at])
    assert not verify_consistency(old, size, old_root, edge.root, [*proof, bytes(32)])


def test_every_pair_of_small_trees_has_its_consistency_proof():
    _, stored = built(list(range(1, 34)))
    for size in range(1, 34):
        for old in range(size + 1):
            proof = reader(size, stored).consistency(old)
            assert verify_consistency(old, size, mth(LEAVES[:old]), mth(LEAVES[:size]), proof)
            if 0 < old < size:
                forked = mth([*LEAVES[: old - 1], leaf_hash(b"other")])
                assert not verify_consistency(old, size, forked, mth(LEAVES[:size]), proof)


def test_proofs_over_three_levels_of_tiles_hold():
    size = 65_600
    edge, stored = built([65_000, 65_536, size])
    assert {path.split("/")[1] for path in stored} == {"0", "1", "2"}
    for index in (0, 255, 256, 65_535, 65_536, 65_599):
        path = reader(size, stored).inclusion(index)
        assert verify_inclusion(LEAVES[index], index, size, path, edge.root)
    for old in (1, 256, 65_535, 65_536, 65_537):
        proof = reader(size, stored).consistency(old)
        assert verify_consistency(old, size, root(LEAVES[:old]), edge.root, proof)


def test_there_is_no_proof_beyond_the_tree():
    _, stored = built([5])
    with pytest.raises(IndexError):
        reader(5, stored).inclusion(5)
    with pytest.raises(IndexError):
        reader(5, stored).consistency(6)


@pytest.mark.parametrize(
    ("path", "tile"),
    [
        ("tile/0/x001/x234/067", Tile(level=0, index=1_234_067)),
        ("tile/0/000", Tile(level=0, index=0)),
        ("tile/63/x001/000.p/255", Tile(level=63, index=1000, width=255)),
        ("tile/entries/x001/234.p/8", Tile(level=None, index=1234, width=8)),
    ],
)
def test_the_places_of_the_specification_are_read_and_written(path: str, tile: Tile):
    assert tile.path == path
    assert parse_tile_path(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "", "tile", "tile/0", "tile/0/", "tile/0/1", "tile/0/0000", "tile/00/000", "tile/64/000",
        "tile/-1/000", "tile/0/x000/000", "tile/0/001/000", "tile/0/x001/x000", "tile/0/000.p/0",
        "tile/0/000.p/256", "tile/0/000.p/01", "tile/0/000.p/", "tile/0/../000", "tile/0/000/",
        "tile/0/000.p/1.p/1", "tile/entries/x/000", "tile/0/\u0660\u0660\u0660", "/tile/0/000",
        "checkpoint",
        "tile/0/" + "x001/" * 30 + "000",
    ],
)  # fmt: skip
def test_what_is_no_place_of_a_tile_is_refused(path: str):
    with pytest.raises(InputError):
        parse_tile_path(path)


def test_the_tiles_of_the_example_of_the_specification_are_there():
    """A tree of 70,000: 273 full tiles and one of 112; one full and one of 17; one of 1."""
    assert tile_at(0, 272, 70_000).width == 256
    assert tile_at(0, 273, 70_000).width == 112
    assert tile_at(1, 0, 70_000).width == 256
    assert tile_at(1, 1, 70_000).width == 17
    assert tile_at(2, 0, 70_000).width == 1
    for level, index in ((0, 274), (1, 2), (2, 1), (3, 0)):
        with pytest.raises(InputError):
            tile_at(level, index, 70_000)


@given(st.lists(st.binary(max_size=20), max_size=256))
def test_a_bundle_gives_back_its_entries(entries: list[bytes]):
    data = join_entries(entries)
    assert split_entries(data, len(entries)) == entries
    for short in (data[:-1], data + b"\x00"):
        if entries:
            with pytest.raises(InputError):
                split_entries(short, len(entries))


def test_an_entry_that_fits_no_length_is_refused():
    assert split_entries(join_entries([bytes(65_535)]), 1) == [bytes(65_535)]
    with pytest.raises(InputError):
        join_entries([bytes(65_536)])
