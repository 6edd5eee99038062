"""Whatever fails and whenever: one history, and every checkpoint of it can be proved."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_lab import KEY, KEYS, Objects, Shelf, assert_provable, integrator

from aesp_proxy.aggregator.log.keys import LogKeys
from aesp_proxy.aggregator.log.prove import LogProver
from aesp_proxy.aggregator.log.store import CHECKPOINT_KEY, SIGNED_KEY, LogStore
from aesp_proxy.errors import InputError, RecordError, TrustError, UnavailableError
from aesp_proxy.record.merkle import leaf_hashes, root, verify_consistency
from aesp_proxy.record.tlog.note import KeyType, signing_key
from aesp_proxy.record.tlog.policy import policy_of
from aesp_proxy.record.tlog.proof import parse_proof, verify_proof

POLICY = policy_of(KEYS.public, [])


def logged(shelf: Shelf, objects: Objects, keys: LogKeys = KEYS) -> None:
    """Do what the process does, without witnesses."""
    made = integrator(shelf, objects, keys)
    while made.step():
        pass
    LogStore(objects).publish(made.note)


@pytest.mark.parametrize("sizes", [[1], [255], [256], [257], [3, 4, 300], [256, 512, 513, 700]])
@pytest.mark.parametrize("restarted", [True, False])
def test_batches_become_leaves_in_the_order_in_which_they_came(sizes: list[int], restarted: bool):  # noqa: FBT001
    shelf, objects = Shelf(), Objects()
    made = integrator(shelf, objects)
    for size in sizes:
        shelf.add(size - len(shelf.batches), origin=f"h-{size % 2}")
        if restarted:
            made = integrator(shelf, objects)
        assert made.step()
        assert not made.step()
        assert made.checkpoint.root == root(leaf_hashes(shelf.leaves))
        assert assert_provable(objects, shelf.leaves) == size


def test_a_partial_tile_is_gone_when_the_full_one_is_there():
    shelf, objects = Shelf(), Objects()
    for count in (10, 100, 145, 1, 300):
        shelf.add(count)
        logged(shelf, objects)
    names = sorted(key for key in objects.kept if key.startswith("log/tile"))
    assert names == [
        "log/tile/0/000", "log/tile/0/001", "log/tile/0/002.p/44",
        "log/tile/1/000.p/1", "log/tile/1/000.p/2",
        "log/tile/entries/000", "log/tile/entries/001", "log/tile/entries/002.p/44",
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["not done", "done", "torn"])
@pytest.mark.parametrize("write", range(1, 11))
def test_a_write_that_fails_leaves_a_log_that_goes_on(how: str, write: int):
    shelf = Shelf()
    objects = Objects(fault=lambda number: how if number == write else "")
    before = 0
    for count in (3, 250, 4, 300, 1):
        shelf.add(count)
        for _ in range(2):  # the process ends at an error, and its keeper starts it again
            try:
                logged(shelf, objects)
            except RecordError:
                continue
        size = assert_provable(objects, shelf.leaves)
        assert size >= before
        before = size
    assert before == 558
    assert objects.writes > write


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_number_of_failures_in_any_order_leave_one_history(data: st.DataObject):
    words = st.sampled_from(["", "", "", "not done", "done", "torn"])
    shelf, objects = Shelf(gap=data.draw(st.integers(1, 3))), Objects()
    objects.fault = lambda _: data.draw(words)
    for _ in range(data.draw(st.integers(1, 6))):
        shelf.add(data.draw(st.integers(0, 200)))
        with contextlib.suppress(RecordError):
            logged(shelf, objects)
        assert_provable(objects, shelf.leaves)
    objects.fault = lambda _: ""
    logged(shelf, objects)
    assert assert_provable(objects, shelf.leaves) == len(shelf.batches)


def test_nothing_is_signed_over_a_rewritten_history():
    """The aggregator, or who has its disk, puts another batch in the place of a stored one."""
    shelf, objects = Shelf(), Objects()
    shelf.add(5)
    logged(shelf, objects)
    shelf.batches.pop()
    shelf.add(1, salt=1)
    with pytest.raises(TrustError, match="the ledger does not"):
        logged(shelf, objects)
    shelf.batches.pop()
    with pytest.raises(TrustError, match="the ledger does not"):
        logged(shelf, objects)


def test_a_checkpoint_that_is_put_back_to_an_older_one_is_put_right_again():
    shelf, objects = Shelf(), Objects()
    shelf.add(5)
    logged(shelf, objects)
    old = objects.kept[CHECKPOINT_KEY]
    shelf.add(5)
    logged(shelf, objects)
    newest = objects.kept[CHECKPOINT_KEY]
    objects.kept[CHECKPOINT_KEY] = old
    logged(shelf, objects)
    assert objects.kept[CHECKPOINT_KEY] == newest
    objects.kept[SIGNED_KEY] = old
    logged(shelf, objects)
    assert objects.kept[SIGNED_KEY] == newest


def test_two_checkpoints_of_one_log_that_contradict_each_other_stop_it():
    shelf, other, objects, forged = Shelf(), Shelf(), Objects(), Objects()
    shelf.add(6)
    other.add(4, salt=9)
    logged(shelf, objects)
    logged(other, forged)
    objects.kept[CHECKPOINT_KEY] = forged.kept[CHECKPOINT_KEY]
    with pytest.raises(TrustError, match="two histories"):
        logged(shelf, objects)


def test_every_changed_byte_of_what_is_stored_is_noticed():
    shelf, objects = Shelf(), Objects()
    shelf.add(3)
    logged(shelf, objects)
    for key in sorted(objects.kept):
        content = objects.kept[key]
        for at in range(len(content)):
            changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
            damaged = Objects(kept={**objects.kept, key: changed})
            with pytest.raises((TrustError, RecordError)):
                integrator(shelf, damaged)


def test_a_tile_or_bundle_that_is_missing_stops_it():
    shelf, objects = Shelf(), Objects()
    shelf.add(300)
    logged(shelf, objects)
    edge = ("log/tile/0/001.p/44", "log/tile/1/000.p/1", "log/tile/entries/001.p/44")
    for key in edge:
        kept = {name: content for name, content in objects.kept.items() if name != key}
        with pytest.raises(RecordError):
            integrator(shelf, Objects(kept=kept))


def test_an_error_of_the_disk_is_no_empty_log():
    class Broken(Objects):
        def find(self, key: str) -> bytes | None:
            raise RecordError("cannot be read")

    with pytest.raises(RecordError):
        integrator(Shelf(), Broken())


def test_both_keys_sign_while_one_hands_over_to_the_other():
    new = signing_key(KEY.public.name, KeyType.ED25519, b"\x02" * 32)
    shelf, objects = Shelf(), Objects()
    shelf.add(2)
    logged(shelf, objects)
    logged(shelf, objects, LogKeys(signing=(new, KEY)))
    for key in (new, KEY):
        note = LogStore(objects).published()
        assert note is not None
        assert policy_of([key.public], []).accept(note).checkpoint.size == 2
    shelf.add(1)
    logged(shelf, objects, LogKeys(signing=(new,)))
    with pytest.raises(TrustError, match="not signed by this log's key"):
        logged(shelf, objects, KEYS)


@pytest.mark.parametrize("gap", [1, 4])
@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 600])
def test_every_batch_has_its_proof_wherever_its_position_is(size: int, gap: int):
    shelf, objects = Shelf(gap=gap), Objects()
    shelf.add(size)
    logged(shelf, objects)
    prover = LogProver(shelf, LogStore(objects))
    for index in {0, 1, size // 3, size // 2, 254, 255, 256, size - 2, size - 1}:
        if not 0 <= index < size:
            continue
        proof = prover.inclusion(shelf.batches[index].place)
        assert proof is not None
        assert proof.index == index
        accepted = verify_proof(parse_proof(proof.encode()), shelf.leaves[index], POLICY)
        assert accepted.checkpoint.size == size
    shelf.add(1)
    assert prover.inclusion(shelf.batches[-1].place) is None


def test_a_batch_that_the_log_has_left_out_is_said_to_be():
    shelf, objects = Shelf(gap=2), Objects()
    shelf.add(9)
    left_out = shelf.batches.pop(4)
    logged(shelf, objects)
    with pytest.raises(TrustError, match="left out batch 5"):
        LogProver(shelf, LogStore(objects)).inclusion(left_out.place)


def test_the_log_proves_that_it_only_grew_and_not_beyond_its_end():
    shelf, objects = Shelf(), Objects()
    shelf.add(700)
    logged(shelf, objects)
    prover = LogProver(shelf, LogStore(objects))
    whole = root(leaf_hashes(shelf.leaves))
    for old in (1, 255, 256, 300, 700):
        old_root = root(leaf_hashes(shelf.leaves[:old]))
        assert verify_consistency(old, 700, old_root, whole, prover.consistency(old))
    with pytest.raises(InputError):
        prover.consistency(701)


def test_before_the_first_checkpoint_there_is_nothing_to_prove():
    with pytest.raises(UnavailableError):
        LogProver(Shelf(), LogStore(Objects()))
