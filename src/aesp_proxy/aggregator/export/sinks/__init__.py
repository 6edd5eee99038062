"""The sinks: one module each, behind one port."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aesp_proxy.aggregator.export.sinks.elastic import ElasticSink
from aesp_proxy.aggregator.export.sinks.http import HttpPost
from aesp_proxy.aggregator.export.sinks.otlp import OtlpSink
from aesp_proxy.aggregator.export.sinks.splunk import SplunkSink
from aesp_proxy.aggregator.export.sinks.syslog import SyslogSink
from aesp_proxy.aggregator.export.sinks.webhook import WebhookSink

if TYPE_CHECKING:
    from collections.abc import Callable

    from aesp_proxy.aggregator.export.settings import SinkSettings
    from aesp_proxy.aggregator.export.sinks.port import Sink


def open_sink(
    settings: SinkSettings, *, now_s: Callable[[], float], wait: Callable[[float], None]
) -> Sink:
    """Make a sink of its settings; nothing is connected yet. ConfigError for bad files.

    ``now_s`` is UTC seconds; ``wait`` lets time pass between questions for an
    acknowledgement.
    """
    match settings.type:
        case "splunk":
            return SplunkSink(settings, HttpPost(settings), now_s=now_s, wait=wait)
        case "elastic":
            return ElasticSink(settings, HttpPost(settings))
        case "otlp":
            return OtlpSink(settings, HttpPost(settings))
        case "webhook":
            return WebhookSink(settings, HttpPost(settings), now_s=now_s)
        case "syslog":
            return SyslogSink(settings, now_s=now_s, wait=wait)
        case _:
            # An extra: its library is only loaded, and only needed, where it is used.
            from aesp_proxy.aggregator.export.sinks.kafka import KafkaSink  # noqa: PLC0415

            return KafkaSink(settings)
