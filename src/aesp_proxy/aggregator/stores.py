"""The one place that opens stores: which is behind each port, ``stores.yaml`` says.

Nobody else constructs a store. Each function opens anew what the caller closes; every
process opens its own. Without ``stores.yaml`` all are embedded in the data directory.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import structlog

from aesp_proxy.aggregator.databases import database_server, open_database
from aesp_proxy.aggregator.index_socket import IndexService, NobodyAnswersError, SocketIndexReader
from aesp_proxy.aggregator.store.clickhouse import QUERY_S_MAX, ClickHouseIndex
from aesp_proxy.aggregator.store.clickhouse_embedded import EmbeddedClickHouse, check_library
from aesp_proxy.aggregator.store.control import Control, SqliteControl, open_control_rows
from aesp_proxy.aggregator.store.exports import Exports, SqliteExports, open_exports_rows
from aesp_proxy.aggregator.store.fences import Fence
from aesp_proxy.aggregator.store.index import SqliteIndex, SqliteIndexReader
from aesp_proxy.aggregator.store.leases import FileLeases
from aesp_proxy.aggregator.store.ledger import LedgerReader, SqliteLedger, open_ledger_rows
from aesp_proxy.aggregator.store.ledger import open_ledger_reader as open_sqlite_reader
from aesp_proxy.aggregator.store.objects import DirectoryObjects
from aesp_proxy.aggregator.store_settings import load_store_settings
from aesp_proxy.errors import AespError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aesp_proxy.aggregator.identity import DataDir
    from aesp_proxy.aggregator.leases import Leases
    from aesp_proxy.aggregator.ports import (
        BatchLedger,
        EventIndex,
        IndexReader,
        ObjectStore,
    )
    from aesp_proxy.aggregator.store.clickhouse_http import ClickHouseServer
    from aesp_proxy.aggregator.store.clickhouse_settings import ClickHouseSettings
    from aesp_proxy.aggregator.store.database import Database

log = structlog.get_logger(__name__)


def open_objects(data: DataDir) -> ObjectStore:
    """Open where batches are. ConfigError when settings, library or credentials are wrong."""
    settings = load_store_settings(data.store_settings)
    if settings.objects_s3 is not None:
        # Only who uses a bucket has the library, and pays for it at each start.
        from aesp_proxy.aggregator.store.s3 import S3Objects  # noqa: PLC0415

        return S3Objects(settings.objects_s3, environment=os.environ)
    if settings.objects_directory is not None:
        return DirectoryObjects(settings.objects_directory, by_hash=True)
    return DirectoryObjects(data.root)


def open_ledger(data: DataDir, objects: ObjectStore) -> BatchLedger:
    """Open the ledger for writing, making it where it is missing."""
    if server := database_server(data):
        from aesp_proxy.aggregator.store.postgresql_ledger import PostgresLedger  # noqa: PLC0415

        return PostgresLedger(server, objects)
    return SqliteLedger(data.ledger, objects)


def open_ledger_reader(data: DataDir, objects: ObjectStore) -> LedgerReader:
    """Open the ledger for reading; ConfigError when there is none yet."""
    if server := database_server(data):
        return LedgerReader(open_database(server, "ledger"), objects)
    return open_sqlite_reader(data.ledger, objects)


def has_ledger(data: DataDir) -> bool:
    """Whether there is a ledger to be read: not before the first start."""
    return bool(database_server(data)) or data.ledger.is_file()


def open_control(data: DataDir) -> Control:
    """Open who may ship and read, with the one-time tokens (``.tokens``)."""
    if server := database_server(data):
        return Control(open_database(server, "control"), is_remote=True)
    return SqliteControl(data.control)


def open_exports(data: DataDir) -> Exports:
    """Open how far each sink has come."""
    if server := database_server(data):
        return Exports(open_database(server, "exports"))
    return SqliteExports(data.exports)


def open_rows(data: DataDir, store: str) -> Database:
    """Open the rows of ``ledger``, ``control`` or ``exports`` as they are, to be copied.

    Made where there are none.
    """
    if server := database_server(data):
        return open_database(server, store)
    match store:
        case "ledger":
            return open_ledger_rows(data.ledger)
        case "control":
            return open_control_rows(data.control)
        case _:
            return open_exports_rows(data.exports)


def ledger_over(rows: Database, objects: ObjectStore) -> LedgerReader:
    """Read the batches of a ledger whose rows are open already; closed with these."""
    return LedgerReader(rows, objects)


def has_shared_rows(data: DataDir) -> bool:
    """Whether rows are in a database that others may reach too."""
    return bool(database_server(data))


def has_exports(data: DataDir) -> bool:
    """Whether anything was ever exported."""
    return bool(database_server(data)) or data.exports.is_file()


def open_index(data: DataDir) -> EventIndex:
    """Open the index for writing; a damaged one is put aside and begun again.

    The caller holds ``data.index_lock``, unless it only makes an empty one.
    """
    events = load_store_settings(data.store_settings).events
    if events is not None:
        return _open_clickhouse(data, events)
    try:
        return SqliteIndex(data.index)
    except ConfigError as error:
        aside = data.index.with_suffix(".damaged")
        log.warning("index_damaged", error=str(error), kept_as=str(aside))
        _remove_side_files(data)
        data.index.replace(aside)
        return SqliteIndex(data.index)


def prepare_index(data: DataDir) -> None:
    """See that there is an index to ask from the first question on, or why there is not."""
    events = load_store_settings(data.store_settings).events
    if events is not None and not events.url:
        check_library()  # another process will open it, and say nothing to who starts this one
        return
    open_index(data).close()


def answer_for(data: DataDir, index: EventIndex) -> IndexService | None:
    """Answer other processes, where only this one can open the index; the caller closes it."""
    if isinstance(index, ClickHouseIndex) and not is_index_shared(data):
        return IndexService(index, data.index_socket)
    return None


def open_index_reader(
    data: DataDir, *, expired: Callable[[], bool] = lambda: False, query_s_max: float = QUERY_S_MAX
) -> IndexReader:
    """Open the index for questions, which end when they are ``expired`` or take too long."""
    events = load_store_settings(data.store_settings).events
    if events is None:
        return SqliteIndexReader(data.index, expired=expired)
    if not events.url:
        return SocketIndexReader(data.index_socket, query_s_max=query_s_max)
    return ClickHouseIndex(_server(events), query_s_max=query_s_max)


def index_position(data: DataDir) -> int:
    """Return the position up to which batches are indexed, -1 when there is none to ask."""
    events = load_store_settings(data.store_settings).events
    if events is None and not data.index.exists():
        return -1
    index = open_index_reader(data)
    try:
        return index.position()
    except NobodyAnswersError:
        return -1
    finally:
        index.close()


def drop_index(data: DataDir) -> None:
    """Delete the index; it is derived and will be rebuilt. The caller holds its lock."""
    events = load_store_settings(data.store_settings).events
    if events is None:
        _remove_side_files(data)
        data.index.unlink(missing_ok=True)
    elif not events.url:
        shutil.rmtree(data.clickhouse, ignore_errors=True)
    else:
        index = _open_clickhouse(data, events)
        try:
            index.drop()
        finally:
            index.close()


def _open_clickhouse(data: DataDir, events: ClickHouseSettings) -> ClickHouseIndex:
    """Open the ClickHouse for writing, with its tables."""
    runner = _server(events) if events.url else EmbeddedClickHouse(data.clickhouse)
    index = ClickHouseIndex(runner)
    try:
        index.create()
    except AespError:
        index.close()
        raise
    return index


def _server(events: ClickHouseSettings) -> ClickHouseServer:
    # Only who uses a server pays for the client at each start.
    from aesp_proxy.aggregator.store.clickhouse_http import (  # noqa: PLC0415
        ClickHouseServer,
        ServerSettings,
    )

    return ClickHouseServer(
        ServerSettings(
            url=events.url,
            database=events.database,
            user=events.user,
            password=events.password(os.environ),
            ca_file=events.ca_file,
        )
    )


def is_index_shared(data: DataDir) -> bool:
    """Whether other aggregators may index into the same: a server's ClickHouse."""
    events = load_store_settings(data.store_settings).events
    return events is not None and bool(events.url)


def open_leases(data: DataDir) -> Leases:
    """Open what says who does the work that one must do at a time."""
    if server := database_server(data):
        from aesp_proxy.aggregator.store.postgresql_leases import PostgresLeases  # noqa: PLC0415

        return PostgresLeases(server)
    return FileLeases(data.root)


def open_fence(data: DataDir, name: str) -> Fence | None:
    """Take the turn of a lease's new holder, for what is written outside a row store.

    None where all is on one machine: there a lease is a lock that only its holder's end ends.
    """
    server = database_server(data)
    return Fence(open_database(server, name), name) if server else None


def _remove_side_files(data: DataDir) -> None:
    for suffix in ("-wal", "-shm"):
        data.index.with_name(data.index.name + suffix).unlink(missing_ok=True)
