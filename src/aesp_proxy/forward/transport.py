"""HTTPS with mutual TLS to the aggregators that this host was enrolled with, and nothing else.

Several of them share their authority, the key of their receipts and what they store, so
any will do: one is kept as long as it answers; after a failure the next is the one asked.

Rules: TLS 1.3, the aggregator's own authority only, our certificate always; no
proxy from the environment, no redirect followed, answers bounded. Every failure
to reach one is an ``UnavailableError``; a wrong setting is a ``ConfigError``.
"""

from __future__ import annotations

import http.client
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

from aesp_proxy.errors import ConfigError, UnavailableError
from aesp_proxy.keys import load_pair, read_bounded
from aesp_proxy.model.address import host_port
from aesp_proxy.record.batch import CONTENT_TYPE
from aesp_proxy.record.signature import public_from_pem

ANSWER_BYTES_MAX: Final = 65_536
TIMEOUT_S: Final = 20.0
CONNECT_S_MAX: Final = 5.0
ASKED_S_MAX: Final = 60.0
ADDRESSES_MAX: Final = 16
BATCHES: Final = "batches"
_ENROL: Final = "enrol first: `aesp-proxy enroll`; a reader: `aesp-proxy aggregator enroll`"
_REMEDY: Final = "enroll this host again: `aesp-proxy enroll --help`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where one aggregator is; ``path`` is what the names of its routes are put behind."""

    host: str
    port: int
    path: str

    def __str__(self) -> str:
        return host_port(self.host, self.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """The aggregators as a host knows them: where (one at least), whose key, the TLS to use."""

    addresses: tuple[Address, ...]
    public_key: bytes
    tls: ssl.SSLContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the aggregator said to one batch."""

    status: int
    body: bytes


class Transport(Protocol):
    """Sends one batch and waits for the answer."""

    def post(self, body: bytes) -> Answer:
        """Send; UnavailableError when there is no whole answer."""


def load_destination(directory: Path, *, now: datetime | None = None) -> Destination:
    """Read what enrolment wrote: url, ca.pem, client.pem, client.key, aggregator.pub.

    ConfigError names the file that is absent, damaged, mismatched or expired.
    """
    addresses = tuple(
        Address(host=host, port=port, path=path)
        for host, port, path in (parse_url(url, str(directory / "url")) for url in urls(directory))
    )
    cert_file, key_file = directory / "client.pem", directory / "client.key"
    load_pair(cert_file, key_file, now=now or datetime.now(UTC))
    ca_file, public_file = directory / "ca.pem", directory / "aggregator.pub"
    public_key = public_from_pem(read_bounded(public_file), where=str(public_file))
    try:
        tls = ssl.create_default_context(cadata=read_bounded(ca_file).decode("ascii"))
        tls.minimum_version = ssl.TLSVersion.TLSv1_3
        tls.load_cert_chain(cert_file, key_file)
    except (ssl.SSLError, OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(
            f"cannot be used for TLS: {error}", where=str(directory), remedy=_REMEDY
        ) from error
    return Destination(addresses=addresses, public_key=public_key, tls=tls)


def urls(directory: Path) -> tuple[str, ...]:
    """Return the aggregators' URLs, the lines of ``url``, each once. ConfigError."""
    file = directory / "url"
    try:
        content = read_bounded(file)
    except ConfigError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        raise ConfigError(
            "holds no `url`: nothing is enrolled there", where=str(directory), remedy=_ENROL
        ) from error
    lines = content.decode("ascii", errors="replace").split("\n")
    found = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not 1 <= len(found) <= ADDRESSES_MAX:
        raise ConfigError(
            f"must hold 1 to {ADDRESSES_MAX} URLs, one a line", where=str(file), remedy=_REMEDY
        )
    return found


def parse_url(text: str, where: str, *, remedy: str = _REMEDY) -> tuple[str, int, str]:
    """Read an aggregator's URL: host, port, where its routes begin. ConfigError."""
    try:
        parts = urlsplit(text)
        port = parts.port or 443
    except ValueError as error:
        raise ConfigError("holds no URL", where=where, remedy=remedy) from error
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.username:
        raise ConfigError("holds no https URL", where=where, remedy=remedy)
    return parts.hostname, port, parts.path.rstrip("/") + "/v1/"


class HttpsTransport:
    """One kept connection to one of the aggregators, made anew when it breaks.

    ``first`` says which is asked first: a number of the caller's choice, so that hosts spread;
    ``turn`` is which is asked now, in the order of ``url``.
    """

    def __init__(
        self, destination: Destination, *, timeout_s: float = TIMEOUT_S, first: int = 0
    ) -> None:
        self._destination, self._timeout_s = destination, timeout_s
        self.turn = first % len(destination.addresses)
        self._connection: http.client.HTTPSConnection | None = None
        self.asked_s = 0.0

    @property
    def addresses(self) -> int:
        """How many aggregators there are to try."""
        return len(self._destination.addresses)

    @property
    def address(self) -> Address:
        """The one that is asked next."""
        return self._destination.addresses[self.turn]

    def post(self, body: bytes) -> Answer:
        """Send one batch; once more on a kept connection that the other end closed."""
        return self.send(BATCHES, body, CONTENT_TYPE)

    def send(self, name: str, body: bytes, media_type: str) -> Answer:
        """Send ``body`` to a route of the aggregator, as :meth:`post` does."""
        return self._exchange("POST", name, body, {"Content-Type": media_type})

    def get(self, name: str) -> Answer:
        """Ask a route of the aggregator, as :meth:`post` does."""
        return self._exchange("GET", name, None, {})

    def _exchange(
        self, method: str, name: str, body: bytes | None, headers: dict[str, str]
    ) -> Answer:
        """Ask once, or twice where a kept connection was closed; the next one after a failure.

        ``asked_s`` is then how long it wants to be left alone.
        """
        self.asked_s = 0.0
        was_kept = self._connection is not None
        try:
            answer = self._ask(method, name, body, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if not was_kept:
                raise self._unavailable(error) from error
            try:
                answer = self._ask(method, name, body, headers)
            except (OSError, http.client.HTTPException) as again:
                raise self._unavailable(again) from again
        if answer.status >= http.client.INTERNAL_SERVER_ERROR:
            self._next()
        return answer

    def _ask(self, method: str, name: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        connection = self._connected()
        connection.request(method, self.address.path + name, body=body, headers=headers)
        response = connection.getresponse()
        answer = response.read(ANSWER_BYTES_MAX + 1)
        self.asked_s = _seconds(response.headers.get("Retry-After", ""))
        if len(answer) > ANSWER_BYTES_MAX or response.will_close:
            self.close()
        return Answer(status=response.status, body=answer[:ANSWER_BYTES_MAX])

    def _connected(self) -> http.client.HTTPSConnection:
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(
                self.address.host,
                self.address.port,
                # A machine that is gone does not answer at all: another must have its turn soon.
                timeout=min(CONNECT_S_MAX, self._timeout_s),
                context=self._destination.tls,
            )
            self._connection.connect()
            self._connection.sock.settimeout(self._timeout_s)
        return self._connection

    def _next(self) -> None:
        if self.addresses > 1:
            self.close()
            self.turn = (self.turn + 1) % self.addresses

    def _unavailable(self, error: Exception) -> UnavailableError:
        where = str(self.address)
        self.close()
        self._next()
        return UnavailableError(
            f"the aggregator cannot be reached: {error}",
            where=where,
            remedy="batches wait in the spool",
        )

    def hurry(self, timeout_s: float) -> None:
        """Wait no longer than this from now on."""
        self._timeout_s = timeout_s
        if self._connection is not None and self._connection.sock is not None:
            self._connection.sock.settimeout(timeout_s)

    def close(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _seconds(text: str) -> float:
    """Read Retry-After in its form of seconds (RFC 9110 section 10.2.3), bounded; else 0."""
    is_number = text.isascii() and text.isdigit() and len(text) < 9
    return min(float(text), ASKED_S_MAX) if is_number else 0.0
