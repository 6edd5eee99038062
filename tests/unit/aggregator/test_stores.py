"""Which store is behind each port, what ``stores.yaml`` may say, and who holds a lease."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import aesp_proxy.aggregator
from aesp_proxy.aggregator.identity import DataDir
from aesp_proxy.aggregator.store_settings import StoreSettings, load_store_settings
from aesp_proxy.aggregator.stores import open_leases, open_objects
from aesp_proxy.errors import ConfigError

PACKAGE = Path(aesp_proxy.aggregator.__file__).parent.parent
STORES = {"SqliteControl", "SqliteExports", "SqliteIndex", "SqliteIndexReader", "SqliteLedger"}
STORES |= {"DirectoryObjects", "LedgerReader", "S3Objects"}


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


def test_a_lease_is_one_holders_until_it_is_let_go(tmp_path: Path):
    leases = open_leases(DataDir(tmp_path))
    first = leases.take("log")
    assert first is not None
    assert first.held()
    assert leases.take("log") is None
    assert leases.take("other") is not None
    first.release()
    assert not first.held()
    assert leases.take("log") is not None


def test_a_lease_falls_when_its_holder_dies(tmp_path: Path):
    take = (
        "import sys; from pathlib import Path;"
        "from aesp_proxy.aggregator.identity import DataDir;"
        "from aesp_proxy.aggregator.stores import open_leases;"
        "lease = open_leases(DataDir(Path(sys.argv[1]))).take('log');"
        "print(lease is not None, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", take, os.fspath(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        leases = open_leases(DataDir(tmp_path))
        assert leases.take("log") is None
        holder.kill()
        holder.wait()
    assert leases.take("log") is not None


def test_a_lease_has_a_plain_name(tmp_path: Path):
    with pytest.raises(ConfigError):
        open_leases(DataDir(tmp_path)).take("../log")
