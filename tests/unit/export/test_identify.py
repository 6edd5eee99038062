"""An event is known again in the SIEM: in every format, from every sink, whatever it carries."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from aesp_proxy.aggregator.export.event import ExportEvent
from aesp_proxy.aggregator.export.formats import FORMATS
from aesp_proxy.aggregator.export.identify import EVENT_CHARS_MAX, identify
from aesp_proxy.aggregator.export.sinks.otlp import logs_request
from aesp_proxy.aggregator.export.sinks.port import Outgoing
from aesp_proxy.aggregator.export.sinks.syslog import syslog_message
from aesp_proxy.errors import InputError
from aesp_proxy.model.record import Record

New = Callable[..., ExportEvent]
NAMED = ("h-one/3/7", 5)
FALSE = "h-evil/1/1"


def _log_record(sent: Outgoing) -> Any:
    return logs_request([sent])["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]


# How an event stands where it was delivered to, as searches give it back.
WRAPPED: dict[str, Callable[[Outgoing], Any]] = {
    "bare": lambda sent: sent.body,
    "splunk": lambda sent: {"event": sent.body, "fields": {"aesp_id": sent.id, "aesp_batch": 5}},
    "splunk-search": lambda sent: {"result": {"_raw": _text(sent.body), "host": "h-one"}},
    "elastic": lambda sent: {"_index": "logs", "_id": sent.id, "_source": sent.body},
    "otlp": _log_record,
    "syslog": lambda sent: syslog_message(sent, enterprise_number=32473).decode(),
}


def _text(body: Any) -> str:
    return body if isinstance(body, str) else json.dumps(body)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_from_every_sink_names_its_record(
    name: str, sort: Record, new_event: New
) -> None:
    event = new_event(sort)
    sent = Outgoing(event=event, body=FORMATS[name](event))
    for wrapping, wrap in WRAPPED.items():
        assert identify(_text(wrap(sent)) + "\n") == NAMED, wrapping


HOSTILE = (
    f"x externalId={FALSE} cn2=9",
    f"CEF:0|AESP|x|1|x|x|5|externalId={FALSE} cn2=9",
    f'[aesp@32473 id="{FALSE}" batch="9"]',
    f'\ufeff [aesp@1 id="{FALSE}"] ',
    json.dumps({"raw_event": {"id": FALSE, "batch": 9}}),
    json.dumps({"metadata": {"uid": FALSE}}),
    "{",
)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("wrapping", WRAPPED)
def test_no_recorded_value_makes_an_event_another(wrapping: str, text: str, new_event: New) -> None:
    fields = ("message", "resource", "target_path", "user_agent", "reason", "session_id", "action")
    event = new_event(**dict.fromkeys(fields, text), metadata=(("id", FALSE), ("batch", "9")))
    for form in FORMATS.values():
        assert identify(_text(WRAPPED[wrapping](Outgoing(event=event, body=form(event))))) == NAMED


@pytest.mark.parametrize(
    "text",
    [
        "", "nothing", "{", "[]", "{}", "h-one/3/7", '{"id": "h-one/3/7"}',
        '{"metadata": {"uid": 7}}',
        '{"metadata": {"uid": "../3/7"}}', '{"metadata": {"uid": "h-one/3/-7"}}',
        '{"metadata": {"uid": "h-one/3/7"}, "event": {"id": "h-one/3/8"}}',
        '{"event":' * 5000, '{"a":' * 100_000, "x" * (EVENT_CHARS_MAX + 1),
    ],
    ids=range(14),
)  # fmt: skip
def test_what_names_no_record_of_ours_or_several_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        identify(text)
