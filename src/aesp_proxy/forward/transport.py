"""HTTPS with mutual TLS to one aggregator, and nothing else.

Rules: TLS 1.3, the aggregator's own authority only, our certificate always; no
proxy from the environment, no redirect followed, answers bounded. Every failure
to reach it is an ``UnavailableError``; a wrong setting is a ``ConfigError``.
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
from aesp_proxy.record.batch import CONTENT_TYPE
from aesp_proxy.record.signature import public_from_pem

ANSWER_BYTES_MAX: Final = 65_536
TIMEOUT_S: Final = 30.0
BATCHES: Final = "batches"
_REMEDY: Final = "enroll this host again: `aesp-proxy enroll --help`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """An aggregator as a host knows it: where, whose key, and the TLS to use.

    ``path`` is what the names of its routes are put behind.
    """

    host: str
    port: int
    path: str
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
    url_file = directory / "url"
    text = read_bounded(url_file).decode("ascii", errors="replace").strip()
    host, port, path = parse_url(text, str(url_file))
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
    return Destination(host=host, port=port, path=path, public_key=public_key, tls=tls)


def parse_url(text: str, where: str) -> tuple[str, int, str]:
    """Read an aggregator's URL: host, port, where its routes begin. ConfigError."""
    try:
        parts = urlsplit(text)
        port = parts.port or 443
    except ValueError as error:
        raise ConfigError("holds no URL", where=where, remedy=_REMEDY) from error
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.username:
        raise ConfigError("holds no https URL", where=where, remedy=_REMEDY)
    return parts.hostname, port, parts.path.rstrip("/") + "/v1/"


class HttpsTransport:
    """One kept connection to the aggregator, made anew when it breaks."""

    def __init__(self, destination: Destination, *, timeout_s: float = TIMEOUT_S) -> None:
        self._destination, self._timeout_s = destination, timeout_s
        self._connection: http.client.HTTPSConnection | None = None

    def post(self, body: bytes) -> Answer:
        """Send one batch; once more on a kept connection that the other end closed."""
        return self.send(BATCHES, body, CONTENT_TYPE)

    def send(self, name: str, body: bytes, media_type: str) -> Answer:
        """Send ``body`` to a route of the aggregator, as :meth:`post` does."""
        return self._twice("POST", name, body, {"Content-Type": media_type})

    def get(self, name: str) -> Answer:
        """Ask a route of the aggregator, as :meth:`post` does."""
        return self._twice("GET", name, None, {})

    def _twice(self, method: str, name: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        was_kept = self._connection is not None
        try:
            return self._send(method, name, body, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if not was_kept:
                raise self._unavailable(error) from error
        try:
            return self._send(method, name, body, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._unavailable(error) from error

    def _send(self, method: str, name: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(
                self._destination.host,
                self._destination.port,
                timeout=self._timeout_s,
                context=self._destination.tls,
            )
        path = self._destination.path + name
        self._connection.request(method, path, body=body, headers=headers)
        response = self._connection.getresponse()
        answer = response.read(ANSWER_BYTES_MAX + 1)
        if len(answer) > ANSWER_BYTES_MAX or response.will_close:
            self.close()
        return Answer(status=response.status, body=answer[:ANSWER_BYTES_MAX])

    def _unavailable(self, error: Exception) -> UnavailableError:
        destination = self._destination
        return UnavailableError(
            f"the aggregator cannot be reached: {error}",
            where=f"{destination.host}:{destination.port}",
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
