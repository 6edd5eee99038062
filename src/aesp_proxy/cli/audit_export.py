"""``aesp-proxy audit export``: records as JSON lines or as a table, for other programs.

What comes out is a reading of the record, not a proof of it: every line names its record,
which ``audit verify`` proves where it stands. JSON holds ASCII only, and control characters
in a table are escaped, so no terminal is driven by either; no cell is a formula. A file that
is there is not written over.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, TextIO

from aesp_proxy.cli.audit import record_dict
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.spreadsheet import csv_value
from aesp_proxy.record.canonical import FIELDS
from aesp_proxy.record.reader import StateReader

if TYPE_CHECKING:
    from pathlib import Path

    from aesp_proxy.record.state import AuditPaths

# The id says origin, epoch and seq; version is the layout of the bytes, which are not here.
_COLUMNS: Final = (
    "id",
    "time",
    *(field.name for field in FIELDS if field.name not in {"version", "origin", "epoch", "seq"}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From when to when, UTC nanoseconds; ``until_ns`` is not included, None is no limit."""

    since_ns: int = 0
    until_ns: int | None = None

    @classmethod
    def of(cls, since: str | None, until: str | None) -> Self:
        """Read both as people write them; InputError for what is no time."""
        from aesp_proxy.aggregator.query import parse_time

        now_ns = time.time_ns()
        return cls(
            since_ns=parse_time(since, now_ns=now_ns, where="--since") if since else 0,
            until_ns=parse_time(until, now_ns=now_ns, where="--until") if until else None,
        )

    def holds(self, time_ns: int) -> bool:
        """Whether a time lies within."""
        return self.since_ns <= time_ns and (self.until_ns is None or time_ns < self.until_ns)


def export_records(paths: AuditPaths, *, form: str, span: Span, out: Path | None) -> int:
    """Write every record within ``span``, sealed ones first; return how many."""
    count = 0
    with _opened(out) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if form == "csv":
            writer.writerow(_COLUMNS)
        for record_id, record in StateReader(paths).new_entries():
            if not span.holds(record.time_ns):
                continue
            values = record_dict(record_id, record)
            if form == "csv":
                writer.writerow([csv_value(values[name]) for name in _COLUMNS])
            else:
                stream.write(json.dumps(values) + "\n")
            count += 1
    return count


@contextmanager
def _opened(out: Path | None) -> Iterator[TextIO]:
    if out is None:
        yield sys.stdout
        return
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {error.strerror}", where=str(out), remedy="name a new file"
        ) from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
            yield stream
    except BaseException as error:
        out.unlink(missing_ok=True)  # half an export would be taken for a whole one
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise ConfigError(
                f"cannot be written: {error.strerror}", where=str(out), remedy="make room"
            ) from error
        raise
