"""Make a data directory of one more aggregator on the stores of another.

Each has a directory of its own: server certificate, address, index of events. What hosts
have pinned is shared, so that a host takes a receipt of any: authority, receipt key, keys of
the log. Rules: nothing that is there is replaced by something else; the authority's
certificate comes last, because its presence says "complete".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aesp_proxy import keys
from aesp_proxy.aggregator.enrolment import keep_public_key
from aesp_proxy.aggregator.identity import DataDir, existing, load_ca, load_receipt_key
from aesp_proxy.aggregator.store_settings import load_store_settings
from aesp_proxy.aggregator.stores import open_control
from aesp_proxy.errors import ConfigError

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

_PRIVATE: Final = ("ca_key", "receipt_key", "log_key")
_PUBLIC: Final = ("receipt_public", "log_public", "store_settings")
_WHERE_THERE: Final = ("client_ca", "witness_ca", "log_policy", "export_settings")


def join(root: Path, source: Path, *, now: datetime) -> int:
    """Make ``root`` from the data directory ``source``, or a copy of its keys and settings.

    Return how many hosts are known. ConfigError when the stores of ``source`` are not
    shared, or ``root`` is an aggregator of its own; UnavailableError without the database.
    """
    theirs, ours = existing(source), DataDir(root)
    _check_shared(theirs)
    _check_ours(theirs, ours)
    for directory in (root, ours.ca.parent, ours.server.parent, ours.receipt_key.parent):
        keys.make_private_dir(directory)
    for name in _PRIVATE:
        _copy(theirs, ours, name, mode=0o600)
    for name in (*_PUBLIC, *_WHERE_THERE):
        if name in _PUBLIC or getattr(theirs, name).is_file():
            _copy(theirs, ours, name, mode=0o644)
    if load_store_settings(ours.store_settings) != load_store_settings(theirs.store_settings):
        raise ConfigError(
            "means other places there", where=str(theirs.store_settings), remedy="write whole paths"
        )
    _copy(theirs, ours, "ca", mode=0o644)
    load_ca(ours, now=now)
    load_receipt_key(ours)
    return keep_public_keys(ours)


def copy_keys(theirs: DataDir, ours: DataDir) -> None:
    """Copy what hosts have pinned and the operator's settings, but the authority's certificate.

    Where the stores are is not among it. ConfigError where something else is there.
    """
    public = tuple(name for name in _PUBLIC if name != "store_settings")
    _check_ours(theirs, ours, public)
    for directory in (ours.root, ours.ca.parent, ours.server.parent, ours.receipt_key.parent):
        keys.make_private_dir(directory)
    for name in _PRIVATE:
        _copy(theirs, ours, name, mode=0o600)
    for name in (*public, *_WHERE_THERE):
        if name in public or getattr(theirs, name).is_file():
            _copy(theirs, ours, name, mode=0o644)


def keep_public_keys(data: DataDir) -> int:
    """Write the first public key of every host that others have enrolled; return how many."""
    control = open_control(data)
    try:
        origins = control.origins()
    finally:
        control.close()
    for origin in origins:
        if not data.origin_public(origin.name).exists():
            keep_public_key(data, origin.name, origin.public_key)
    return len(origins)


def _check_shared(theirs: DataDir) -> None:
    settings = load_store_settings(theirs.store_settings)
    where = str(theirs.store_settings)
    if not settings.database:
        raise ConfigError("names no database", where=where, remedy="several need PostgreSQL")
    if settings.objects_directory is None and settings.objects_s3 is None:
        raise ConfigError(
            "keeps batches in the data directory", where=where, remedy="name objects that all reach"
        )


def _check_ours(theirs: DataDir, ours: DataDir, public: tuple[str, ...] = _PUBLIC) -> None:
    for name in (*_PRIVATE, *public, "ca"):
        path: Path = getattr(ours, name)
        if path.exists() and keys.read_bounded(path) != keys.read_bounded(getattr(theirs, name)):
            raise ConfigError(
                f"has another {path.name}: it is an aggregator of its own",
                where=str(ours.root),
                remedy="choose another directory",
            )


def _copy(theirs: DataDir, ours: DataDir, name: str, *, mode: int) -> None:
    keys.write_atomic(getattr(ours, name), keys.read_bounded(getattr(theirs, name)), mode=mode)
