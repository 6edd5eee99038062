"""The pack and a scanner over it, compiled once for all tests of the secret scan."""

from __future__ import annotations

from pathlib import Path

import pytest

from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.rules import join_rules, parse_rules
from aesp_proxy.decide.secrets.scanner import SecretScanner

PACK = Path(__file__).resolve().parents[3] / "policies" / "secrets"


@pytest.fixture(scope="session")
def pack_files() -> tuple[Path, ...]:
    return tuple(sorted(PACK.glob("*.toml")))


@pytest.fixture(scope="session")
def pack(pack_files: tuple[Path, ...]) -> tuple[Rule, ...]:
    return join_rules(*(parse_rules(path.read_text(), path.name) for path in pack_files))


@pytest.fixture(scope="session")
def key() -> bytes:
    return b"a key for the tests of the scan."


@pytest.fixture(scope="session")
def scanner(pack: tuple[Rule, ...], key: bytes) -> SecretScanner:
    return SecretScanner(pack, key)
