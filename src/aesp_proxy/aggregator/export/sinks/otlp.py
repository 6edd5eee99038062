"""OpenTelemetry logs over HTTP, in OTLP's JSON encoding.

The body is the event as JSON text, the attributes name its place and answer. A partial
success names how many records were rejected and not which, and the specification says
not to send again: all of that request become dead letters, so none is lost unseen.
Source: https://opentelemetry.io/docs/specs/otlp/ (OTLP/HTTP, partial success, retry).
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from aesp_proxy import __version__
from aesp_proxy.aggregator.export.event import severity_of
from aesp_proxy.aggregator.export.sinks.http import packed, told
from aesp_proxy.aggregator.export.sinks.port import Delivery
from aesp_proxy.model.decision import Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aesp_proxy.aggregator.export.settings import SinkSettings
    from aesp_proxy.aggregator.export.sinks.http import HttpPost
    from aesp_proxy.aggregator.export.sinks.port import Outgoing

LOGS_PATH: Final = "/v1/logs"
# SeverityNumber of the data model: INFO 9, WARN 13, ERROR 17, FATAL 21.
_SEVERITY: Final = {
    Severity.INFO: (9, "INFO"),
    Severity.WARNING: (13, "WARN"),
    Severity.ERROR: (17, "ERROR"),
    Severity.CRITICAL: (21, "FATAL"),
}
_HEX: Final = frozenset("0123456789abcdef")


class OtlpSink:
    """One collector."""

    def __init__(self, settings: SinkSettings, post: HttpPost) -> None:
        self._post = post
        self._path = settings.path or LOGS_PATH
        self._headers = {"Content-Type": "application/json"}
        if settings.secret:
            self._headers["Authorization"] = f"Bearer {settings.secret}"

    def close(self) -> None:
        """Let the connection go."""
        self._post.close()

    def deliver(self, events: Sequence[Outgoing]) -> Delivery:
        """Send events in one request."""
        answer = self._post.send(self._path, packed(logs_request(events)), self._headers)
        partial = answer.json().get("partialSuccess")
        rejected = _count(partial.get("rejectedLogRecords")) if isinstance(partial, dict) else 0
        if not rejected or not isinstance(partial, dict):
            return Delivery()
        said = told(str(partial.get("errorMessage", "")))
        reason = f"{rejected} of {len(events)} were rejected, it is not said which: {said}"
        return Delivery(refused=dict.fromkeys(range(len(events)), reason))


def logs_request(events: Sequence[Outgoing]) -> dict[str, Any]:
    """Return ExportLogsServiceRequest: a resource an origin, in the order of the events."""
    return {
        "resourceLogs": [
            {
                "resource": {
                    "attributes": [
                        _attribute("service.name", "aesp-proxy"),
                        _attribute("host.name", origin),
                    ]
                },
                "scopeLogs": [
                    {
                        "scope": {"name": "aesp-proxy", "version": __version__},
                        "logRecords": [_log_record(event) for event in group],
                    }
                ],
            }
            for origin, group in groupby(events, key=lambda event: event.event.record_id.origin)
        ]
    }


def _log_record(outgoing: Outgoing) -> dict[str, Any]:
    event = outgoing.event
    record = event.record
    number, word = _SEVERITY[severity_of(record)]
    body = outgoing.body
    shown: dict[str, Any] = {
        "timeUnixNano": str(record.time_ns),
        "severityNumber": number,
        "severityText": word,
        "eventName": f"aesp.{record.kind.value}",
        "body": {"stringValue": body if isinstance(body, str) else packed(body).decode()},
        "attributes": [
            _attribute(f"aesp.{name}", value)
            for name, value in (
                ("id", event.id),
                ("origin", event.record_id.origin),
                ("epoch", event.record_id.epoch),
                ("seq", event.record_id.seq),
                ("batch", event.batch_no),
                ("action", record.action),
                ("verdict", record.verdict),
                ("reason", record.reason),
                ("tenant", record.tenant_id),
                ("session", record.session_id),
                ("agent", record.agent_id),
            )
            if value != ""
        ],
    }
    if len(record.trace_id) == 32 and set(record.trace_id) <= _HEX:
        shown["traceId"] = record.trace_id
    return shown


def _attribute(name: str, value: str | int) -> dict[str, Any]:
    # 64-bit integers are text in OTLP's JSON.
    kind = {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}
    return {"key": name, "value": kind}


def _count(value: object) -> int:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
