from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.record.merkle import (
    EMPTY_ROOT,
    inclusion_proof,
    leaf_hash,
    leaf_hashes,
    root,
    verify_inclusion,
)

# The inputs and roots of the Certificate Transparency reference implementation.
_INPUTS = [
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]  # fmt: skip
_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
_rows = st.lists(st.binary(max_size=8), min_size=1, max_size=40)


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_certificate_transparency(size: int) -> None:
    leaves = [leaf_hash(bytes.fromhex(text)) for text in _INPUTS[:size]]
    assert root(leaves).hex() == _ROOTS[size - 1]


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert root([]) == EMPTY_ROOT == sha256(b"").digest()


def _by_the_rfc(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    left, right = _by_the_rfc(leaves[:split]), _by_the_rfc(leaves[split:])
    return sha256(b"\x01" + left + right).digest()


@given(_rows)
def test_the_root_is_the_recursive_one_of_the_rfc(rows: list[bytes]) -> None:
    leaves = leaf_hashes(rows)
    assert root(leaves) == _by_the_rfc(leaves)


@given(_rows, st.data())
def test_every_leaf_has_a_proof_and_no_other_leaf_or_place_has_it(
    rows: list[bytes], data: st.DataObject
) -> None:
    leaves = leaf_hashes(rows)
    index = data.draw(st.integers(0, len(rows) - 1))
    path, top = inclusion_proof(leaves, index), root(leaves)
    assert verify_inclusion(leaves[index], index, len(leaves), path, top)
    assert not verify_inclusion(leaf_hash(b"another leaf"), index, len(leaves), path, top)
    assert not verify_inclusion(leaves[index], len(leaves), len(leaves), path, top)
    assert not verify_inclusion(leaves[index], index, len(leaves), [*path, bytes(32)], top)
    if path:
        assert not verify_inclusion(leaves[index], index, len(leaves), path[:-1], top)
        flipped = [bytes([path[0][0] ^ 1]) + path[0][1:], *path[1:]]
        assert not verify_inclusion(leaves[index], index, len(leaves), flipped, top)


def test_there_is_no_proof_for_a_leaf_that_is_not_there() -> None:
    with pytest.raises(IndexError):
        inclusion_proof([bytes(32)], 1)
