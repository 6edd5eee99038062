"""Elasticsearch and OpenSearch: bulk ``create`` under the event's own id, so a repeat is no second.

Each item of the answer is judged alone: 2xx and 409 (it is there already) are taken,
429 and 5xx come later, the rest is refused for itself (a mapping that does not fit).
Source: https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from aesp_proxy.aggregator.export.sinks.http import packed, told
from aesp_proxy.aggregator.export.sinks.port import Delivery, LaterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aesp_proxy.aggregator.export.settings import SinkSettings
    from aesp_proxy.aggregator.export.sinks.http import Answer, HttpPost
    from aesp_proxy.aggregator.export.sinks.port import Outgoing

ID_BYTES_MAX: Final = 512


class ElasticSink:
    """One index or data stream."""

    def __init__(self, settings: SinkSettings, post: HttpPost) -> None:
        self._post = post
        self._where = settings.url
        index = quote(settings.index, safe="")
        only = "filter_path=errors,items.*.status,items.*.error"
        self._path = f"{settings.path}/{index}/_bulk?{only}"
        self._headers = {"Content-Type": "application/x-ndjson"}
        if settings.user:
            pair = f"{settings.user}:{settings.secret}".encode()
            self._headers["Authorization"] = f"Basic {b64encode(pair).decode('ascii')}"
        elif settings.secret:
            self._headers["Authorization"] = f"ApiKey {settings.secret}"

    def close(self) -> None:
        """Let the connection go."""
        self._post.close()

    def deliver(self, events: Sequence[Outgoing]) -> Delivery:
        """Send events in one bulk request and read what became of each."""
        lines: list[bytes] = []
        for event in events:
            lines.append(packed({"create": {"_id": document_id(event.id)}}))
            lines.append(packed(event.body))
        answer = self._post.send(self._path, b"\n".join(lines) + b"\n", self._headers)
        return self._judged(answer, len(events))

    def _judged(self, answer: Answer, count: int) -> Delivery:
        said = answer.json()
        if said.get("errors") is False:
            return Delivery()
        items = said.get("items")
        if not isinstance(items, list) or len(items) != count:
            raise LaterError("the answer does not name every event", where=self._where)
        refused: dict[int, str] = {}
        later: dict[int, str] = {}
        for index, item in enumerate(items):
            result = item.get("create") if isinstance(item, dict) else None
            status = result.get("status") if isinstance(result, dict) else None
            if not isinstance(result, dict) or not isinstance(status, int):
                raise LaterError("the answer names no status", where=self._where)
            if 200 <= status < 300 or status == 409:
                continue
            place = later if status == 429 or status >= 500 else refused
            place[index] = f"status {status}: {_reason(result)}"
        return Delivery(refused=refused, later=later, after_s=answer.after_s)


def document_id(event_id: str) -> str:
    """Return the document's id: the event's, or its hash where that is too long."""
    fits = len(event_id.encode("utf-8")) <= ID_BYTES_MAX
    return event_id if fits else sha256(event_id.encode("utf-8")).hexdigest()


def _reason(result: dict[str, Any]) -> str:
    error = result.get("error")
    if not isinstance(error, dict):
        return told(str(error or ""))
    # The reason may quote the value that did not fit: the type says enough.
    return told(str(error.get("type", "")))
