"""Which store is behind each port, what ``stores.yaml`` may say, and who holds a lease."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import aesp_proxy.aggregator
from aesp_proxy.aggregator.identity import DataDir
from aesp_proxy.aggregator.ports import EventQuery
from aesp_proxy.aggregator.store import clickhouse_embedded
from aesp_proxy.aggregator.store.clickhouse_settings import ClickHouseSettings
from aesp_proxy.aggregator.store_settings import KEYS, StoreSettings, load_store_settings
from aesp_proxy.aggregator.stores import (
    index_position,
    open_index,
    open_index_reader,
    open_objects,
    prepare_index,
)
from aesp_proxy.errors import ConfigError, UnavailableError

PACKAGE = Path(aesp_proxy.aggregator.__file__).parent.parent
STORES = {"SqliteControl", "SqliteExports", "SqliteIndex", "SqliteIndexReader", "SqliteLedger"}
STORES |= {"DirectoryObjects", "LedgerReader", "S3Objects"}
STORES |= {"ClickHouseIndex", "ClickHouseServer", "EmbeddedClickHouse", "SocketIndexReader"}


def test_stores_are_opened_in_one_place():
    strays = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        if path.parent.name != "store" and path.name != "stores.py"
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in STORES
    ]
    assert strays == []


def test_without_a_file_everything_is_embedded(tmp_path: Path):
    assert load_store_settings(tmp_path / "stores.yaml") == StoreSettings()


def test_batches_can_be_in_a_directory_that_others_share(tmp_path: Path):
    data = DataDir(tmp_path)
    data.store_settings.write_text("objects: {directory: shared}\n")
    objects = open_objects(data)
    objects.put_all([("batches/h/1.batch", b"bytes")])
    objects.close()
    assert (tmp_path / "shared/batches/h/1.batch").read_bytes() == b"bytes"


def test_batches_can_be_in_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = DataDir(tmp_path)
    data.store_settings.write_text(
        "objects: {s3: {endpoint: https://s3.example.test, bucket: kept}}\n"
    )
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    with pytest.raises(ConfigError, match="no credentials"):
        open_objects(data)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    objects = open_objects(data)
    objects.close()
    assert objects.by_hash


def test_where_others_write_a_batch_is_named_by_its_hash(tmp_path: Path):
    data = DataDir(tmp_path)
    for text, by_hash in (("", False), ("objects: {directory: shared}\n", True)):
        if text:
            data.store_settings.write_text(text)
        objects = open_objects(data)
        objects.close()
        assert objects.by_hash is by_hash


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("objects: {s3: here}\n", "1:15: s3 is a map"),
        ("objects: {s3: {bucket: abc}}\n", "1:15: endpoint is missing"),
        ("other: 1\n", "1:1: 'other' is not a setting"),
        ("objects: here\n", "1:10: objects names one kind of store"),
        ("objects: {directory: a, more: b}\n", "1:10: objects names one kind of store"),
        ("objects: {elsewhere: a}\n", "1:11: 'elsewhere' is not a setting of objects"),
        ("objects: {directory: [a]}\n", "1:22: directory must be text"),
        ("", "the file is empty"),
    ],
    ids=["s3-map", "s3-endpoint", "key", "text", "two", "kind", "list", "empty"],
)
def test_a_wrong_setting_is_said_with_its_place(tmp_path: Path, text: str, said: str):
    path = tmp_path / "stores.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_store_settings(path)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("events: clickhouse\n", "1:9: events names one kind of store"),
        ("events: {clickhouse: yes}\n", "1:22: clickhouse must be a map"),
        ("events: {clickhouse: {}}\n", "1:22: clickhouse needs a url"),
        ("events: {clickhouse: {embedded: false}}\n", "1:33: embedded is true and stands alone"),
        ("events: {clickhouse: {embedded: true, user: u}}\n", "1:33: embedded is true and stands"),
        ("events: {clickhouse: {password: p}}\n", "1:23: 'password' is not a setting"),
        ("events: {clickhouse: {url: [a]}}\n", "1:28: url must be text"),
        ("events: {clickhouse: {url: 'http://db.example'}}\n", "1:28: http goes to loopback only"),
        ("events: {clickhouse: {url: 'ftp://127.0.0.1'}}\n", "1:28: is not the address of an HTTP"),
        ("events: {clickhouse: {url: 'https://h:port'}}\n", "1:28: is not the address of an HTTP"),
        ("events: {clickhouse: {url: 'https://u:p@h'}}\n", "1:28: holds more than scheme, host"),
        (
            "events: {clickhouse: {url: 'https://h', password_file: a, password_env: B}}\n",
            "1:73: the password has one place",
        ),
    ],
    ids=range(12),
)
def test_a_wrong_place_of_events_is_said(tmp_path: Path, text: str, said: str):
    path = tmp_path / "stores.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_store_settings(path)
    assert said in str(caught.value)


def test_a_password_is_read_where_it_is_kept_and_never_told(tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_text("w\u00f6rd\n")
    secret.chmod(0o600)
    its = ClickHouseSettings(url="https://h", password_file=secret)
    assert its.password({}) == "w\u00f6rd"
    named = ClickHouseSettings(url="https://h", password_env="THERE")
    assert named.password({"THERE": "p"}) == "p"
    assert ClickHouseSettings(url="https://h").password({}) == ""
    with pytest.raises(ConfigError, match="is not set"):
        named.password({})
    secret.chmod(0o644)
    with pytest.raises(ConfigError) as caught:
        its.password({})
    secret.chmod(0o600)
    secret.write_bytes(b"two\nlines")
    with pytest.raises(ConfigError) as caught:
        its.password({})
    assert "lines" not in str(caught.value)


def test_every_setting_of_events_is_documented():
    page = (PACKAGE.parent.parent / "docs/aggregator.md").read_text()
    of_events = [key for key in KEYS if key.startswith("events.")]
    assert of_events
    assert [key for key in of_events if f"`{key}`" not in page] == []


def test_without_its_library_an_embedded_clickhouse_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(clickhouse_embedded, "find_spec", lambda _: None)
    data = DataDir(tmp_path)
    data.store_settings.write_text("events: {clickhouse: {embedded: true}}\n")
    with pytest.raises(ConfigError, match=r"install aesp-proxy\[clickhouse\]"):
        prepare_index(data)
    with pytest.raises(ConfigError, match=r"install aesp-proxy\[clickhouse\]"):
        open_index(data)


def test_nobody_answers_for_an_embedded_clickhouse_that_no_process_has(tmp_path: Path):
    data = DataDir(tmp_path)
    data.store_settings.write_text("events: {clickhouse: {embedded: true}}\n")
    assert index_position(data) == -1
    with pytest.raises(UnavailableError, match="the index is not answering"):
        open_index_reader(data).find(EventQuery())
