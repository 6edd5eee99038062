"""Which address of PostgreSQL is taken, and what an error of it says; no server is asked."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from aesp_proxy.aggregator.identity import DataDir, prepare
from aesp_proxy.aggregator.joining import join
from aesp_proxy.aggregator.store.postgresql import checked_url, translate
from aesp_proxy.aggregator.stores import open_control
from aesp_proxy.errors import ConfigError, RecordError, UnavailableError

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _no_libpq_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGSSLMODE", "PGPASSWORD"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///audit",
        "postgresql://u@/audit?host=/run/postgresql",
        "postgresql://u@127.0.0.1:5433/audit",
        "postgresql://u@[::1]/audit",
        "postgresql://u@db.example.com/audit?sslmode=verify-full",
        "postgresql://u@a.example.com,b.example.com/audit?sslmode=verify-ca",
    ],
)
def test_this_machine_or_checked_tls_is_taken(url: str):
    found = conninfo_to_dict(checked_url(url, where="stores.yaml"))
    assert found["target_session_attrs"] == "read-write"
    assert "idle_in_transaction_session_timeout" in str(found["options"])


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:geheim@127.0.0.1/audit", "holds a password"),
        ("postgresql://u@127.0.0.1/audit?password=geheim", "holds a password"),
        ("postgresql://u@db.example.com/audit", "checked TLS only"),
        ("postgresql://u@db.example.com/audit?sslmode=require", "checked TLS only"),
        ("postgresql://u@127.0.0.1,db.example.com/audit", "checked TLS only"),
        ("postgresql://u@localhost/audit?hostaddr=192.0.2.1", "checked TLS only"),
        ("postgresql://u@127.0.0.1/audit?no_such=geheim", "is not a postgresql:// address"),
    ],
)
def test_a_password_or_unchecked_tls_is_refused_and_not_repeated(url: str, said: str):
    with pytest.raises(ConfigError, match=said) as raised:
        checked_url(url, where="stores.yaml")
    assert "geheim" not in str(raised.value)


def test_a_host_from_the_environment_is_no_way_round(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PGHOST", "db.example.com")
    with pytest.raises(ConfigError, match="checked TLS only"):
        checked_url("postgresql:///audit", where="stores.yaml")


@pytest.mark.parametrize(
    ("error", "family"),
    [
        (psycopg.errors.SerializationFailure, UnavailableError),
        (psycopg.errors.DeadlockDetected, UnavailableError),
        (psycopg.errors.LockNotAvailable, UnavailableError),
        (psycopg.errors.QueryCanceled, UnavailableError),
        (psycopg.errors.AdminShutdown, UnavailableError),
        (psycopg.OperationalError, UnavailableError),
        (psycopg.errors.DiskFull, RecordError),
        (psycopg.errors.UniqueViolation, RecordError),
        (psycopg.DataError, RecordError),
    ],
)
def test_an_error_says_its_kind_and_no_value(error: type[psycopg.Error], family: type):
    found = translate(error("Key (origin)=(a peer's bytes) already exists"))
    assert type(found) is family
    assert "peer" not in str(found)


@pytest.mark.parametrize(
    ("stores", "said"),
    [
        ("", "names no database"),
        ("database: postgresql:///audit\n", "keeps batches in the data directory"),
        ("database: postgresql:///audit\nobjects: {directory: near}\n", "means other places"),
    ],
    ids=["embedded", "objects", "relative"],
)
def test_who_has_nothing_to_share_is_not_joined(tmp_path: Path, stores: str, said: str):
    first = prepare(tmp_path / "one", now=NOW)
    for path in (first.log_key, first.log_public):
        path.write_text("a key")
    if stores:
        first.store_settings.write_text(stores)
    with pytest.raises(ConfigError, match=said):
        join(tmp_path / "two", first.root, now=NOW)
    assert not DataDir(tmp_path / "two").ca.exists()


def test_an_aggregator_of_its_own_is_not_made_anothers(tmp_path: Path):
    first, second = prepare(tmp_path / "one", now=NOW), prepare(tmp_path / "two", now=NOW)
    for path in (first.log_key, first.log_public):
        path.write_text("a key")
    first.store_settings.write_text(
        f"database: postgresql:///audit\nobjects: {{directory: {tmp_path}}}\n"
    )
    before = second.receipt_key.read_bytes()
    with pytest.raises(ConfigError, match="an aggregator of its own"):
        join(second.root, first.root, now=NOW)
    assert second.receipt_key.read_bytes() == before


def test_a_missing_library_is_said_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "aesp_proxy.aggregator.store.postgresql", None)
    data = DataDir(tmp_path)
    data.store_settings.write_text("database: postgresql:///missing\n")
    with pytest.raises(ConfigError, match=r"install aesp-proxy\[postgresql\]"):
        open_control(data)
