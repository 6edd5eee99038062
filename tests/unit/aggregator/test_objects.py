"""An object is there whole or not at all, and its key stays inside the store."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from object_contract import ObjectContract

from aesp_proxy.aggregator.store.objects import DirectoryObjects
from aesp_proxy.errors import ConfigError, RecordError


@pytest.fixture(params=[False, True], ids=["own", "shared"])
def objects(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[DirectoryObjects]:
    store = DirectoryObjects(tmp_path / "data", by_hash=request.param)
    yield store
    store.close()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[DirectoryObjects]:
    store = DirectoryObjects(tmp_path / "data")
    yield store
    store.close()


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


class TestContract(ObjectContract):
    """What every store promises; tests/live/test_s3.py holds a bucket to the same."""

    @pytest.fixture
    def removing(self, objects: DirectoryObjects) -> DirectoryObjects:
        return objects


def test_every_object_is_one_file(objects: DirectoryObjects, tmp_path: Path) -> None:
    objects.put_all([("a/one", b"1"), *((f"a/{n}", bytes([n])) for n in range(40))])
    assert len(names(tmp_path / "data")) == 41


@pytest.mark.parametrize("call", ["open", "write", "fdatasync", "fsync"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("count", [1, 3])
def test_any_call_that_fails_is_a_record_error_and_leaves_no_whole_object_half(
    objects: DirectoryObjects,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    error: int,
    count: int,
) -> None:
    def fails(*_: Any, **__: Any) -> int:
        raise OSError(error, os.strerror(error))

    wanted = [(f"a/{n}", b"x" * 1000) for n in range(count)]
    monkeypatch.setattr(f"aesp_proxy.aggregator.store.objects.os.{call}", fails)
    with pytest.raises(RecordError):
        objects.put_all(wanted)
    monkeypatch.undo()
    root = tmp_path / "data"
    for name in names(root):
        assert name.endswith(".part") or (root / name).read_bytes() == b"x" * 1000
    objects.put_all(wanted)
    assert all(objects.get(key) == content for key, content in wanted)


def test_a_short_write_is_gone_on_with(
    objects: DirectoryObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(
        "aesp_proxy.aggregator.store.objects.os.write",
        lambda descriptor, data: write(descriptor, bytes(data)[:7]),
    )
    objects.put_all([("a/one", b"abcdefghijklmnopqrstuvwxyz")])
    monkeypatch.undo()
    assert objects.get("a/one") == b"abcdefghijklmnopqrstuvwxyz"


def test_the_order_is_content_then_name_then_directory(
    objects: DirectoryObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects.put_all([("a/zero", b"")])
    calls: list[str] = []
    fdatasync, fsync, rename = os.fdatasync, os.fsync, Path.rename

    def noted(name: str, real: Any) -> Any:
        def call(*arguments: Any) -> Any:
            calls.append(name)
            return real(*arguments)

        return call

    monkeypatch.setattr(os, "fdatasync", noted("content", fdatasync))
    monkeypatch.setattr(Path, "rename", noted("name", rename))
    monkeypatch.setattr(os, "fsync", noted("directory", fsync))
    objects.put_all([("a/one", b"1")])
    assert calls == ["content", "name", "directory"]


def test_a_symbolic_link_in_the_place_of_an_object_is_not_followed(
    embedded: DirectoryObjects, tmp_path: Path
) -> None:
    embedded.put_all([("a/zero", b"")])
    (tmp_path / "data" / "a" / "one.part").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RecordError):
        embedded.put_all([("a/one", b"1")])
    assert not (tmp_path / "elsewhere").exists()


def test_removing_takes_whole_and_half_written(embedded: DirectoryObjects, tmp_path: Path) -> None:
    embedded.put_all([("a/one", b"1")])
    (tmp_path / "data" / "a" / "two.part").write_bytes(b"half")
    assert embedded.remove_all(["a/one", "a/two", "a/three"]) == 2
    assert names(tmp_path / "data") == []


def test_a_directory_that_cannot_be_made_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError):
        DirectoryObjects(tmp_path / "file" / "data")
