"""A webhook, signed so that the receiver knows who sent it and when.

Headers ``webhook-id`` (the same when a request is repeated), ``webhook-timestamp`` and
``webhook-signature``: ``v1,`` and the base64 of HMAC-SHA256 over ``ID.TIMESTAMP.BODY``.
A secret that begins with ``whsec_`` is base64 after it, any other is used as it is.
Source: https://github.com/standard-webhooks/standard-webhooks, specification 1.0.0.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from aesp_proxy.aggregator.export.sinks.http import packed
from aesp_proxy.aggregator.export.sinks.port import Delivery
from aesp_proxy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aesp_proxy.aggregator.export.settings import SinkSettings
    from aesp_proxy.aggregator.export.sinks.http import HttpPost
    from aesp_proxy.aggregator.export.sinks.port import Outgoing

PREFIX: Final = "whsec_"


class WebhookSink:
    """One receiver and the secret it shares with us."""

    def __init__(
        self, settings: SinkSettings, post: HttpPost, *, now_s: Callable[[], float]
    ) -> None:
        self._post = post
        self._path = settings.path or "/"
        self._key = _key(settings)
        self._now_s = now_s

    def close(self) -> None:
        """Let the connection go."""
        self._post.close()

    def deliver(self, events: Sequence[Outgoing]) -> Delivery:
        """Send events in one signed request."""
        body = packed({"type": "aesp.events", "events": [event.body for event in events]})
        ids = "\n".join(event.id for event in events).encode("utf-8")
        message_id = f"msg_{sha256(ids).hexdigest()[:32]}"
        timestamp = str(int(self._now_s()))
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": signature(self._key, message_id, timestamp, body),
        }
        self._post.send(self._path, body, headers)
        return Delivery()


def signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """Return the value of ``webhook-signature``."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return f"v1,{b64encode(hmac.digest(key, signed, 'sha256')).decode('ascii')}"


def _key(settings: SinkSettings) -> bytes:
    if not settings.secret.startswith(PREFIX):
        return settings.secret.encode("utf-8")
    try:
        return b64decode(settings.secret.removeprefix(PREFIX), validate=True)
    except Base64Error as error:
        raise ConfigError(
            "the secret is no base64 after whsec_", where=f"sinks.{settings.name}"
        ) from error
