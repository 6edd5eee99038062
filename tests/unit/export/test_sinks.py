"""Sinks speak what their receivers publish, believe only what those promise, and tell no secret."""

from __future__ import annotations

import base64
import hmac
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from siem_lab import (
    Bulk,
    Collector,
    Got,
    Receiver,
    Said,
    SyslogReceiver,
    receiving,
    syslog_over_tls,
)

from aesp_proxy.aggregator.export.event import ExportEvent
from aesp_proxy.aggregator.export.formats import FORMATS
from aesp_proxy.aggregator.export.settings import SinkSettings
from aesp_proxy.aggregator.export.sinks import open_sink
from aesp_proxy.aggregator.export.sinks.otlp import logs_request
from aesp_proxy.aggregator.export.sinks.port import (
    Delivery,
    LaterError,
    Outgoing,
    Sink,
    UnacceptableError,
)
from aesp_proxy.aggregator.export.sinks.syslog import framed, syslog_message
from aesp_proxy.errors import ConfigError

SECRET = "s3cr3t-of-the-sink"
New = Callable[..., ExportEvent]


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def wait(self, seconds: float) -> None:
        self.now_s += seconds


class TrueClock(Clock):
    """Lets true time pass: a kernel's acknowledgement does not come by a double's."""

    def wait(self, seconds: float) -> None:
        threading.Event().wait(seconds)
        super().wait(seconds)


@contextmanager
def opened(settings: SinkSettings, clock: Clock | None = None) -> Iterator[Sink]:
    clock = clock or Clock()
    sink = open_sink(settings, now_s=lambda: clock.now_s, wait=clock.wait)
    try:
        yield sink
    finally:
        sink.close()


def settings_of(kind: str, receiver: Receiver | None = None, **changes: Any) -> SinkSettings:
    plain = SinkSettings(
        name="soc", type=kind, url=receiver.url if receiver else "", secret=SECRET,
        format="ocsf", index="audit", source_type="aesp:proxy", topic="aesp-audit", timeout_s=5.0,
    )  # fmt: skip
    return replace(plain, **changes)


@pytest.fixture
def some(new_event: New) -> Callable[..., list[Outgoing]]:
    def make(count: int = 3, form: str = "ocsf", **changes: Any) -> list[Outgoing]:
        events = [new_event(seq=seq, **changes) for seq in range(1, count + 1)]
        return [Outgoing(event=event, body=FORMATS[form](event)) for event in events]

    return make


# Splunk


def test_splunk_gets_each_event_with_its_place(some: Any):
    collector = Collector(token=SECRET)
    with receiving(collector) as receiver, opened(settings_of("splunk", receiver)) as sink:
        assert sink.deliver(some(2, "cim")) == Delivery()
    first = collector.events[0]
    assert first["fields"] == {
        "aesp_id": "h-one/3/1", "aesp_origin": "h-one", "aesp_batch": 5, "aesp_seq": 1,
    }  # fmt: skip
    assert (first["index"], first["sourcetype"], first["host"]) == ("audit", "aesp:proxy", "h-one")
    assert first["time"] == "1800000000.123"
    assert first["event"]["action"] == "blocked"


def test_splunk_is_believed_when_the_indexer_has_acknowledged(some: Any):
    collector = Collector(token=SECRET, acknowledges=True)
    collector.asked_before_indexed = 4
    clock = Clock()
    with receiving(collector) as receiver:
        settings = settings_of("splunk", receiver, acknowledge=True)
        with opened(settings, clock) as sink:
            assert sink.deliver(some()) == Delivery()
        assert len(receiver.requests) == 6
        assert len({got.headers["x-splunk-request-channel"] for got in receiver.requests}) == 1


def test_splunk_is_not_believed_when_it_never_acknowledges(some: Any):
    collector = Collector(token=SECRET, acknowledges=True)
    collector.asked_before_indexed = 10**6
    with receiving(collector) as receiver:
        settings = settings_of("splunk", receiver, acknowledge=True)
        with opened(settings) as sink, pytest.raises(LaterError, match="did not acknowledge"):
            sink.deliver(some())


def test_splunk_without_acknowledgements_is_said(some: Any):
    with receiving(Collector(token=SECRET)) as receiver:
        settings = settings_of("splunk", receiver, acknowledge=True)
        with opened(settings) as sink, pytest.raises(LaterError, match="acknowledgement is off"):
            sink.deliver(some())


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, 6, UnacceptableError),
        (400, 12, UnacceptableError),
        (400, 7, LaterError),
        (400, 10, LaterError),
        (401, 2, LaterError),
        (403, 4, LaterError),
        (404, 0, LaterError),
        (413, 0, UnacceptableError),
        (500, 8, LaterError),
        (503, 9, LaterError),
    ],
)
def test_splunk_says_no_in_its_codes(status: int, code: int, error: type, some: Any):
    with (
        receiving(lambda _: Said(status, {"text": "why", "code": code})) as receiver,
        opened(settings_of("splunk", receiver)) as sink,
        pytest.raises(error) as caught,
    ):
        sink.deliver(some())
    assert type(caught.value) is error
    assert SECRET not in str(caught.value)


# Elastic


def test_elastic_keeps_one_document_an_event_however_often_it_comes(some: Any):
    bulk = Bulk()
    with receiving(bulk) as receiver, opened(settings_of("elastic", receiver)) as sink:
        assert sink.deliver(some(3, "ecs")) == Delivery()
        assert sink.deliver(some(4, "ecs")) == Delivery()
        [first, _] = receiver.requests
    assert list(bulk.documents) == ["h-one/3/1", "h-one/3/2", "h-one/3/3", "h-one/3/4"]
    assert first.path.startswith("/audit/_bulk?")
    assert first.headers["authorization"] == f"ApiKey {SECRET}"
    assert bulk.documents["h-one/3/1"]["aesp"]["batch"] == 5


def test_elastic_is_read_item_by_item(some: Any):
    bulk = Bulk()
    bulk.status_of = {"h-one/3/1": 429, "h-one/3/2": 400, "h-one/3/4": 503}
    with receiving(bulk) as receiver, opened(settings_of("elastic", receiver)) as sink:
        delivery = sink.deliver(some(5, "ecs"))
    assert delivery.later.keys() == {0, 3}
    assert delivery.refused == {1: "status 400: why"}
    assert bulk.documents.keys() == {"h-one/3/3", "h-one/3/5"}


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"errors": True, "items": []},
        {"errors": True, "items": [{"create": {}}] * 3},
        {"errors": True, "items": ["x"] * 3},
        {"errors": "false"},
    ],
)
def test_an_answer_that_does_not_say_is_not_a_yes(body: Any, some: Any):
    with (
        receiving(lambda _: Said(200, body)) as receiver,
        opened(settings_of("elastic", receiver)) as sink,
        pytest.raises(LaterError),
    ):
        sink.deliver(some())


def test_elastic_takes_a_user_and_password(some: Any):
    with receiving(Bulk()) as receiver:
        with opened(settings_of("elastic", receiver, user="ingest")) as sink:
            sink.deliver(some())
        sent = receiver.requests[0].headers["authorization"].removeprefix("Basic ")
    assert base64.b64decode(sent).decode() == f"ingest:{SECRET}"


@pytest.mark.parametrize("kind", ["splunk", "elastic", "otlp", "webhook"])
@pytest.mark.parametrize(
    ("fault", "error", "after_s"),
    [
        (Said(429, headers={"retry-after": "7"}), LaterError, 7.0),
        (Said(503, headers={"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}), LaterError, 0.0),
        (Said(500), LaterError, 0.0),
        (Said(401), LaterError, 0.0),
        (Said(404), LaterError, 0.0),
        (Said(302, headers={"location": "http://127.0.0.1:1/"}), LaterError, 0.0),
        (Said(close=True), LaterError, 0.0),
        (Said(413), UnacceptableError, None),
    ],
)
def test_a_fault_of_http_means_the_same_for_every_sink(
    kind: str, fault: Said, error: type, after_s: float | None, some: Any
):
    with receiving(lambda _: fault) as receiver, opened(settings_of(kind, receiver)) as sink:
        with pytest.raises(error) as caught:
            sink.deliver(some())
        assert len(receiver.requests) == 1
    assert getattr(caught.value, "after_s", None) == after_s
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("kind", ["splunk", "elastic", "otlp", "webhook", "syslog"])
def test_a_sink_that_is_not_there_is_for_later(kind: str, some: Any):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = settings_of(
        kind, url=f"http://127.0.0.1:{port}", address=f"127.0.0.1:{port}", plain=True
    )
    with opened(settings) as sink, pytest.raises(LaterError):
        sink.deliver(some())


def test_a_sink_that_says_nothing_is_left_after_the_time_out(some: Any):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            opened(settings_of("webhook", url=url, timeout_s=0.1)) as sink,
            pytest.raises(LaterError),
        ):
            sink.deliver(some())


# OTLP


def test_otlp_is_what_the_data_model_says(some: Any):
    got: list[Got] = []
    with (
        receiving(lambda request: got.append(request) or Said(200, {})) as receiver,
        opened(settings_of("otlp", receiver)) as sink,
    ):
        assert sink.deliver(some(2, trace_id="ab" * 16)) == Delivery()
    assert got[0].path == "/v1/logs"
    assert got[0].headers["authorization"] == f"Bearer {SECRET}"
    [resource] = json.loads(got[0].body)["resourceLogs"]
    record = resource["scopeLogs"][0]["logRecords"][0]
    assert record["timeUnixNano"] == "1800000000123456789"
    assert record["traceId"] == "ab" * 16
    assert record["severityNumber"] == 21
    attributes = {each["key"]: each["value"] for each in record["attributes"]}
    assert attributes["aesp.seq"] == {"intValue": "1"}
    assert attributes["aesp.batch"] == {"intValue": "5"}
    assert json.loads(record["body"]["stringValue"])["class_uid"] == 4002


def test_otlp_records_that_a_collector_rejects_are_not_lost_unseen(some: Any):
    partial = {"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "too\nold"}}
    with (
        receiving(lambda _: Said(200, partial)) as receiver,
        opened(settings_of("otlp", receiver)) as sink,
    ):
        delivery = sink.deliver(some(2))
    assert delivery.refused.keys() == {0, 1}
    assert "1 of 2 were rejected, it is not said which: too old" in delivery.refused[0]


def test_otlp_without_rejections_is_a_yes(some: Any):
    partial = {"partialSuccess": {"rejectedLogRecords": "0", "errorMessage": "slow down"}}
    with (
        receiving(lambda _: Said(200, partial)) as receiver,
        opened(settings_of("otlp", receiver)) as sink,
    ):
        assert sink.deliver(some(2)) == Delivery()


def test_otlp_tells_hosts_apart(new_event: New):
    events = [
        new_event(),
        replace(new_event(), record_id=replace(new_event().record_id, origin="h2")),
    ]
    made = logs_request([Outgoing(event=event, body="x") for event in events])
    resources = [each["resource"]["attributes"] for each in made["resourceLogs"]]
    assert [each[1]["value"]["stringValue"] for each in resources] == ["h-one", "h2"]


# Webhook


@pytest.mark.parametrize(
    "secret", ["plain secret", "whsec_" + base64.b64encode(b"k" * 24).decode()]
)
def test_a_webhook_is_signed_and_a_repeat_has_the_same_id(secret: str, some: Any):
    clock = Clock()
    with receiving(lambda _: Said(204)) as receiver:
        with opened(settings_of("webhook", receiver, secret=secret, path="/in"), clock) as sink:
            sink.deliver(some())
            clock.now_s += 60
            sink.deliver(some())
        first, second = receiver.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.headers["webhook-timestamp"] != second.headers["webhook-timestamp"]
    key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
    for got in (first, second):
        signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode()
        expected = base64.b64encode(hmac.digest(key, signed + got.body, "sha256")).decode()
        assert got.headers["webhook-signature"] == f"v1,{expected}"
    assert len(json.loads(first.body)["events"]) == 3


def test_a_webhook_secret_that_is_not_base64_is_said(some: Any):
    with pytest.raises(ConfigError, match="no base64"):
        open_sink(
            settings_of("webhook", url="http://127.0.0.1:1", secret="whsec_***"),
            now_s=lambda: 0.0, wait=lambda _: None,
        )  # fmt: skip


# Syslog


def test_syslog_over_tls_arrives_whole(some: Any, tls_files: Any):
    with syslog_over_tls(tls_files) as receiver:
        settings = settings_of("syslog", address=receiver.address, ca_file=tls_files["right"])
        with opened(settings, TrueClock()) as sink:
            assert sink.deliver(some(300, "cef")) == Delivery()
            assert sink.deliver(some(2, "cef")) == Delivery()
        assert receiver.ended.wait(5)
    assert len(receiver.messages) == 302
    first = receiver.messages[0].decode()
    assert first.startswith("<106>1 2027-01-15T08:00:00.123456Z h-one aesp-proxy 3 http.post ")
    assert '[aesp@32473 id="h-one/3/1" origin="h-one" batch="5" seq="1"] \ufeffCEF:0|' in first
    assert receiver.rest == [b""]


def test_a_syslog_receiver_with_the_wrong_certificate_gets_nothing(some: Any, tls_files: Any):
    with syslog_over_tls(tls_files, "wrong") as receiver:
        settings = settings_of("syslog", address=receiver.address, ca_file=tls_files["right"])
        with opened(settings) as sink, pytest.raises(LaterError, match="CERTIFICATE_VERIFY_FAILED"):
            sink.deliver(some())
    assert receiver.messages == []


def test_what_was_sent_before_a_connection_broke_is_sent_again(some: Any):
    receiver = SyslogReceiver()
    try:
        settings = settings_of("syslog", address=receiver.address, plain=True)
        receiver.drop = 1
        with opened(settings, TrueClock()) as sink:
            taken: list[Delivery] = []
            with suppress(LaterError):  # taken by the kernel or not: the receiver read nothing
                taken.append(sink.deliver(some(2)))
            assert receiver.dropped.wait(5)
            sink.deliver(some(3)[2:] if taken else some(3))
        assert receiver.ended.wait(5)
    finally:
        receiver.close()
    told = b"\n".join(receiver.messages)
    assert all(f'id="h-one/3/{seq}"'.encode() in told for seq in (1, 2, 3))


@pytest.mark.parametrize("text", ["a\n<14>1 - forged", 'q"]\\ x', "\x00\u2028é", "sp ace"])
def test_no_value_leaves_its_place_in_syslog(text: str, some: Any):
    [outgoing] = some(1, "cef", action=text, message=text, reason=text, agent_id=text)
    message = syslog_message(outgoing, enterprise_number=1)
    assert message.count(b" ", 0, message.index(b" [aesp@1 ")) == 5
    assert b"\n" not in message
    data = framed(outgoing, enterprise_number=1)
    count, _, rest = data.partition(b" ")
    assert int(count) == len(rest)


def test_no_secret_stands_in_what_is_shown_of_settings():
    assert SECRET not in repr(settings_of("splunk"))


@pytest.mark.parametrize("secret", [f"{SECRET}\nx", f"{SECRET}\N{LATIN SMALL LETTER E WITH ACUTE}"])
def test_a_secret_that_no_header_takes_stands_in_no_message(secret: str, some: Any):
    with (
        receiving(Collector(token=SECRET)) as receiver,
        opened(settings_of("splunk", receiver, secret=secret)) as sink,
        pytest.raises(LaterError, match="cannot be written") as raised,
    ):
        sink.deliver(some())
    assert SECRET not in str(raised.value)
