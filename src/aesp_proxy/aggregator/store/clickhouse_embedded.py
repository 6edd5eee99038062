"""ClickHouse inside this process: ``chdb``, with a directory that is this process's alone.

Rules: a block goes in through memory (a sealed descriptor has no name that another could
put something else under); parameters are ClickHouse's own. Of an error only its number
and our word for it are told, because its text holds values.
Source: https://clickhouse.com/docs/chdb (one process a directory: it locks it).
"""

from __future__ import annotations

import json
import os
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from aesp_proxy.aggregator.store.clickhouse_sql import STRUCTURE
from aesp_proxy.aggregator.store.clickhouse_words import escaped, failure
from aesp_proxy.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from aesp_proxy.aggregator.store.clickhouse_sql import Statement

_ONE_BLOCK: Final = " SETTINGS max_threads = 1, max_insert_threads = 1"
_NUMBERS: Final = "output_format_json_quote_64bit_integers = 0"


def check_library() -> None:
    """See that ``chdb`` is installed, without loading it; ConfigError where it is not."""
    if find_spec("chdb") is None:
        raise ConfigError(
            "an embedded ClickHouse needs the library chdb",
            remedy="install aesp-proxy[clickhouse]",
        )


class EmbeddedClickHouse:
    """A ``ClickHouseRunner`` over a directory. ConfigError without the library."""

    def __init__(self, directory: Path) -> None:
        check_library()
        from chdb.session import Session  # noqa: PLC0415 - an extra of 600 MB: where it is used

        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._where = str(directory)
        self._open = partial(Session, str(directory))
        try:
            self._kept: Any = self._open()  # holds the directory; each thread asks through its own
        except RuntimeError as error:
            raise ConfigError(
                "cannot be opened, or is another process's",
                where=self._where,
                remedy="stop what uses it, or delete it and run aesp-proxy aggregator reindex",
            ) from error

    def ask(self, statement: Statement, *, seconds_max: float) -> list[list[Any]]:
        """Return the rows of an answer."""
        limits = f" SETTINGS max_execution_time = {seconds_max:.3f}, {_NUMBERS}"
        data = self._run(statement.text + limits, statement.values, form="JSONCompact")
        rows: list[list[Any]] = json.loads(data)["data"]
        return rows

    def tell(self, statement: Statement) -> None:
        """Change something; the caller is the only writer."""
        self._run(statement.text, statement.values, form="Null")

    def insert(self, statement: Statement, block: bytes) -> None:
        """Insert one block."""
        descriptor = os.memfd_create("block")
        try:
            with os.fdopen(descriptor, "wb", closefd=False) as stream:
                stream.write(block)
            source = f"file('/proc/self/fd/{descriptor}', 'Native', '{STRUCTURE}')"
            self._run(statement.text % source + _ONE_BLOCK, statement.values, form="Null")
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Close the directory."""
        self._kept.close()

    def _run(self, text: str, values: dict[str, str], *, form: str) -> bytes:
        parameters = {name: escaped(value) for name, value in values.items()}
        try:
            with self._open() as session:
                answer = session.query(text, form, params=parameters or None)
                return bytes(answer.bytes() or b"")
        except RuntimeError as error:
            raise failure(str(error), where=self._where) from error
