"""Exceptions from disk: signed, approved, in scope and not over, or left out and told.

The signature is a detached Ed25519 one over the bytes of the file, in ``FILE.sig``: 64
bytes, or their base64, as ``openssl pkeyutl -sign -rawin`` makes it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aesp_proxy.decide.policy.compile import EXCEPTION_LEVEL
from aesp_proxy.decide.policy.exception import ExceptionFile, read_exception
from aesp_proxy.decide.policy.policy import Layer
from aesp_proxy.decide.policy.scope import Scope
from aesp_proxy.errors import ConfigError
from aesp_proxy.keys import read_bounded
from aesp_proxy.record.signature import SIGNATURE_BYTES, is_signed, public_from_pem

SIGNATURE_SUFFIX: Final = ".sig"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exceptions:
    """Those that have an effect, as layers too; ``warnings`` tell which were left out and why."""

    files: tuple[ExceptionFile, ...]
    layers: tuple[Layer, ...]
    warnings: tuple[str, ...]


def read_keys(paths: Iterable[Path]) -> tuple[bytes, ...]:
    """Read public keys (PEM, Ed25519); ``ConfigError`` for anything else."""
    return tuple(public_from_pem(read_bounded(path), where=str(path)) for path in paths)


def read_exceptions(
    paths: Iterable[tuple[Path, str]], keys: Sequence[bytes], scope: Scope, *, time_ns: int
) -> Exceptions:
    """Read files of exceptions, each with its name in sources.

    ``time_ns`` is the time of the version. ``ConfigError`` for one that would have an
    effect and is not signed by one of the keys.
    """
    files, layers, warnings = [], [], []
    for path, where in paths:
        data = read_bounded(path)
        exception = read_exception(_text(data, where), where)
        told = f"{where}: the exception {exception.exception_id.value[:80]!a} has no effect"
        if not exception.is_approved:
            warnings.append(f"{told}: its status is {exception.status}")
            continue
        _check_signature(path, data, where, keys)
        if not exception.covers(scope):
            continue
        if exception.until_ns <= time_ns:
            warnings.append(f"{told}: it is over")
            continue
        files.append(exception)
        digest = hashlib.sha256(data).hexdigest()
        layers.append(Layer(level=EXCEPTION_LEVEL, path=where, sha256=digest))
    return Exceptions(files=tuple(files), layers=tuple(layers), warnings=tuple(warnings))


def _check_signature(path: Path, data: bytes, where: str, keys: Sequence[bytes]) -> None:
    if not keys:
        raise ConfigError(
            "an exception needs the key of those who approve",
            where=where,
            remedy="give --exception-key FILE",
        )
    signature_path = path.with_name(path.name + SIGNATURE_SUFFIX)
    if not signature_path.is_file():
        raise ConfigError(
            f"not signed: there is no {signature_path.name}",
            where=where,
            remedy="sign the file, or take it away",
        )
    signature = _decoded(read_bounded(signature_path))
    if not any(is_signed(key, signature, data) for key in keys):
        raise ConfigError(
            "the signature is not that of a given key over this file",
            where=where,
            remedy="sign the file again, or take it away",
        )


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError("not UTF-8", where=where) from None


def _decoded(data: bytes) -> bytes:
    if len(data) == SIGNATURE_BYTES:
        return data
    try:
        return base64.b64decode(b"".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        return b""
