"""Write all events that match into a file: CSV for people, Parquet for programs.

Rules: a file appears whole under its name or not at all, and never over another; a CSV
cell is no formula and holds no control character; Parquet holds the records' own values.
Needs, for Parquet, the extra ``parquet`` (pyarrow).
"""

from __future__ import annotations

import csv
import os
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from aesp_proxy.aggregator.query import LIMIT_MAX, parse_cursor
from aesp_proxy.errors import ConfigError, RecordError
from aesp_proxy.model.spreadsheet import csv_value
from aesp_proxy.record.canonical import FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aesp_proxy.aggregator.ports import EventQuery

# The id says origin, epoch and seq; version is the layout of bytes that are not here.
_FIELDS: Final = tuple(
    field for field in FIELDS if field.name not in {"version", "origin", "epoch", "seq"}
)
COLUMNS: Final = ("id", "origin", "time", *(field.name for field in _FIELDS))
_INTEGERS: Final = frozenset(field.name for field in _FIELDS if field.kind == "uint")


class Finder(Protocol):
    """Where events are found: ``local.StoreSearch``."""

    def find(
        self, query: EventQuery, *, full: bool
    ) -> tuple[list[dict[str, Any]], str | None, int]:
        """Return a page of events as JSON, the next cursor, and batches not indexed."""


def extract_events(finder: Finder, query: EventQuery, out: Path, *, form: str) -> int:
    """Write every event that matches to ``out``, newest first; return how many.

    ConfigError when the file is there or cannot be made; UnavailableError when a page
    takes too long.
    """
    with _new_file(out) as part:
        pages = _pages(finder, query)
        return _write_csv(part, pages) if form == "csv" else _write_parquet(part, pages)


def _pages(finder: Finder, query: EventQuery) -> Iterator[list[dict[str, Any]]]:
    asked = replace(query, limit=LIMIT_MAX)
    while True:
        events, cursor, _ = finder.find(asked, full=True)
        if events:
            yield [_flat(event) for event in events]
        if cursor is None:
            return
        asked = replace(asked, cursor=parse_cursor(cursor))


def _flat(event: dict[str, Any]) -> dict[str, Any]:
    record = event.get("record")
    if record is None:
        raise RecordError("its batch cannot be read", where=str(event["id"]))
    return {**record, "id": event["id"], "origin": event["origin"], "time": event["time"]}


def _write_csv(part: Path, pages: Iterator[list[dict[str, Any]]]) -> int:
    count = 0
    with part.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for page in pages:
            writer.writerows([[csv_value(event[name]) for name in COLUMNS] for event in page])
            count += len(page)
    return count


def _write_parquet(part: Path, pages: Iterator[list[dict[str, Any]]]) -> int:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra of 150 MB: only where it is used
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        raise ConfigError(
            "Parquet needs the library pyarrow", remedy="install aesp-proxy[parquet]"
        ) from missing
    finding = pa.struct(
        [
            ("rule", pa.string()),
            ("severity", pa.int64()),
            ("location", pa.string()),
            ("offset", pa.int64()),
            ("masked", pa.string()),
            ("fingerprint", pa.string()),
            ("via", pa.string()),
        ]
    )
    listed = {
        "policy_violations": pa.list_(pa.string()),
        "applied_policies": pa.list_(pa.string()),
        "metadata": pa.map_(pa.string(), pa.string()),
        "findings": pa.list_(finding),
    }
    schema = pa.schema(
        [
            (name, listed.get(name) or (pa.int64() if name in _INTEGERS else pa.string()))
            for name in COLUMNS
        ]
    )
    count = 0
    with pq.ParquetWriter(part, schema, compression="zstd") as writer:
        for page in pages:
            rows = [{name: event[name] for name in COLUMNS} for event in page]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            count += len(page)
    return count


@contextmanager
def _new_file(out: Path) -> Iterator[Path]:
    """Give a name aside, which becomes ``out`` when all has gone well."""
    part = out.with_name(out.name + ".part")
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(part)) from error
    try:
        yield part
        # A link and not a rename: what is there is not written over.
        os.link(part, out)
    except OSError as error:
        remedy = "name a new file" if isinstance(error, FileExistsError) else "make room there"
        raise ConfigError(
            f"cannot be written: {error.strerror}", where=str(out), remedy=remedy
        ) from error
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
