"""Only who is in the control store gets in, and only as long as it says."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aesp_proxy.aggregator import enrolment
from aesp_proxy.aggregator.identity import (
    DataDir,
    FileLock,
    ensure_server_certificate,
    existing,
    fingerprint_of,
    load_receipt_key,
    prepare,
)
from aesp_proxy.aggregator.ports import Identity, Role
from aesp_proxy.aggregator.serving import server_context
from aesp_proxy.aggregator.store.control import SqliteControl
from aesp_proxy.aggregator.stores import open_control
from aesp_proxy.errors import ConfigError
from aesp_proxy.forward.transport import load_destination
from aesp_proxy.record.keys import load_signing_key
from aesp_proxy.record.signature import public_to_pem
from aesp_proxy.record.state import ensure_origin
from aesp_proxy.record.state import prepare as prepare_state

NOW = datetime(2027, 1, 15, 8, tzinfo=UTC)
NOW_NS = 1_800_000_000_000_000_000
DAY_NS = 86_400 * 10**9


@pytest.fixture
def data(tmp_path: Path, stores_text: str) -> DataDir:
    made = prepare(tmp_path / "data", now=NOW)
    if stores_text:
        made.store_settings.write_text(stores_text)
    return made


def host_state(path: Path, origin: str) -> Path:
    paths = prepare_state(path)
    ensure_origin(paths, wanted=origin)
    load_signing_key(paths)
    return path


def enrol(data: DataDir, chain: Any, out: Path, **more: Any) -> bytes:
    host = enrolment.HostKey(origin=chain.origin, public_key=chain.public_key)
    certificate = enrolment.enrol_host(
        data, host, out=out, url="https://127.0.0.1:8443", tenants=(), now=NOW, **more
    )
    return certificate.fingerprint


def test_a_certificate_stands_for_the_host_it_was_issued_to(
    data: DataDir, chain: Any, tmp_path: Path
) -> None:
    fingerprint = enrol(data, chain, tmp_path / "out")
    control = open_control(data)
    try:
        assert control.identity(fingerprint, now_ns=NOW_NS) == Identity(
            role=Role.HOST, name=chain.origin
        )
        assert control.identity(fingerprint, now_ns=NOW_NS + 398 * DAY_NS) is None
        assert control.identity(bytes(32), now_ns=NOW_NS) is None
    finally:
        control.close()


def test_what_enrolment_writes_is_what_a_host_ships_with(
    data: DataDir, chain: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    fingerprint = enrol(data, chain, out)
    destination = load_destination(out, now=NOW)
    assert [str(address) for address in destination.addresses] == ["127.0.0.1:8443"]
    assert destination.public_key == load_receipt_key(data).public_key
    assert fingerprint_of((out / "client.pem").read_bytes())[0] == fingerprint
    assert stat.S_IMODE((out / "client.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert data.origin_public(chain.origin).read_bytes() == public_to_pem(chain.public_key)


def test_a_host_on_this_machine_is_enrolled_from_its_state(data: DataDir, tmp_path: Path) -> None:
    state = host_state(tmp_path / "state", "h-here")
    host = enrolment.host_of_state(state)
    assert host.origin == "h-here"
    enrolment.enrol_host(
        data, host, out=state / "forward", url="https://a:1", tenants=("acme",), now=NOW
    )
    control = open_control(data)
    try:
        origin = control.origin("h-here")
        assert origin is not None
        assert (origin.public_key, origin.tenants) == (host.public_key, frozenset({"acme"}))
    finally:
        control.close()


def test_a_host_elsewhere_is_enrolled_from_its_public_key(
    data: DataDir, chain: Any, tmp_path: Path
) -> None:
    key_file = tmp_path / "host.pub"
    key_file.write_bytes(public_to_pem(chain.public_key))
    assert enrolment.host_of_key("h-far", key_file).public_key == chain.public_key
    with pytest.raises(ConfigError):
        enrolment.host_of_key("../h", key_file)
    key_file.write_bytes(b"not a key")
    with pytest.raises(ConfigError):
        enrolment.host_of_key("h-far", key_file)


def test_enrolling_again_renews_and_shuts_the_old_certificate_out(
    data: DataDir, chain: Any, tmp_path: Path
) -> None:
    first = enrol(data, chain, tmp_path / "one")
    second = enrol(data, chain, tmp_path / "two")
    control = open_control(data)
    try:
        assert control.identity(first, now_ns=NOW_NS) is None
        assert control.identity(second, now_ns=NOW_NS) is not None
    finally:
        control.close()


def test_a_key_belongs_to_one_origin_and_an_origin_has_one_first_key(
    data: DataDir, chain: Any, new_chain: Any, tmp_path: Path
) -> None:
    enrol(data, chain, tmp_path / "one")
    with pytest.raises(ConfigError, match="already belongs"):
        enrol(data, new_chain(origin="h-two", key=chain.key), tmp_path / "two")
    with pytest.raises(ConfigError, match="another key"):
        enrol(data, new_chain(origin=chain.origin), tmp_path / "three")
    assert not (tmp_path / "two" / "url").exists()


def test_what_one_process_changes_another_sees_at_its_next_question(
    data: DataDir, chain: Any, tmp_path: Path
) -> None:
    server = open_control(data)
    try:
        assert server.origin(chain.origin) is None
        fingerprint = enrol(data, chain, tmp_path / "one")
        assert server.origin(chain.origin) is not None
        assert server.identity(fingerprint, now_ns=NOW_NS) is not None
        other = open_control(data)
        assert other.revoke(Identity(role=Role.HOST, name=chain.origin), now_ns=NOW_NS) == 1
        other.close()
        assert server.identity(fingerprint, now_ns=NOW_NS) is None
    finally:
        server.close()


def test_starting_again_keeps_ca_and_receipt_key(data: DataDir) -> None:
    before = (data.ca.read_bytes(), data.receipt_key.read_bytes())
    prepare(data.root, now=NOW)
    assert (data.ca.read_bytes(), data.receipt_key.read_bytes()) == before
    assert stat.S_IMODE(data.ca_key.stat().st_mode) == 0o600
    assert stat.S_IMODE(data.receipt_key.stat().st_mode) == 0o600
    assert stat.S_IMODE(data.root.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["ca", "ca_key", "receipt_key", "receipt_public"])
@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_damaged_key_stops_the_start_and_is_named(
    data: DataDir, name: str, content: bytes | None
) -> None:
    path: Path = getattr(data, name)
    path.write_bytes(path.read_bytes()[:-40] if content is None else content)
    with pytest.raises(ConfigError) as caught:
        prepare(data.root, now=NOW)
    assert str(data.root) in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_a_missing_ca_key_is_not_made_again(data: DataDir) -> None:
    data.ca_key.unlink()
    with pytest.raises(ConfigError):
        prepare(data.root, now=NOW)


def test_a_server_certificate_is_for_the_names_given_and_renewed_in_time(data: DataDir) -> None:
    ensure_server_certificate(data, ("127.0.0.1", "localhost"), now=NOW)
    first = data.server.read_bytes()
    ensure_server_certificate(data, ("localhost", "127.0.0.1"), now=NOW)
    assert data.server.read_bytes() == first
    ensure_server_certificate(data, ("localhost",), now=NOW)
    second = data.server.read_bytes()
    assert second != first
    ensure_server_certificate(data, ("localhost",), now=NOW + timedelta(days=800))
    assert data.server.read_bytes() != second
    server_context(data)


@pytest.mark.parametrize("name", ["control", "ledger"])
@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\x00" + bytes(4000)])
def test_a_damaged_database_is_named_and_never_replaced(
    data: DataDir, name: str, content: bytes
) -> None:
    from aesp_proxy.aggregator.store.ledger import SqliteLedger
    from aesp_proxy.aggregator.store.objects import DirectoryObjects

    path: Path = getattr(data, name)
    path.write_bytes(content)
    objects = DirectoryObjects(data.root)
    opening = {
        "control": lambda: SqliteControl(path),
        "ledger": lambda: SqliteLedger(path, objects),
    }[name]
    with pytest.raises(ConfigError) as caught:
        opening()
    objects.close()
    assert caught.value.where == str(path)
    assert path.read_bytes() == content


def test_a_database_of_another_program_is_not_touched(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "control.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(ConfigError, match="another program"):
        SqliteControl(path)


def test_a_directory_that_is_none_of_ours_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="aggregator serve"):
        existing(tmp_path)


def test_one_process_holds_a_lock(tmp_path: Path) -> None:
    one, two = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert one.take()
    assert not two.take()
    one.release()
    assert two.take()
    two.release()
