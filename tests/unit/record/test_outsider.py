"""The outsider's script of the documents, written from them alone, judges our records as we do."""

from __future__ import annotations

import ast
import importlib.util
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from aesp_proxy.record import rotation
from aesp_proxy.record.canonical import pack_row
from aesp_proxy.record.header import NO_HASH, Flag
from aesp_proxy.record.keyring import Rotation, rotation_record
from aesp_proxy.record.receipt import Receipt, encode_receipt
from aesp_proxy.record.signature import (
    key_id_of,
    new_private_pem,
    public_from_pem,
    public_to_pem,
    signer_from_pem,
)
from aesp_proxy.record.state import numbered_batches
from aesp_proxy.record.verify import Pins, verify_place

SCRIPT = Path(__file__).parents[3] / "docs" / "examples" / "verify_record.py"


@pytest.fixture(scope="module")
def outsider() -> ModuleType:
    spec = importlib.util.spec_from_file_location("verify_record", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def lying(chain, tmp_path: Path):
    """Write the chain's batches as a directory; the key is that of the first batch."""
    key = tmp_path / "host.pub"
    key.write_bytes(public_to_pem(chain.public_key))

    def write(batches: list[bytes] | None = None) -> tuple[Path, Path]:
        place = tmp_path / "copy"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for number, data in enumerate(chain.batches if batches is None else batches, start=1):
            (place / f"{number:010d}.batch").write_bytes(data)
        return place, key

    return write


def agree(outsider: ModuleType, place: Path, key: Path, capsys, *more: Path) -> str:
    """Ask both; they must say the same. Return what the outsider says."""
    pins = Pins(key=pinned_key(key))
    if more:
        pins = replace(pins, receipt=more[0].read_bytes(), aggregator_key=pinned_key(more[1]))
    problems = verify_place(place, pins).problems
    code = outsider.main("batches", str(place), str(key), *map(str, more))
    said = capsys.readouterr().out
    assert (code == 0) == (not problems), (said, problems)
    return str(said)


def pinned_key(file: Path) -> bytes:
    return public_from_pem(file.read_bytes(), where=str(file))


def test_the_script_knows_nothing_of_ours() -> None:
    tree = ast.parse(SCRIPT.read_text())
    named = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    ]
    named += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    roots = {name.partition(".")[0] for name in named}
    assert roots - set(sys.stdlib_module_names) == {"cryptography", "zstandard"}


def test_what_a_host_has_sealed_holds_key_changes_heartbeats_and_epochs_included(
    outsider, state, capsys
) -> None:
    first = state.journal()
    state.fill(first, 40)
    sealer = state.sealer(heartbeat_s=1)
    (key,) = state.paths.keys.glob("*.pub")
    sealer.tick(drain=True)
    rotation.ask(state.paths)
    second = state.journal()
    state.fill(second, 3, denied=True)
    state.fill(first, 2)
    for _ in range(3):
        state.clock.pass_s(100)
        sealer.tick(drain=True)
    assert len(list(state.paths.keys.glob("*.pub"))) == 2
    said = agree(outsider, state.paths.batches, key, capsys)
    batches = numbered_batches(state.paths.batches)
    assert said == f"holds: 46 records in {len(batches)} batches of h-test\n"


def test_every_changed_or_cut_byte_is_found(outsider, chain, lying, capsys) -> None:
    chain.add(2)
    chain.add(1)
    place, key = lying()
    file = place / "0000000001.batch"
    whole = file.read_bytes()
    for at in range(0, len(whole), 3):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert outsider.main("batches", str(place), str(key)) == 1, at
        file.write_bytes(whole[:at])
        assert outsider.main("batches", str(place), str(key)) == 1, at
    assert capsys.readouterr().out.count("WRONG: 0000000001.batch: ") == 2 * len(
        range(0, len(whole), 3)
    )


def test_batches_that_are_missing_doubled_or_in_another_order_are_found(
    outsider, chain, lying, capsys
) -> None:
    for _ in range(4):
        chain.add(1)
    one, two, three, four = chain.batches
    for wrong in ([one, three, four], [one, two, two], [two, one, three], [two, three], []):
        place, key = lying(wrong)
        assert outsider.main("batches", str(place), str(key)) == 1
    assert "holds" in agree(outsider, *lying([one, two, three]), capsys)


def _hand_over(chain, from_batch: int, **signing: object) -> None:
    public, sign = signer_from_pem(new_private_pem())
    record = rotation_record(
        Rotation(public_key=public, from_batch=from_batch), old_key_id="k-old", time_ns=1
    )
    row = pack_row(record, chain.head.origin, 1, chain.seq)
    chain.seal_rows([row], first_time_ns=1, last_time_ns=1, **signing)
    chain.public_key, chain.sign = public, sign


# What a host that holds the key, or a thief of it, may sign; the second value: whether it holds.
SIGNED = {
    "plain": (lambda c: c.add(2), True),
    "heartbeat": (lambda c: c.seal_rows([], epoch=0, first_seq=0, flags=Flag.HEARTBEAT), True),
    "gap": (lambda c: c.seal_rows(c.rows(1, first_seq=9), first_seq=9), False),
    "lost": (lambda c: c.seal_rows(c.rows(1, first_seq=9), first_seq=9, lost=6), None),
    "dropped": (lambda c: c.add(1, dropped=5), None),
    "older-epoch": (
        lambda c: c.seal_rows(c.rows(1, epoch=3, first_seq=1), epoch=3, first_seq=1),
        True,
    ),
    "ended-epoch": (lambda c: (c.add(1, flags=Flag.EPOCH_ENDED), c.add(1)), False),
    "other-origin": (lambda c: c.add(1, origin="h-other"), False),
    "predecessor": (lambda c: c.add(1, prev_hash=NO_HASH), False),
    "number": (lambda c: c.add(1, batch_no=7), False),
    "clock": (lambda c: c.add(1, sealed_wall_ns=1), False),
    "clock-said": (lambda c: c.add(1, flags=Flag.CLOCK_BACK), False),
    "clock-of-the-boot": (lambda c: c.add(1, sealed_mono_ns=1), False),
    "times": (lambda c: c.add(1, last_time_ns=1), False),
    "unclean": (lambda c: c.add(1, flags=Flag.UNCLEAN), True),
    "row-of-another-place": (lambda c: c.seal_rows(c.rows(1, first_seq=8)), False),
    "row-not-canonical": (
        lambda c: c.seal_rows([c.rows(1)[0].replace(b"\x01", b"\xcc\x01", 1)]),
        False,
    ),
    "another-key": (lambda c: c.add(1, key_id="k-" + "0" * 32), False),
    "hand-over": (lambda c: (_hand_over(c, 3), c.add(1)), True),
    "hand-over-too-late": (lambda c: (_hand_over(c, 4), c.add(1)), False),
}


@pytest.mark.parametrize("case", SIGNED)
def test_what_the_keys_holder_signs_is_judged_as_we_judge_it(
    outsider, chain, lying, capsys, case: str
) -> None:
    sign, holds = SIGNED[case]
    chain.add(2)
    sign(chain)
    place, key = lying()
    if holds is None:  # a loss that the host itself declares: it is said, and the rest holds
        assert verify_place(place, Pins(key=pinned_key(key))).lost
        assert outsider.main("batches", str(place), str(key)) == 0
        assert "lost as the host itself declares" in capsys.readouterr().out
        return
    assert ("holds" in agree(outsider, place, key, capsys)) == holds


def test_a_receipt_finds_a_cut_off_end_and_another_history(
    outsider, chain, lying, tmp_path: Path, capsys
) -> None:
    for _ in range(3):
        chain.add(1)
    public, sign = signer_from_pem(new_private_pem())
    aggregator, receipt = tmp_path / "aggregator.pub", tmp_path / "receipt"
    aggregator.write_bytes(public_to_pem(public))
    told = Receipt(
        origin=chain.head.origin, batch_no=3, header_hash=chain.head.header_hash, time_ns=1,
        key_id=key_id_of(public),
    )  # fmt: skip
    receipt.write_bytes(encode_receipt(told, sign))
    whole, key = lying()
    assert "holds" in agree(outsider, whole, key, capsys, receipt, aggregator)
    assert "truncated" in agree(outsider, *lying(chain.batches[:2]), capsys, receipt, aggregator)
    place, key = lying()
    for wrong in (replace(told, header_hash=NO_HASH), replace(told, origin="h-other")):
        receipt.write_bytes(encode_receipt(wrong, sign))
        assert outsider.main("batches", str(place), str(key), str(receipt), str(aggregator)) == 1
    receipt.write_bytes(encode_receipt(told, chain.sign))
    assert outsider.main("batches", str(place), str(key), str(receipt), str(aggregator)) == 1


@pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd program here")
def test_without_a_package_the_zstd_program_inflates(
    outsider, chain, lying, monkeypatch, capsys
) -> None:
    chain.add(3)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert outsider.main("batches", *map(str, lying())) == 0
    assert capsys.readouterr().out == "holds: 3 records in 1 batches of h-test\n"
