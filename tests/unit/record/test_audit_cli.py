from __future__ import annotations

import csv
import errno
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from aesp_proxy.cli import audit_export, main
from aesp_proxy.record.files import OS_FILES
from aesp_proxy.record.keys import load_signing_key, make_key, set_current
from aesp_proxy.record.losses import Losable
from aesp_proxy.record.receipt import Receipt, encode_receipt
from aesp_proxy.record.signature import (
    key_id_of,
    new_private_pem,
    public_to_pem,
    signer_from_pem,
)
from aesp_proxy.record.state import read_head, write_head, write_status


@pytest.fixture
def audit(capsys: pytest.CaptureFixture[str]):
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["audit", *map(str, arguments)])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def sealed(state):
    """Two batches of one living epoch, and two records that are not sealed."""
    journal = state.journal()
    for _ in range(2):
        state.fill(journal, 20)
        state.sealer().tick(drain=True)
    state.fill(journal, 2)
    return state


def test_a_record_that_holds_is_counted_and_answers_0(audit, sealed) -> None:
    code, out, err = audit("verify", sealed.directory)
    assert code == 0
    assert out == "holds: 40 records in 2 batches of h-test, and 2 not sealed yet\n"
    assert "give the key you know with --key" in err


def test_the_audit_directory_and_bare_batches_with_a_key_verify_too(audit, sealed) -> None:
    assert audit("verify", sealed.paths.root)[0] == 0
    code, _, err = audit("verify", sealed.paths.batches)
    assert (code, "--key FILE.pub" in err) == (3, True)
    key = next(sealed.paths.keys.glob("*.pub"))
    code, out, err = audit("verify", sealed.paths.batches, "--key", key, "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert (told["ok"], told["records"], told["key_is_pinned"]) == (True, 40, True)


def test_an_aggregators_copy_verifies_with_the_key_it_enrolled(
    audit, sealed, tmp_path: Path
) -> None:
    copy = tmp_path / "data" / "batches" / "h-test"
    shutil.copytree(sealed.paths.batches, copy)
    (tmp_path / "data" / "origins").mkdir()
    shutil.copy(next(sealed.paths.keys.glob("*.pub")), tmp_path / "data/origins/h-test.pub")
    assert audit("verify", copy)[0] == 0
    (copy / "0000000001.batch").unlink()
    assert audit("verify", copy)[0] == 1


def test_one_changed_byte_answers_1_and_names_the_record(audit, sealed) -> None:
    path = sealed.paths.batch(2)
    data = bytearray(path.read_bytes())
    data[-30] ^= 0x01
    path.write_bytes(bytes(data))
    code, out, _ = audit("verify", sealed.directory)
    assert code == 1
    assert out.startswith("WRONG changed: 0000000002.batch")
    code, out, _ = audit("verify", sealed.directory, "--json")
    (problem,) = json.loads(out)["problems"]
    assert (problem["kind"], problem["batch"]) == ("changed", 2)
    assert problem["record"].startswith("1/") or "holds records 1/21 to 1/40" in problem["message"]


def test_a_missing_batch_and_a_cut_off_end_answer_1(audit, sealed) -> None:
    sealed.paths.batch(2).unlink()
    code, out, _ = audit("verify", sealed.directory)
    assert (code, "truncated: head, batch 2" in out) == (1, True)
    sealed.paths.batch(2).write_bytes(sealed.paths.batch(1).read_bytes())
    sealed.paths.batch(1).unlink()
    assert audit("verify", sealed.directory)[0] == 1


def test_a_damaged_head_answers_1(audit, sealed) -> None:
    sealed.paths.head.write_bytes(b"damaged")
    code, out, _ = audit("verify", sealed.directory)
    assert (code, "changed: head" in out) == (1, True)


def test_a_head_of_another_history_is_a_fork(audit, sealed) -> None:
    head = read_head(sealed.paths)
    write_head(sealed.paths, OS_FILES, replace(head, header_hash=bytes(32)))
    code, out, _ = audit("verify", sealed.directory)
    assert (code, "forked: head, batch 2" in out) == (1, True)


def test_a_pinned_key_tells_a_rewritten_record_from_the_true_one(
    audit, sealed, new_chain, tmp_path: Path
) -> None:
    pinned = tmp_path / "known.pub"
    pinned.write_bytes(public_to_pem(new_chain().public_key))
    code, out, _ = audit("verify", sealed.directory, "--key", pinned)
    assert (code, out.count("wrong_key")) == (1, 2)


def _receipt(sealed, tmp_path: Path, **changes: object) -> tuple[Path, Path]:
    public_key, sign = signer_from_pem(new_private_pem())
    head = read_head(sealed.paths)
    receipt = Receipt(
        origin="h-test", batch_no=2, header_hash=head.header_hash, time_ns=1,
        key_id=key_id_of(public_key),
    )  # fmt: skip
    receipt_file, key_file = tmp_path / "receipt", tmp_path / "aggregator.pub"
    receipt_file.write_bytes(encode_receipt(replace(receipt, **changes), sign))
    key_file.write_bytes(public_to_pem(public_key))
    return receipt_file, key_file


def test_a_kept_receipt_finds_a_cut_off_end(audit, sealed, tmp_path: Path) -> None:
    receipt, key = _receipt(sealed, tmp_path)
    arguments = ("verify", sealed.directory, "--receipt", receipt, "--aggregator-key", key)
    assert audit(*arguments)[0] == 0
    sealed.paths.batch(2).unlink()
    sealed.paths.head.unlink()
    code, out, _ = audit(*arguments)
    assert (code, "truncated: receipt, batch 2" in out) == (1, True)


def test_what_a_receipt_let_go_is_not_missing(audit, sealed, tmp_path: Path) -> None:
    receipt, key = _receipt(sealed, tmp_path)
    sealed.paths.receipt.write_bytes(receipt.read_bytes())
    sealed.paths.batch(1).unlink()
    assert audit("verify", sealed.directory)[0] == 1
    code, out, _ = audit("verify", sealed.directory, "--aggregator-key", key)
    assert (code, "2 not sealed yet" in out) == (0, True)
    sealed.paths.batch(2).unlink()
    assert audit("verify", sealed.directory, "--aggregator-key", key)[0] == 0


def test_a_receipt_that_is_forged_is_said(audit, sealed, tmp_path: Path) -> None:
    receipt, _ = _receipt(sealed, tmp_path)
    _, other_key = _receipt(sealed, tmp_path)
    receipt.write_bytes(receipt.read_bytes()[:-1])
    code, out, _ = audit(
        "verify", sealed.directory, "--receipt", receipt, "--aggregator-key", other_key
    )
    assert (code, "non_canonical: receipt" in out) == (1, True)


@pytest.mark.parametrize("arguments", [("/nonexistent",), (".",)])
def test_a_place_without_a_record_answers_3(audit, tmp_path, monkeypatch, arguments) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = audit("verify", *arguments)
    assert (code, out) == (3, "")
    assert err.count("\n") == 1


def test_wrong_use_answers_5(audit) -> None:
    assert audit("verify")[0] == 5
    assert audit("show", "seven")[0] in {3, 5}


def test_tail_shows_the_newest_last_and_json_is_one_object_a_line(audit, sealed) -> None:
    code, out, _ = audit("tail", "--state", sealed.directory, "-n", 3)
    assert code == 0
    assert [line.split()[1] for line in out.splitlines()] == ["1/40", "1/41", "1/42"]
    code, out, _ = audit("tail", "--state", sealed.directory, "-n", 2, "--json")
    objects = [json.loads(line) for line in out.splitlines()]
    assert [item["id"] for item in objects] == ["h-test/1/41", "h-test/1/42"]
    assert objects[0]["metadata"] == {"k": "v"}
    assert objects[0]["findings"][0]["severity"] == "error"


def test_terminal_escapes_in_records_come_out_escaped(audit, state, sample) -> None:
    journal = state.journal()
    evil = "https://x/\x1b]0;owned\x07\x1b[2J\u202e\r\nfake line"
    journal.append(replace(sample, resource=evil, message=evil, verdict="deny", reason="\x9b31m"))
    for arguments in (
        ("tail", "--state", state.directory),
        ("tail", "--state", state.directory, "--json"),
        ("show", "1/1", "--state", state.directory),
    ):
        code, out, _ = audit(*arguments)
        assert code == 0
        assert not {"\x1b", "\x07", "\r", "\u202e", "\x9b"} & set(out)
        assert not any(line.startswith("fake") for line in out.splitlines())


def test_show_gives_one_record_and_its_batch(audit, sealed) -> None:
    code, out, _ = audit("show", "h-test/1/21", "--state", sealed.directory, "--json")
    told = json.loads(out)
    assert (code, told["id"], told["batch"]) == (0, "h-test/1/21", 2)
    code, out, _ = audit("show", "1/42", "--state", sealed.directory)
    assert (code, "not sealed yet" in out) == (0, True)


def test_declared_losses_are_shown_by_verify_and_with_the_record(audit, state, sample) -> None:
    journal = state.journal(may_lose=frozenset({Losable.NAMES}))
    journal.append(sample)
    write_status(state.paths, {"spool_bytes": 1 << 50})
    journal.check_limits()
    journal.append(replace(sample, action="dns.query", findings=()))
    state.sealer().tick(drain=True)
    code, out, _ = audit("verify", state.directory)
    assert (code, "lost: " in out, "; 1 record lost, says the host itself" in out) == (
        1,
        True,
        True,
    )
    code, out, _ = audit("verify", state.directory, "--json")
    assert (code, json.loads(out)["lost"]) == (1, 1)
    code, out, _ = audit("show", "1/1", "--state", state.directory)
    assert "1 records that it did not keep" in out


@pytest.mark.parametrize("record_id", ["1/99", "9/1", "h-other/1/1", "1", "a/b", "1/2/3/4"])
def test_a_record_that_is_not_there_answers_5(audit, sealed, record_id: str) -> None:
    code, out, err = audit("show", record_id, "--state", sealed.directory)
    assert (code, out) == (5, "")
    assert err.count("\n") == 1
    if record_id == "9/1":
        assert f"{sealed.directory}: holds no record 9/1" in err


def test_keys_are_listed_with_the_one_that_signs(audit, sealed) -> None:
    old = load_signing_key(sealed.paths).key_id
    new = make_key(sealed.paths)
    set_current(sealed.paths, new)
    code, out, _ = audit("keys", "--state", sealed.directory, "--json")
    assert code == 0
    assert {entry["key_id"]: entry["current"] for entry in json.loads(out)} == {
        old: False,
        new: True,
    }
    assert "PRIVATE" not in audit("keys", "--state", sealed.directory)[1]


def test_shipping_to_nowhere_says_what_is_missing(audit, sealed) -> None:
    code, _, err = audit("ship", "--state", sealed.directory)
    assert code == 3
    assert "forward: holds no `url`: nothing is enrolled there (enrol first: `aesp-proxy enr" in err


def test_verifying_changes_nothing(audit, sealed) -> None:
    def picture() -> dict[str, bytes]:
        return {
            str(path): path.read_bytes() for path in sealed.directory.rglob("*") if path.is_file()
        }

    before = picture()
    audit("verify", sealed.directory)
    audit("tail", "--state", sealed.directory)
    assert picture() == before


def test_a_key_is_rotated_by_the_command_where_no_sealer_runs(audit, sealed) -> None:
    first = load_signing_key(sealed.paths)
    public = sealed.paths.keys / f"{first.key_id}.pub"
    code, out, err = audit("keys", "--state", sealed.directory, "--rotate", "--json")
    listed = json.loads(out)
    assert code == 0
    assert f"key {first.key_id} handed over to" in err
    assert {entry["key_id"]: entry["current"] for entry in listed}[first.key_id] is False
    assert sum(entry["current"] for entry in listed) == 1
    assert audit("verify", sealed.directory, "--key", public)[0] == 0


def test_a_rotation_before_there_is_a_key_is_refused_and_leaves_no_request(audit, state) -> None:
    code, _, err = audit("keys", "--state", state.directory, "--rotate")
    assert (code, "has no key yet" in err) == (3, True)
    assert list(state.paths.keys.iterdir()) == []


HOSTILE = [
    "=HYPERLINK(1)",
    "+1",
    "-1",
    "@SUM(1)",
    "\t=1",
    "\x1b[2J",
    "a\nb",
    "'; DROP TABLE x;--",
    "\uff1d1",
]


@pytest.fixture
def hostile(state, sample):
    journal = state.journal()
    for text in HOSTILE:
        journal.append(
            replace(sample, message=text, user_agent=text, metadata=((text, text),), findings=())
        )
    state.sealer().tick(drain=True)
    return state


def test_no_cell_of_an_exported_table_is_a_formula_or_an_escape(audit, hostile) -> None:
    code, out, err = audit("export", "--state", hostile.directory, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (code, err) == (0, f"{len(HOSTILE)} records exported\n")
    assert len(rows) == len(HOSTILE)
    for row in rows:
        for cell in row.values():
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\uff1d"))
            assert cell.isprintable()
    assert rows[0]["message"] == "'=HYPERLINK(1)"


def test_exported_lines_give_every_value_back(audit, hostile) -> None:
    _, out, _ = audit("export", "--state", hostile.directory)
    lines = out.splitlines()
    assert out.isascii()
    assert "\x1b" not in out
    assert [json.loads(line)["message"] for line in lines] == HOSTILE
    assert json.loads(lines[0])["id"] == "h-test/1/1"


def test_an_export_is_cut_by_time_and_writes_over_nothing(audit, sealed, tmp_path) -> None:
    place = tmp_path / "out.csv"
    arguments = ["export", "--state", sealed.directory, "--format", "csv", "--out", place]
    assert audit(*arguments, "--until", "2001-01-01T00:00:00Z")[0] == 0
    assert place.read_text().count("\n") == 1
    code, _, err = audit(*arguments)
    assert (code, "File exists" in err) == (3, True)
    assert audit("export", "--state", sealed.directory, "--since", "when")[0] == 5


def test_an_export_that_does_not_fit_says_so_and_leaves_no_half(
    audit, sealed, tmp_path, monkeypatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    place = tmp_path / "out.jsonl"
    monkeypatch.setattr(audit_export, "record_dict", full)
    code, _, err = audit("export", "--state", sealed.directory, "--out", place)
    assert code == 3
    assert err == f"aesp-proxy: {place}: cannot be written: No space left on device (make room)\n"
    assert not place.exists()
    monkeypatch.undo()
    assert audit("export", "--state", sealed.directory, "--out", place)[0] == 0
