"""A throw-away authority and the origin's certificate, for loopback only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from aesp_proxy.keys import KeyPair, Purpose, issue_leaf, make_ca

DAYS = 2


def write_authority(folder: Path, name: str) -> tuple[Path, Path]:
    """Write ``ca.pem`` and ``ca-key.pem`` into the folder and return both paths."""
    cert_pem, key_pem = make_ca(name, now=datetime.now(UTC), days=DAYS)
    return _write(folder / "ca.pem", cert_pem), _write(folder / "ca-key.pem", key_pem)


def write_leaf(folder: Path, names: Sequence[str]) -> Path:
    """Write ``leaf.pem`` (certificate and key) for these names, signed by the CA there."""
    authority = KeyPair(
        cert_pem=(folder / "ca.pem").read_bytes(), key_pem=(folder / "ca-key.pem").read_bytes()
    )
    now = datetime.now(UTC)
    cert_pem, key_pem = issue_leaf(authority, names, purpose=Purpose.SERVER, now=now, days=DAYS)
    return _write(folder / "leaf.pem", cert_pem + key_pem)


def _write(path: Path, pem: bytes) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(pem)
    return path
