"""Kafka, by librdkafka: acknowledged by all in-sync replicas, idempotent, keyed by origin.

Events of one origin keep their order in one partition; the header ``aesp-id`` tells a
repeat of ours. Needs the extra ``kafka`` (confluent-kafka).
Source: https://docs.confluent.io/platform/current/clients/librdkafka/html/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aesp_proxy.aggregator.export.sinks.http import packed, told
from aesp_proxy.aggregator.export.sinks.port import Delivery, LaterError
from aesp_proxy.errors import ConfigError

try:
    import confluent_kafka
except ModuleNotFoundError as missing:
    raise ConfigError(
        "sinks of type kafka need the library confluent-kafka",
        remedy="install aesp-proxy[kafka]",
    ) from missing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aesp_proxy.aggregator.export.settings import SinkSettings
    from aesp_proxy.aggregator.export.sinks.port import Outgoing

# What the broker says of the message itself; all else may pass by the next time.
_REFUSED: Final = frozenset({"MSG_SIZE_TOO_LARGE", "INVALID_MSG", "INVALID_RECORD"})


class KafkaSink:
    """One producer for one topic."""

    def __init__(self, settings: SinkSettings) -> None:
        self._settings = settings
        self._producer: confluent_kafka.Producer | None = None
        self._configuration = _configuration(settings)

    def close(self) -> None:
        """Let the producer go; what is not acknowledged will be sent again."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.flush(0)
            self._producer = None

    def deliver(self, events: Sequence[Outgoing]) -> Delivery:
        """Produce events and wait until the brokers have said of each what became of it."""
        said: dict[int, Any] = {}
        producer = self._connected()
        try:
            for index, event in enumerate(events):
                self._produce(producer, index, event, said)
            left = producer.flush(self._settings.timeout_s)
        except (BufferError, confluent_kafka.KafkaException) as error:
            self.close()
            raise LaterError(f"not produced: {told(str(error))}", where=self._where) from error
        if left or len(said) < len(events):
            self.close()  # else it would go on by itself with what we are about to repeat
            raise LaterError("did not acknowledge in time", where=self._where)
        return self._judged(said)

    @property
    def _where(self) -> str:
        return self._settings.address

    def _produce(
        self,
        producer: confluent_kafka.Producer,
        index: int,
        outgoing: Outgoing,
        said: dict[int, Any],
    ) -> None:
        body = outgoing.body
        try:
            producer.produce(
                self._settings.topic,
                key=outgoing.event.record_id.origin.encode("utf-8"),
                value=body.encode("utf-8", "replace") if isinstance(body, str) else packed(body),
                headers={"aesp-id": outgoing.id.encode("utf-8")},
                timestamp=outgoing.event.record.time_ns // 1_000_000,
                on_delivery=lambda error, _: said.__setitem__(index, error),
            )
        except confluent_kafka.KafkaException as error:
            if error.args[0].name() not in _REFUSED:
                raise
            said[index] = error.args[0]

    def _judged(self, said: dict[int, Any]) -> Delivery:
        refused: dict[int, str] = {}
        later: dict[int, str] = {}
        for index, error in said.items():
            if error is not None:
                place = refused if error.name() in _REFUSED else later
                place[index] = told(error.name())
        if later:
            self.close()  # a fatal error of an idempotent producer is only ended with it
        return Delivery(refused=refused, later=later)

    def _connected(self) -> confluent_kafka.Producer:
        if self._producer is None:
            try:
                self._producer = confluent_kafka.Producer(self._configuration)
            except confluent_kafka.KafkaException as error:
                raise ConfigError(
                    f"the settings do not hold: {told(str(error))}",
                    where=f"sinks.{self._settings.name}",
                ) from error
        return self._producer


def _configuration(settings: SinkSettings) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "bootstrap.servers": settings.address,
        "client.id": "aesp-proxy",
        "acks": "all",
        "enable.idempotence": True,
        "compression.type": "zstd",
        "linger.ms": 5,
        "message.timeout.ms": int(settings.timeout_s * 1000),
        "security.protocol": "PLAINTEXT" if settings.plain else "SSL",
        "log_level": 0,
    }
    if settings.user:
        shown["security.protocol"] = "SASL_PLAINTEXT" if settings.plain else "SASL_SSL"
        shown["sasl.mechanisms"] = "PLAIN"
        shown["sasl.username"] = settings.user
        shown["sasl.password"] = settings.secret
    if settings.ca_file is not None:
        shown["ssl.ca.location"] = str(settings.ca_file)
    if settings.client_file is not None:
        shown["ssl.certificate.location"] = str(settings.client_file)
        shown["ssl.key.location"] = str(settings.client_file)
    return shown
