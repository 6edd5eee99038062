"""Records from wherever they lie, as packed rows: a state directory, batches, an export.

A directory with an ``audit`` directory (or one itself) is read as a state, sealed or not;
any other directory for the ``.batch`` files below it (a spool, an aggregator's store); a
file is a batch, or JSON lines as ``audit tail --json`` writes them. Whether the record is
true is the business of ``audit verify``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from aesp_proxy.errors import InputError, RecordError
from aesp_proxy.model.decision import Finding, Severity
from aesp_proxy.model.record import Outcome, Record, RecordId, RecordKind
from aesp_proxy.record.canonical import RECORD_BYTES_MAX, encode
from aesp_proxy.record.faults import ChainError
from aesp_proxy.record.reader import StateReader, batch_rows, peek_header
from aesp_proxy.record.state import BATCH_SUFFIX, AuditPaths, audit_paths, numbered_batches

_LINE_BYTES_MAX: Final = 4 * RECORD_BYTES_MAX
_FIELDS: Final = {field.name: field for field in fields(Record)}
_PAIRS: Final = "metadata"


@dataclass(frozen=True, slots=True)
class Source:
    """Where records lie. ``total`` counts them as far as headers tell, 0 where unknown."""

    path: Path
    state: AuditPaths | None
    batches: tuple[Path, ...]
    total: int


def find_records(path: Path) -> Source:
    """Look at what a path holds; ``InputError`` where it cannot be records."""
    if path.is_dir():
        for paths in (audit_paths(path), AuditPaths(path)):
            if paths.origin.is_file():
                files = tuple(file for _, file in numbered_batches(paths.batches))
                return Source(path, paths, files, _total(files))
        files = tuple(sorted(path.rglob(f"*{BATCH_SUFFIX}")))
        if not files:
            raise InputError("holds no records", where=str(path))
        return Source(path, None, files, _total(files))
    if not path.exists():
        raise InputError("no such file or directory", where=str(path))
    files = (path,) if path.suffix == BATCH_SUFFIX else ()
    return Source(path, None, files, _total(files))


def _total(files: tuple[Path, ...]) -> int:
    try:
        return sum(header.count for file in files if (header := peek_header(file)).epoch)
    except (OSError, ChainError):
        return 0


def rows_of(source: Source) -> Iterator[bytes]:
    """Give every record as a packed row; ``RecordError`` or ``ChainError`` for a bad file."""
    if source.state is not None:
        yield from StateReader(source.state).new_rows()
    elif source.batches:
        for path in source.batches:
            yield from _batch(path)
    else:
        yield from _lines(source.path)


def _batch(path: Path) -> Iterator[bytes]:
    try:
        header, rows = batch_rows(path.read_bytes())
    except OSError as error:
        raise RecordError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except ChainError as error:
        raise ChainError(error.kind, error.message, where=str(path)) from None
    if header.epoch:
        yield from rows


def _lines(path: Path) -> Iterator[bytes]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None
    with file:
        number = 0
        while line := file.readline(_LINE_BYTES_MAX + 1):
            number += 1
            if line.strip():
                yield _row(line, f"{path}:{number}")


def _row(line: bytes, where: str) -> bytes:
    try:
        value = json.loads(line)
        return encode(_record(value), _id(value["id"]))
    except InputError as error:
        raise InputError(error.message, where=where) from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InputError(
            "is no record", where=where, remedy="write lines with `audit tail --json`"
        ) from None


def _id(text: str) -> RecordId:
    origin, epoch, seq = text.rsplit("/", 2)
    return RecordId(origin=origin, epoch=int(epoch), seq=int(seq))


def _record(value: dict[str, Any]) -> Record:
    named = {name: value[name] for name in _FIELDS if name in value}
    for name, each in named.items():
        if isinstance(each, list) and name != "findings":
            named[name] = tuple(each)
    named["kind"] = RecordKind(value["kind"])
    named["outcome"] = Outcome(value["outcome"])
    named[_PAIRS] = tuple(sorted(value.get(_PAIRS, {}).items()))
    named["findings"] = tuple(map(_finding, value.get("findings", ())))
    return Record(**named)


def _finding(value: dict[str, Any]) -> Finding:
    return Finding(**{**value, "severity": Severity[str(value["severity"]).upper()]})
