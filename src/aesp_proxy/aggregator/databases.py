"""The PostgreSQL server of the settings: one in a process for each address.

It keeps a few idle connections for the next who opens a store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aesp_proxy.aggregator.store_settings import load_store_settings
from aesp_proxy.errors import ConfigError

if TYPE_CHECKING:
    from aesp_proxy.aggregator.identity import DataDir
    from aesp_proxy.aggregator.store.database import Database
    from aesp_proxy.aggregator.store.postgresql import Server

_servers: dict[str, Server] = {}


def database_server(data: DataDir) -> Server | None:
    """Return the server, None when stores are embedded; ConfigError without the library."""
    url = load_store_settings(data.store_settings).database
    if not url or url in _servers:
        return _servers.get(url)
    try:
        from aesp_proxy.aggregator.store.postgresql import Server  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError(
            "PostgreSQL needs the library psycopg",
            where=str(data.store_settings),
            remedy="install aesp-proxy[postgresql]",
        ) from error
    return _servers.setdefault(url, Server(url, where=str(data.store_settings)))


def open_database(server: Server, name: str) -> Database:
    """Open a connection for the store ``name``."""
    from aesp_proxy.aggregator.store.postgresql import PostgresDatabase  # noqa: PLC0415 - an extra

    return PostgresDatabase(server, name=name)


def close_databases() -> None:
    """Close the idle connections."""
    while _servers:
        _servers.popitem()[1].close()
