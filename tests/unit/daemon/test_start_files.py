"""What a worker reads and makes at its start: roots, fingerprint key, compiled rules."""

from __future__ import annotations

import ssl
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aesp_proxy.daemon.fingerprint import load_fingerprint_key
from aesp_proxy.daemon.pack_files import read_packs
from aesp_proxy.daemon.roots import upstream_roots
from aesp_proxy.daemon.rule_cache import compiled
from aesp_proxy.decide.secrets.rules import rule_from_policy
from aesp_proxy.errors import ConfigError
from aesp_proxy.keys import make_ca
from aesp_proxy.model.decision import Severity


def test_the_operators_roots_are_trusted_besides_the_systems(tmp_path, monkeypatch):
    now = datetime.now(UTC)
    system, own = (make_ca(name, now=now)[0] for name in ("system", "own"))
    (tmp_path / "system.pem").write_bytes(system)
    (tmp_path / "own.pem").write_bytes(own)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    merged = upstream_roots(tmp_path / "own.pem", tmp_path)
    assert merged is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(merged)
    assert len(context.get_ca_certs()) == 2
    assert upstream_roots(None, tmp_path) == tmp_path / "system.pem"


@pytest.mark.parametrize("content", [b"", b"no certificate", b"\xff\xfe"])
def test_roots_that_are_none_are_a_config_error_that_names_the_file(tmp_path, content):
    (tmp_path / "own.pem").write_bytes(content)
    with pytest.raises(ConfigError, match=r"upstream\.ca_file") as refused:
        upstream_roots(tmp_path / "own.pem", tmp_path)
    assert "own.pem" in str(refused.value)


def test_the_fingerprint_key_is_made_once_and_kept_private(tmp_path):
    key = load_fingerprint_key(tmp_path)
    assert len(key) == 32
    assert load_fingerprint_key(tmp_path) == key
    assert (tmp_path / "fingerprint.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["fingerprint.key"]


def test_a_damaged_fingerprint_key_is_a_config_error(tmp_path):
    (tmp_path / "fingerprint.key").write_bytes(b"short")
    with pytest.raises(ConfigError, match="fingerprint"):
        load_fingerprint_key(tmp_path)


def found(locator, text: bytes) -> set[int]:
    return {hit[1] for hit in locator.block(text)}


def test_compiled_rules_are_kept_and_find_the_same(tmp_path):
    rules = read_packs()[:20]
    first = compiled(rules, tmp_path / "cache")
    (blob,) = (tmp_path / "cache").glob("*.hsdb")
    assert blob.stat().st_mode & 0o777 == 0o600
    text = b"AKIA" + b"ABCDEFGHIJKLMNOP "
    assert found(compiled(rules, tmp_path / "cache"), text) == found(first, text)


@pytest.mark.parametrize("damage", ["flipped", "empty", "writable by others", "a link"])
def test_a_cache_that_cannot_be_trusted_is_not_used(tmp_path, damage):
    rules = (rule_from_policy("corp", "CORP-[0-9]{4}", Severity.CRITICAL),)
    compiled(rules, tmp_path / "cache")
    (blob,) = (tmp_path / "cache").glob("*.hsdb")
    data = blob.read_bytes()
    if damage == "flipped":
        blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "empty":
        blob.write_bytes(b"")
    elif damage == "writable by others":
        blob.chmod(0o666)
    else:
        blob.rename(tmp_path / "elsewhere")
        blob.symlink_to(tmp_path / "elsewhere")
    assert found(compiled(rules, tmp_path / "cache"), b"CORP-1234 ")
    assert blob.stat().st_mode & 0o777 == 0o600  # made anew


def test_without_a_place_to_keep_them_rules_are_compiled(tmp_path):
    rules = (rule_from_policy("corp", "CORP-[0-9]{4}", Severity.CRITICAL),)
    (tmp_path / "file").write_text("not a directory")
    for place in (None, Path(tmp_path / "file" / "cache")):
        assert found(compiled(rules, place), b"CORP-1234 ")


def test_who_compiles_keeps_no_more_memory_than_who_reads_what_was_kept(tmp_path):
    code = (
        "import pathlib, sys; from aesp_proxy.daemon.policy_files import load_snapshot; "
        "load_snapshot(None, fingerprint_key=bytes(32), serial=1, "
        "cache_dir=pathlib.Path(sys.argv[1])); "
        "print(open('/proc/self/statm').read().split()[1])"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "cache")]
    compiling, reading = (
        int(subprocess.run(words, capture_output=True, check=True).stdout) for _ in range(2)
    )
    assert compiling < 1.6 * reading  # 2.6 times, before it gave memory back
