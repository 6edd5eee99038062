"""POST to a sink over HTTP: one connection kept, every wait and every answer bounded.

What the status of an answer says is the same everywhere: 413 is "too much at once",
429 and 5xx "later" (with Retry-After), 400 and 422 "I do not take this", and whatever
else (no such path, wrong token, a redirect) that something is set up wrongly, which
is also "later": nothing is given up for it. Of an answer only a short, printable part
is ever told.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx

from aesp_proxy.aggregator.export.sinks.port import LaterError, UnacceptableError
from aesp_proxy.aggregator.export.sinks.tls import sink_context
from aesp_proxy.aggregator.export.sinks.tunnel import http_proxy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aesp_proxy.aggregator.export.settings import SinkSettings

ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
TOLD_CHARS_MAX: Final = 200
_REFUSED: Final = frozenset({400, 422})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A status and a body that is not too long."""

    status: int
    body: bytes
    after_s: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object; an empty one for anything else."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


class HttpPost:
    """One receiver's connection."""

    def __init__(self, settings: SinkSettings) -> None:
        self._url = settings.url.rstrip("/")
        self._client = httpx.Client(
            verify=sink_context(settings),
            proxy=http_proxy(settings),
            timeout=settings.timeout_s,
            trust_env=False,
            follow_redirects=False,
        )

    def close(self) -> None:
        """Let the connection go."""
        self._client.close()

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send one request and return the answer. LaterError when there is none."""
        url = self._url + path
        try:
            with self._client.stream("POST", url, content=body, headers=dict(headers)) as response:
                parts: list[bytes] = []
                size_bytes = 0
                for part in response.iter_bytes():
                    size_bytes += len(part)
                    if size_bytes > ANSWER_BYTES_MAX:
                        raise LaterError("its answer is too long", where=self._url)
                    parts.append(part)
                return Answer(
                    status=response.status_code,
                    body=b"".join(parts),
                    after_s=_seconds(response.headers.get("retry-after", "")),
                )
        except (httpx.LocalProtocolError, UnicodeError) as error:
            # It may quote a header, and so the sink's secret.
            reason = f"the request cannot be written: {type(error).__name__}"
            raise LaterError(reason, where=self._url) from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            reason = told(str(error)) or type(error).__name__
            raise LaterError(f"no answer: {reason}", where=self._url) from error

    def send(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send one request that is answered with 2xx or an error of the port."""
        answer = self.post(path, body, headers)
        if not answer.is_good:
            raise self.refusal(answer)
        return answer

    def refusal(self, answer: Answer, *, reason: str = "") -> LaterError | UnacceptableError:
        """Return what a status that is not 2xx means."""
        shown = reason or told(answer.body.decode("utf-8", "replace"))
        message = f"status {answer.status}: {shown}" if shown else f"status {answer.status}"
        if answer.status == 413 or answer.status in _REFUSED:
            return UnacceptableError(message, where=self._url)
        return LaterError(message, where=self._url, after_s=answer.after_s)


def told(text: str) -> str:
    """Return what of a peer's text may stand in a message: a line, short, printable."""
    shown = "".join(char if char.isprintable() else " " for char in text[:TOLD_CHARS_MAX])
    return " ".join(shown.split())


def packed(value: object) -> bytes:
    """Pack JSON in one line."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def _seconds(text: str) -> float:
    """Read Retry-After in seconds; a date is not worth a clock here."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0.0
