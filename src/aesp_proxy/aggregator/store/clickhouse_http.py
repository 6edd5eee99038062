"""A ClickHouse server, over its HTTP interface.

Rules: values travel as ``param_NAME`` and never in the statement; an answer is bounded and
complete before it is read (``wait_end_of_query``), so an error is never half an answer; what
changes something has one fixed name, and the server does not run two of one name at once,
so an insert whose answer was lost is over before the next begins.
Source: https://clickhouse.com/docs/interfaces/http.
"""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx

from aesp_proxy.aggregator.store.clickhouse_sql import STRUCTURE
from aesp_proxy.aggregator.store.clickhouse_words import escaped, failure
from aesp_proxy.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aesp_proxy.aggregator.store.clickhouse_sql import Statement

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
INSERT_S_MAX: Final = 120.0
TELL_S_MAX: Final = 60.0
GRACE_S: Final = 5.0
WRITE_ID: Final = "aesp-index-write"
_NUMBERS: Final = {"output_format_json_quote_64bit_integers": "0"}
_ONE_BLOCK: Final = {"max_threads": "1", "max_insert_threads": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where the server is, checked before, and as whom we come. ``ca_file`` are its roots."""

    url: str
    database: str = "default"
    user: str = "default"
    password: str = ""
    ca_file: Path | None = None


class ClickHouseServer:
    """A ``ClickHouseRunner`` over one kept connection."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._where = settings.url
        ca_file = None if settings.ca_file is None else str(settings.ca_file)
        try:
            context = ssl.create_default_context(cafile=ca_file)
        except OSError as error:
            raise ConfigError("cannot be read as roots", where=str(ca_file)) from error
        self._client = httpx.Client(
            verify=context,
            auth=httpx.BasicAuth(settings.user, settings.password),
            trust_env=False,
            follow_redirects=False,
        )

    def ask(self, statement: Statement, *, seconds_max: float) -> list[list[Any]]:
        """Return the rows of an answer."""
        asked = {"default_format": "JSONCompact", "max_execution_time": f"{seconds_max:.3f}"}
        data = self._post(
            asked | _NUMBERS | _parameters(statement),
            statement.text.encode(),
            seconds_max=seconds_max + GRACE_S,
        )
        try:
            rows: list[list[Any]] = json.loads(data)["data"]
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            raise UnavailableError("its answer is not ClickHouse's", where=self._where) from error
        return rows

    def tell(self, statement: Statement) -> None:
        """Change something."""
        given = {"query_id": WRITE_ID} | _parameters(statement)
        self._post(given, statement.text.encode(), seconds_max=TELL_S_MAX)

    def insert(self, statement: Statement, block: bytes) -> None:
        """Insert one block."""
        query = statement.text % f"input('{STRUCTURE}')" + " FORMAT Native"
        given = {"query": query, "query_id": WRITE_ID} | _ONE_BLOCK | _parameters(statement)
        self._post(given, block, seconds_max=INSERT_S_MAX)

    def close(self) -> None:
        """Let the connection go."""
        self._client.close()

    def _post(self, parameters: Mapping[str, str], body: bytes, *, seconds_max: float) -> bytes:
        given = {"database": self._settings.database, "wait_end_of_query": "1", **parameters}
        try:
            with self._client.stream(
                "POST", self._where, params=given, content=body, timeout=seconds_max
            ) as response:
                data = _read(response, where=self._where)
                code = response.headers.get("x-clickhouse-exception-code", "")
                status = response.status_code
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            name = type(error).__name__
            raise UnavailableError(f"gives no answer: {name}", where=self._where) from error
        if code:
            raise failure(f"Code: {code}.", where=self._where)
        if status != 200:
            raise UnavailableError(f"answers with status {status}", where=self._where)
        return data


def _parameters(statement: Statement) -> dict[str, str]:
    return {f"param_{name}": escaped(value) for name, value in statement.values.items()}


def _read(response: httpx.Response, *, where: str) -> bytes:
    parts: list[bytes] = []
    size_bytes = 0
    for part in response.iter_bytes():
        size_bytes += len(part)
        if size_bytes > ANSWER_BYTES_MAX:
            raise UnavailableError("its answer is too long", where=where)
        parts.append(part)
    return b"".join(parts)
