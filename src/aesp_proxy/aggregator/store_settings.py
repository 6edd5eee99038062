"""Where the stores are: ``stores.yaml`` in the data directory, checked whole.

Without the file everything is embedded: batches as files, SQLite for the rest. Rules:
unknown keys are errors with FILE:LINE:COL; a secret is never in the file. ``KEYS`` is the
table the documentation repeats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aesp_proxy import keys
from aesp_proxy.aggregator.store.clickhouse_settings import KEYS as EVENT_KEYS
from aesp_proxy.aggregator.store.clickhouse_settings import ClickHouseSettings, read_events
from aesp_proxy.aggregator.store.s3_settings import KEYS as S3_KEYS
from aesp_proxy.aggregator.store.s3_settings import S3Settings, read_s3_settings
from aesp_proxy.decide.policy.document import Mapping, Node, Scalar, at, parse_document
from aesp_proxy.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

KEYS: Final[dict[str, str]] = {
    "database": "`postgresql://USER@HOST/NAME?...`, for all but batches and the index of events; "
    "no password: that is in `PGPASSFILE`, `~/.pgpass` or `PGPASSWORD`.",
    "objects.directory": "Where the batches are, a directory that several aggregators share.",
    **{f"objects.s3.{name}": text for name, text in S3_KEYS.items()},
    **EVENT_KEYS,
}
_TOP: Final = ("database", "objects", "events")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Where each store is; what is None is embedded in the data directory.

    ``database`` is the address of a PostgreSQL database, empty for SQLite;
    ``objects_directory`` or ``objects_s3`` is where batches are, in place of the data
    directory itself; ``events`` the ClickHouse of events for queries, in place of SQLite.
    """

    database: str = ""
    objects_directory: Path | None = None
    objects_s3: S3Settings | None = None
    events: ClickHouseSettings | None = None


def load_store_settings(path: Path) -> StoreSettings:
    """Read and check ``stores.yaml``; the embedded defaults when there is none.

    ConfigError with the place of what is wrong.
    """
    if not path.exists():
        return StoreSettings()
    try:
        text = keys.read_bounded(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8", where=str(path)) from error
    document = parse_document(text, str(path))
    for key, _ in document.entries:
        if key.text not in _TOP:
            raise ConfigError(f"{key.text!r} is not a setting", where=at(key))
    directory, bucket = _objects(document.get("objects"), path.parent)
    return StoreSettings(
        database=_database(document.key("database"), document.get("database")),
        objects_directory=directory,
        objects_s3=bucket,
        events=read_events(document.get("events"), path.parent),
    )


def _database(key: Scalar | None, node: Node | None) -> str:
    if key is None or node is None:
        return ""
    text = text_of(key, node)
    if not text.startswith(("postgresql://", "postgres://")):
        raise ConfigError("database must be postgresql://...", where=at(node))
    return text


def _objects(node: Node | None, root: Path) -> tuple[Path | None, S3Settings | None]:
    if node is None:
        return None, None
    if not isinstance(node, Mapping) or len(node.entries) != 1:
        raise ConfigError(
            "objects names one kind of store", where=at(node), remedy="directory or s3"
        )
    key, value = node.entries[0]
    if key.text == "s3":
        return None, read_s3_settings(value, root)
    if key.text != "directory":
        raise ConfigError(f"{key.text!r} is not a setting of objects", where=at(key))
    return root.absolute() / text_of(key, value), None


def text_of(key: Scalar, node: Node) -> str:
    """Return the text of a key; ConfigError when it is a list, a map or empty."""
    if not isinstance(node, Scalar) or not node.text:
        raise ConfigError(f"{key.text} must be text", where=at(node))
    return node.text
