"""Try every store that a data directory names, and say of each how it fares.

What is found is what serving would find: the database is there and keeps what it commits,
the bucket takes, gives back and locks, clocks are together.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aesp_proxy.aggregator.store_settings import load_store_settings
from aesp_proxy.aggregator.stores import (
    has_ledger,
    index_position,
    open_control,
    open_ledger_reader,
    open_objects,
)
from aesp_proxy.errors import AespError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aesp_proxy.aggregator.identity import DataDir


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is found of one store; ``exit_code`` is 0, 3 to be mended, 4 not there now."""

    store: str
    text: str
    exit_code: int = 0


def check_stores(data: DataDir) -> Iterator[Found]:
    """Yield what is found of settings, database, objects and index; raises nothing for them."""
    tries: tuple[tuple[str, Callable[[DataDir], str]], ...] = (
        ("settings", _settings),
        ("database", _database),
        ("objects", _objects),
        ("events", _events),
    )
    for store, tried in tries:
        try:
            yield Found(store=store, text=tried(data))
        except AespError as error:
            code = 4 if isinstance(error, UnavailableError) else 3
            yield Found(store=store, text=str(error), exit_code=code)
            if store == "settings":
                return


def _settings(data: DataDir) -> str:
    load_store_settings(data.store_settings)
    where = data.store_settings
    return str(where) if where.exists() else f"all embedded in {data.root}"


def _database(data: DataDir) -> str:
    with closing(open_control(data)) as control:
        origins = len(control.origins())
    said = "PostgreSQL keeps what it commits" if _is_remote(data) else "SQLite"
    return f"{said}; {origins} hosts are enrolled"


def _is_remote(data: DataDir) -> bool:
    return bool(load_store_settings(data.store_settings).database)


def _objects(data: DataDir) -> str:
    settings = load_store_settings(data.store_settings)
    with closing(open_objects(data)) as objects:
        objects.check()
    bucket = settings.objects_s3
    if bucket is None:
        return f"files in {settings.objects_directory or data.root}, written and read back"
    lock = (
        f"locked for {bucket.lock_days} days ({bucket.lock_mode})"
        if bucket.lock_days
        else ("not locked: who has the credentials can remove batches")
    )
    return f"{bucket.where}, written and read back, {lock}"


def _events(data: DataDir) -> str:
    position = index_position(data)
    if not has_ledger(data) or position < 0:
        return "no index yet: the first start makes it"
    with (
        closing(open_objects(data)) as objects,
        closing(open_ledger_reader(data, objects)) as ledger,
    ):
        return f"{ledger.last_position() - position} batches are not indexed yet"
