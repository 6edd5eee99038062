"""An aggregator is copied into other stores whole or not at all, and goes on as the same one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from contract_tests import unit_module
from siem_lab import SealingHost, storing

from aesp_proxy.aggregator import copying
from aesp_proxy.aggregator.copying import check_may_serve, copy_aggregator
from aesp_proxy.aggregator.identity import DataDir, FileLock, existing
from aesp_proxy.aggregator.log.check import check_log
from aesp_proxy.aggregator.log.keys import ensure_log_key
from aesp_proxy.aggregator.ports import Evidence, batch_key
from aesp_proxy.aggregator.proof import event_proof
from aesp_proxy.aggregator.store.exports import Cursor, DeadLetter
from aesp_proxy.aggregator.store.tables import TABLES
from aesp_proxy.aggregator.store.tokens import TokenTerms
from aesp_proxy.aggregator.stores import (
    open_control,
    open_exports,
    open_leases,
    open_ledger,
    open_objects,
    open_rows,
)
from aesp_proxy.cli.aggregator import aggregator
from aesp_proxy.errors import AespError, ConfigError, RecordError, TrustError, UnavailableError

_proofs = vars(unit_module("aggregator/log/test_event_proof"))
NOW = datetime.now(UTC)
BATCHES = 9
FORKED = b"another history"


def make_aggregator(root: Path) -> DataDir:
    """One with something in every table, in log and evidence, as after some life."""
    host = SealingHost(_proofs["PLAIN"])
    with storing(root) as (data, store):
        for _ in range(BATCHES):
            store(host, 2)
    _proofs["enrolled"](data, host)
    with closing(open_objects(data)) as objects, closing(open_ledger(data, objects)) as ledger:
        ledger.keep_receipt("h-one", BATCHES, b"receipt")
        objects.put_all([("evidence/h-one/0000000002-00.batch", FORKED)])
    with closing(open_control(data)) as control:
        with control._database.transaction():
            control._database.run("INSERT INTO origin_tenants VALUES ('h-one', 'acme')")
            control._database.run("INSERT INTO origin_labels VALUES ('h-one', 'env', 'prod')")
        terms = TokenTerms(
            fingerprint=b"t",
            made_ns=1,
            expires_ns=2,
            tenants=frozenset({"acme"}),
            labels=(("a", "b"),),
        )
        control.tokens.add(terms)
        control.note_refusals({("h-one", "fork"): 3}, now_ns=5)
        control.quarantine(
            Evidence(
                origin="h-one", batch_no=2, kind="fork", stored_key=batch_key("h-one", 2),
                offered_key="evidence/h-one/0000000002-00.batch", noted_ns=7,
            )
        )  # fmt: skip
    with closing(open_exports(data)) as exports:
        exports.advance(
            "soc", "live", Cursor(position=3, row=1), delivered=4,
            refused=[DeadLetter(position=2, row=0, event="h-one/1/3", reason="'); no\n")], now_ns=9,
        )  # fmt: skip
    ensure_log_key(data)
    _proofs["log_all"](data, cosigned=True)
    return data


def rows_of(data: DataDir) -> dict[str, Any]:
    """Everything that a copy must hold; keys of stored batches may differ."""
    found = {}
    for store, tables in TABLES.items():
        with closing(open_rows(data, store)) as rows:
            batches = {"batches": "*"} if store == "ledger" else {}
            for name, columns in (tables | batches).items():
                wanted = columns.replace(" stored_key,", "")
                values = rows.rows(f"SELECT {wanted} FROM {name}")
                found[name] = sorted(map(tuple, values), key=repr)
    return found


def copied(root: Path, source: DataDir) -> DataDir:
    copy_aggregator(root, source.root, now=NOW, progress=lambda *_: None)
    return existing(root)


def assert_same(old: DataDir, rows: dict[str, Any], new: DataDir, proof: dict[str, Any]) -> None:
    assert rows_of(new) == rows
    assert {name for name, found in rows.items() if not found} <= {"rotations", "notices"}
    report = check_log(new)
    assert (report.signed.size, report.published.size, report.not_logged) == (BATCHES, BATCHES, 0)
    assert event_proof(new, "h-one/1/8") == proof
    with closing(open_objects(new)) as objects, closing(open_control(new)) as control:
        (evidence,) = control.evidence("h-one")
        assert objects.get(evidence.offered_key) == FORKED
        assert objects.get(evidence.stored_key).startswith(b"AESPBAT1")
    for name in ("ca", "ca_key", "receipt_key", "log_key"):
        assert getattr(new, name).read_bytes() == getattr(old, name).read_bytes()
    assert (new.root / "origins" / "h-one.pub").is_file()
    check_may_serve(new.root)


@pytest.fixture(autouse=True)
def _few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "BATCHES_AT_ONCE", 4)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two aggregators, to be copied as files."""
    root = tmp_path_factory.mktemp("made")
    return [make_aggregator(root / name).root for name in ("one", "two")]


@pytest.fixture
def old(made: list[Path], tmp_path: Path) -> DataDir:
    return DataDir(shutil.copytree(made[0], tmp_path / "old"))


@pytest.fixture
def other(made: list[Path], tmp_path: Path) -> DataDir:
    return DataDir(shutil.copytree(made[1], tmp_path / "other"))


def elsewhere(root: Path) -> Path:
    """A new data directory whose objects are in a place of their own."""
    root.mkdir()
    (root / "stores.yaml").write_text(f"objects: {{directory: {root.parent / 'objects'}}}\n")
    return root


def test_everything_is_there_and_back_and_what_was_copied_serves_no_more(
    old: DataDir, tmp_path: Path
) -> None:
    rows, proof = rows_of(old), event_proof(old, "h-one/1/8")
    new = copied(elsewhere(tmp_path / "new"), old)
    assert_same(old, rows, new, proof)
    with pytest.raises(ConfigError, match="was copied away"):
        check_may_serve(old.root)
    for words in ("revoke h-one", "token", "release h-one", "log keys --rotate", "trust x.pem"):
        given = [*words.split(), "--data", str(old.root)]
        done = CliRunner().invoke(aggregator, given, catch_exceptions=True)
        assert "was copied away" in str(done.exception), words
    with pytest.raises(ConfigError, match="was copied away"):
        copied(tmp_path / "second", old)
    back = copied(tmp_path / "back", new)
    assert_same(old, rows, back, proof)
    with closing(open_control(back)) as control:
        assert control.evidence("h-one")[0].stored_key == batch_key("h-one", 2)


STEPS = ("copy_keys", "add_batches", "stored_batch", "replace_tables", "_copy_evidence", "copy_log",
         "check_same", "check_log", "keep_public_keys", "load_ca")  # fmt: skip


OFTEN = ("add_batches", "stored_batch")


@pytest.mark.parametrize("step", STEPS)
def test_what_is_interrupted_does_not_serve_and_is_gone_on_with(
    old: DataDir, tmp_path: Path, monkeypatch, step: str
) -> None:
    rows, proof = rows_of(old), event_proof(old, "h-one/1/8")
    root = elsewhere(tmp_path / "new")
    real: Callable[..., Any] = getattr(copying, step)
    for after in (False, True):
        calls = iter(range(1000))

        def fails(*arguments: Any, calls=calls, after=after, **more: Any) -> Any:
            is_now = step not in OFTEN or next(calls) == (0 if after else 1)
            if is_now and not after:
                raise RecordError("the disk is full")
            found = real(*arguments, **more)
            if is_now:
                raise RecordError("the disk is full")
            return found

        monkeypatch.setattr(copying, step, fails)
        with pytest.raises(RecordError, match="disk is full"):
            copied(root, old)
        with pytest.raises(ConfigError, match="not complete"):
            check_may_serve(root)
    monkeypatch.setattr(copying, step, real)
    assert_same(old, rows, copied(root, old), proof)


def test_nothing_is_copied_while_something_serves_or_works(old: DataDir, tmp_path: Path) -> None:
    root = elsewhere(tmp_path / "new")
    for data in (old, DataDir(root)):
        for path in (data.serve_lock, data.export_lock, data.index_lock):
            with FileLock(path), pytest.raises(UnavailableError, match="something works here"):
                copied(root, old)
        leases = open_leases(data)
        lease = leases.take("log")
        assert lease
        with pytest.raises(UnavailableError, match="serves this database"):
            copied(root, old)
        lease.release()
    assert copied(root, old)


def test_what_is_the_same_place_or_anothers_is_refused(
    old: DataDir, other: DataDir, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="the directory is that of"):
        copied(old.root, old)
    new = copied(elsewhere(tmp_path / "new"), old)
    same = tmp_path / "same"
    same.mkdir()
    (same / "stores.yaml").write_bytes(new.store_settings.read_bytes())
    with pytest.raises(ConfigError, match="the place of objects is that of"):
        copied(same, new)
    with pytest.raises(ConfigError, match="is an aggregator already"):
        copied(new.root, other)
    with pytest.raises(ConfigError, match="is not an aggregator"):
        copied(tmp_path / "x", DataDir(tmp_path / "nothing"))


def test_stores_with_anothers_batches_are_not_written_to(
    old: DataDir, other: DataDir, tmp_path: Path
) -> None:
    root = tmp_path / "new"
    root.mkdir()
    shutil.copy(other.ledger, root / "ledger.sqlite")
    with pytest.raises(ConfigError, match="batches of another aggregator"):
        copied(root, old)


def test_a_damaged_batch_ends_the_copy_at_the_source_and_at_the_proof(
    old: DataDir, tmp_path: Path, monkeypatch
) -> None:
    root = elsewhere(tmp_path / "new")
    path = old.root / batch_key("h-one", 5)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(TrustError):
        copied(root, old)
    path.write_bytes(whole)
    prove = copying._prove

    def damaged(old_side: Any, new_side: Any, progress: Any) -> Any:
        (found,) = (tmp_path / "objects").glob("batches/h-one/0000000005-*")
        content = found.read_bytes()
        found.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        try:
            return prove(old_side, new_side, progress)
        finally:
            found.write_bytes(content)

    monkeypatch.setattr(copying, "_prove", damaged)
    with pytest.raises(TrustError):
        copied(root, old)
    assert not old.moved.exists()
    monkeypatch.setattr(copying, "_prove", prove)
    assert copied(root, old)


def test_what_changes_meanwhile_is_noticed_and_the_next_try_has_it(
    old: DataDir, tmp_path: Path, monkeypatch
) -> None:
    root = elsewhere(tmp_path / "new")
    real = copying.replace_tables

    def changes(source: Any, target: Any, store: str, **more: Any) -> None:
        real(source, target, store, **more)
        if store == "control":
            with source.transaction():
                source.run("UPDATE certificates SET revoked_ns = 3")

    monkeypatch.setattr(copying, "replace_tables", changes)
    with pytest.raises(AespError, match="certificates"):
        copied(root, old)
    monkeypatch.setattr(copying, "replace_tables", real)
    assert rows_of(copied(root, old))["certificates"][0][-1] == 3


def test_what_changes_while_it_is_proved_is_noticed_too(
    old: DataDir, tmp_path: Path, monkeypatch
) -> None:
    root = elsewhere(tmp_path / "new")
    real = copying._prove

    def changes(source: Any, *more: Any) -> Any:
        found = real(source, *more)
        with source.rows["control"].transaction():
            source.rows["control"].run("UPDATE certificates SET revoked_ns = 3")
        return found

    monkeypatch.setattr(copying, "_prove", changes)
    with pytest.raises(AespError, match="certificates"):
        copied(root, old)
    assert not old.moved.exists()
