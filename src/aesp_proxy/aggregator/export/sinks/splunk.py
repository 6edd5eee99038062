"""Splunk's HTTP Event Collector, with indexer acknowledgement where the token has it.

Without acknowledgement a 200 says that Splunk has the events in memory, with it that
they are indexed: only then does the cursor move. Splunk does not drop repeats; the
event's ``id`` tells them.
Source: https://docs.splunk.com/Documentation/Splunk/latest/Data/FormateventsforHTTPEventCollector,
AboutHECIDXAck, TroubleshootHTTPEventCollector (the codes).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import NAMESPACE_URL, uuid5

from aesp_proxy.aggregator.export.sinks.http import packed, told
from aesp_proxy.aggregator.export.sinks.port import Delivery, LaterError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aesp_proxy.aggregator.export.settings import SinkSettings
    from aesp_proxy.aggregator.export.sinks.http import Answer, HttpPost
    from aesp_proxy.aggregator.export.sinks.port import Outgoing

EVENT_PATH: Final = "/services/collector/event"
ACK_PATH: Final = "/services/collector/ack"
ACK_S_MAX: Final = 60.0
ACK_POLL_S: Final = 0.5
ACK_POLL_S_MAX: Final = 8.0
# Codes of 400 that are about the events; all others are about the token, index or channel.
_ABOUT_EVENTS: Final = frozenset({5, 6, 12, 13, 15})


class SplunkSink:
    """One token of one collector."""

    def __init__(
        self,
        settings: SinkSettings,
        post: HttpPost,
        *,
        now_s: Callable[[], float],
        wait: Callable[[float], None],
    ) -> None:
        self._settings = settings
        self._post = post
        self._now_s = now_s
        self._wait = wait
        self._headers = {"Authorization": f"Splunk {settings.secret}"}
        if settings.acknowledge:
            # One channel a sink, the same after a restart: acknowledgements are counted in it.
            channel = uuid5(NAMESPACE_URL, f"aesp-proxy:{settings.name}:{settings.url}")
            self._headers["X-Splunk-Request-Channel"] = str(channel)

    def close(self) -> None:
        """Let the connection go."""
        self._post.close()

    def deliver(self, events: Sequence[Outgoing]) -> Delivery:
        """Send events in one request, and wait for its acknowledgement where that is asked."""
        body = b"\n".join(packed(self._wrapped(event)) for event in events)
        path = self._settings.path or EVENT_PATH
        answer = self._post.post(path, body, self._headers)
        if not answer.is_good:
            raise self._refusal(answer)
        if self._settings.acknowledge:
            self._await(answer)
        return Delivery()

    def _refusal(self, answer: Answer) -> Exception:
        said = answer.json()
        reason = told(f"{said.get('text', '')} (code {said.get('code', '?')})")
        refusal = self._post.refusal(answer, reason=reason if said else "")
        if answer.status == 400 and said and said.get("code") not in _ABOUT_EVENTS:
            return LaterError(str(refusal))
        return refusal

    def _await(self, answer: Answer) -> None:
        """Ask until the request is acknowledged. LaterError when it is not in a minute."""
        number = answer.json().get("ackId")
        if not isinstance(number, int):
            raise LaterError(
                "gave no ackId: acknowledgement is off for the token", where=self._settings.url
            )
        end_s = self._now_s() + ACK_S_MAX
        pause_s = ACK_POLL_S
        while self._now_s() < end_s:
            asked = self._post.send(ACK_PATH, packed({"acks": [number]}), self._headers)
            acks = asked.json().get("acks")
            if isinstance(acks, dict) and acks.get(str(number)) is True:
                return
            self._wait(pause_s)
            pause_s = min(pause_s * 2, ACK_POLL_S_MAX)
        raise LaterError(f"did not acknowledge in {ACK_S_MAX:.0f} s", where=self._settings.url)

    def _wrapped(self, outgoing: Outgoing) -> dict[str, Any]:
        event = outgoing.event
        shown: dict[str, Any] = {
            "time": f"{event.record.time_ns / 1e9:.3f}",
            "host": event.record_id.origin,
            "source": "aesp-proxy",
            "sourcetype": self._settings.source_type,
            "event": outgoing.body,
            "fields": {
                "aesp_id": event.id,
                "aesp_origin": event.record_id.origin,
                "aesp_batch": event.batch_no,
                "aesp_seq": event.record_id.seq,
            },
        }
        if self._settings.index:
            shown["index"] = self._settings.index
        return shown
