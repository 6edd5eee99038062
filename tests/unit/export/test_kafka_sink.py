"""The Kafka sink against librdkafka's own mock brokers: the protocol is emulated, not Kafka."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import confluent_kafka
import pytest

from aesp_proxy.aggregator.export.event import ExportEvent
from aesp_proxy.aggregator.export.formats.ocsf import ocsf_event
from aesp_proxy.aggregator.export.settings import SinkSettings
from aesp_proxy.aggregator.export.sinks.kafka import KafkaSink
from aesp_proxy.aggregator.export.sinks.port import Delivery, LaterError, Outgoing

TOPIC = "aesp-audit"


@pytest.fixture
def brokers() -> Iterator[str]:
    holder = confluent_kafka.Producer({"test.mock.num.brokers": 2, "log_level": 0})
    listed = holder.list_topics(timeout=10).brokers.values()
    yield ",".join(f"{broker.host}:{broker.port}" for broker in listed)
    holder.flush(0)


def settings_for(address: str, **changes: Any) -> SinkSettings:
    plain: dict[str, Any] = {"timeout_s": 10.0, "topic": TOPIC, "plain": True}
    return SinkSettings(name="stream", type="kafka", address=address, **{**plain, **changes})


def consumed(address: str, count: int) -> list[Any]:
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": address,
            "group.id": "test",
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    try:
        consumer.assign([confluent_kafka.TopicPartition(TOPIC, number, 0) for number in range(4)])
        return [consumer.poll(10) for _ in range(count)]
    finally:
        consumer.close()


def outgoing_of(event: ExportEvent, **changes: Any) -> Outgoing:
    return Outgoing(event=event, body=changes or ocsf_event(event))


def test_events_are_acknowledged_and_keyed_by_origin(
    brokers: str, new_event: Callable[..., ExportEvent]
):
    sink = KafkaSink(settings_for(brokers))
    try:
        events = [outgoing_of(new_event(seq=seq)) for seq in range(1, 6)]
        assert sink.deliver(events) == Delivery()
    finally:
        sink.close()
    messages = consumed(brokers, 5)
    assert len({message.partition() for message in messages}) == 1
    assert {message.key() for message in messages} == {b"h-one"}
    ids = [dict(message.headers())["aesp-id"].decode() for message in messages]
    assert ids == [f"h-one/3/{seq}" for seq in range(1, 6)]
    assert json.loads(messages[0].value())["unmapped"]["aesp"]["batch"] == 5


def test_a_message_that_is_too_large_is_refused_for_itself(
    brokers: str, new_event: Callable[..., ExportEvent]
):
    sink = KafkaSink(settings_for(brokers))
    try:
        events = [
            outgoing_of(new_event(seq=1), text="x" * 2_000_000),
            outgoing_of(new_event(seq=2)),
        ]
        assert sink.deliver(events) == Delivery(refused={0: "MSG_SIZE_TOO_LARGE"})
    finally:
        sink.close()
    assert [dict(m.headers())["aesp-id"] for m in consumed(brokers, 1)] == [b"h-one/3/2"]


def test_brokers_that_are_not_there_are_for_later(new_event: Callable[..., ExportEvent]):
    sink = KafkaSink(settings_for("127.0.0.1:1", timeout_s=0.3))
    try:
        with pytest.raises(LaterError, match=r"127\.0\.0\.1:1"):
            sink.deliver([outgoing_of(new_event())])
    finally:
        sink.close()
