"""The part of ``stores.yaml`` that says where events for queries are: ``events``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from aesp_proxy import keys
from aesp_proxy.decide.policy.document import Mapping, Node, Scalar, at
from aesp_proxy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping as Table
    from pathlib import Path

KEYS: Final[dict[str, str]] = {
    "events.clickhouse.embedded": "`true`: ClickHouse as a library, in `DATA/clickhouse`",
    "events.clickhouse.url": "or a server's HTTP interface: `https`, or `http` to loopback",
    "events.clickhouse.database": "its database, which must be there; `default` unless said",
    "events.clickhouse.user": "who we are there; `default` unless said",
    "events.clickhouse.password_file": "file with the password; only its owner may read it",
    "events.clickhouse.password_env": "variable of the aggregator that holds it instead",
    "events.clickhouse.ca_file": "roots that the server is trusted by; default are the system's",
}
_PLACE: Final = "events.clickhouse."
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClickHouseSettings:
    """A ClickHouse: a server's ``url``, or embedded where that is empty."""

    url: str = ""
    database: str = "default"
    user: str = "default"
    password_file: Path | None = None
    password_env: str = ""
    ca_file: Path | None = None

    def password(self, environment: Table[str, str]) -> str:
        """Read the password, empty when there is none; ConfigError when it cannot be read."""
        if self.password_file is not None:
            return _line(keys.read_private(self.password_file), self.password_file)
        if self.password_env and not environment.get(self.password_env):
            raise ConfigError("is not set", where=f"${self.password_env}")
        return environment.get(self.password_env, "") if self.password_env else ""


def read_events(node: Node | None, root: Path) -> ClickHouseSettings | None:
    """Read ``events``; None when they are embedded as ever. ConfigError with the place."""
    if node is None:
        return None
    if not isinstance(node, Mapping) or [key.text for key, _ in node.entries] != ["clickhouse"]:
        raise ConfigError("events names one kind of store", where=at(node), remedy="clickhouse")
    told = node.entries[0][1]
    if not isinstance(told, Mapping):
        raise ConfigError("clickhouse must be a map", where=at(told), remedy="{embedded: true}")
    given: dict[str, Scalar] = {}
    for key, value in told.entries:
        if _PLACE + key.text not in KEYS:
            raise ConfigError(f"{key.text!r} is not a setting of clickhouse", where=at(key))
        if not isinstance(value, Scalar) or not value.text:
            raise ConfigError(f"{key.text} must be text", where=at(value))
        given[key.text] = value
    _check(given, told)
    texts = {name: value.text for name, value in given.items()}
    return ClickHouseSettings(
        url=texts.get("url", ""),
        database=texts.get("database", "default"),
        user=texts.get("user", "default"),
        password_file=_file(texts.get("password_file"), root),
        password_env=texts.get("password_env", ""),
        ca_file=_file(texts.get("ca_file"), root),
    )


def _file(name: str | None, root: Path) -> Path | None:
    return None if name is None else root.absolute() / name


def _check(given: Table[str, Scalar], told: Node) -> None:
    embedded, url = given.get("embedded"), given.get("url")
    if embedded is not None:
        if embedded.text != "true" or len(given) > 1:
            raise ConfigError(
                "embedded is true and stands alone", where=at(embedded), remedy="or name a url"
            )
        return
    if url is None:
        raise ConfigError("clickhouse needs a url", where=at(told), remedy="or embedded: true")
    _check_url(url)
    if "password_file" in given and "password_env" in given:
        raise ConfigError("the password has one place", where=at(given["password_env"]))


def _check_url(url: Scalar) -> None:
    try:
        parts = urlsplit(url.text)
        named = parts.hostname is not None and (parts.port or 1) > 0
    except ValueError:
        named = False
    if not named or parts.scheme not in {"http", "https"}:
        raise ConfigError("is not the address of an HTTP interface", where=at(url))
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ConfigError("http goes to loopback only", where=at(url), remedy="use https")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError("holds more than scheme, host, port and path", where=at(url))


def _line(data: bytes, path: Path) -> str:
    try:
        text = data.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8", where=str(path)) from error
    if not text or not text.isprintable():
        raise ConfigError("holds no password of one line", where=str(path))
    return text
