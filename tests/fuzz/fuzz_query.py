"""Fuzz target: questions to the index as anybody may write them, and what they become.

What is read is one question; whatever it asks for, no text of it is part of a statement for
ClickHouse, an embedded index answers it, and the place of a page is read back as itself.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl

from aesp_proxy.aggregator.ports import EventCursor, EventQuery
from aesp_proxy.aggregator.query import parse_count, parse_query
from aesp_proxy.aggregator.store.clickhouse_sql import counts, hours_with_rows, page
from aesp_proxy.aggregator.store.index import SqliteIndex
from aesp_proxy.aggregator.store.index_search import search
from aesp_proxy.aggregator.store.index_stats import count_events
from aesp_proxy.errors import InputError

NOW_NS = 1_800_000_000_000_000_000
TEXTS = ("origin", "agent", "host", "reason", "session", "tenant", "rule", "path")


class FindingError(AssertionError):
    """A promise that did not hold."""


@cache
def empty() -> sqlite3.Connection:
    """Open an index without events."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.sqlite"
        SqliteIndex(path).close()
        memory = sqlite3.connect(":memory:", check_same_thread=False)
        file = sqlite3.connect(path)
        file.backup(memory)
        file.close()
    return memory


def blanked(query: EventQuery) -> EventQuery:
    """Put one word for each text, and zero for each number of a cursor."""
    words = {name: "w" for name in TEXTS if getattr(query, name)}
    if query.path.endswith("*"):
        words["path"] = "w*"
    cursor = (
        EventCursor(time_ns=query.cursor.time_ns, origin="w", epoch=0, seq=0)
        if query.cursor
        else None
    )
    return replace(query, cursor=cursor, **words)


def check(query: EventQuery, by: tuple[str, ...]) -> None:
    """The statements of a question are those of the same question about other words."""
    other = blanked(query)
    if page(query, 0, 1, limit=5).text != page(other, 0, 1, limit=5).text:
        raise FindingError(query)
    if hours_with_rows(query, 1, limit=5).text != hours_with_rows(other, 1, limit=5).text:
        raise FindingError(query)
    if query.until_ns != 0 and counts(query, by).text != counts(other, by).text:
        raise FindingError(query)
    if search(empty(), query) or any(found.count for found in count_events(empty(), query, by)):
        raise FindingError("found where nothing is")


def fuzz_one(data: bytes) -> None:
    """Run one input; anything but a question or an InputError is a finding."""
    parameters = dict(parse_qsl(data.decode("utf-8", "replace"), keep_blank_values=True))
    with contextlib.suppress(InputError):
        check(parse_query(parameters, now_ns=NOW_NS), ())
    with contextlib.suppress(InputError):
        check(*parse_count(parameters, now_ns=NOW_NS))
