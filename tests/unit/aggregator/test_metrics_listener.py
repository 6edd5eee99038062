"""Figures on loopback: without a certificate, to who names loopback, and never at ingest's cost."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from aesp_proxy.aggregator.identity import prepare
from aesp_proxy.aggregator.limits import ServerLimits
from aesp_proxy.aggregator.metrics import Meter
from aesp_proxy.aggregator.metrics_listener import CONNECTIONS_MAX, MetricsListener, bind_metrics
from aesp_proxy.errors import ConfigError


@dataclass
class Standing:
    url: str = ""
    is_ready: bool = True
    sockets: list[socket.socket] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", int(self.url.rpartition(":")[2]))

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(self.url + path, headers=headers, trust_env=False, timeout=20)


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Standing]]:
    with ExitStack() as stack:

        def start(**limits: float) -> Standing:
            listener = bind_metrics("127.0.0.1", 0)
            stack.callback(listener.close)
            standing = Standing()
            figures = MetricsListener(
                listener,
                data=prepare(tmp_path / "data", now=datetime.now(UTC)),
                meter=Meter(),
                is_ready=lambda: standing.is_ready,
                limits=ServerLimits(**limits),  # type: ignore[arg-type]
            )
            standing.url = figures.url
            figures.start()
            stack.callback(figures.stop)
            return standing

        yield start


def test_a_scraper_of_this_machine_needs_no_certificate(begin):
    standing = begin()
    told = standing.get("/metrics")
    names = {family.name for family in text_string_to_metric_families(told.text)}
    assert told.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert {"aesp_build_info", "aesp_aggregator_batches_accepted"} <= names
    assert standing.get("/healthz").status_code == 200
    assert standing.get("/health").status_code == standing.get("/ready").status_code == 200
    assert standing.get("/readyz").status_code == 200
    standing.is_ready = False
    assert standing.get("/readyz").status_code == 503


def test_nothing_but_figures_is_given_and_nothing_is_taken(begin):
    standing = begin()
    for path in ("/v1/events", "/v1/stats", "/v1/batches", "/", "/metrics/../v1/events"):
        assert standing.get(path).status_code == 404, path
    assert httpx.post(standing.url + "/metrics", trust_env=False).status_code == 405


@pytest.mark.parametrize("name", ["evil.test", "127.0.0.1.evil.test", "", "127.0.0.2"])
def test_who_calls_it_by_another_name_is_refused(begin, name: str):
    assert begin().get("/metrics", host=name).status_code == 400


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "localhost", "", "127.0.0.1x"])
def test_only_a_loopback_address_is_bound(host: str):
    with pytest.raises(ConfigError, match="not a loopback address"):
        bind_metrics(host, 0)


def test_connections_that_say_nothing_are_bounded_and_end(begin):
    standing = begin(headers_s_max=1.0)
    with ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(standing.address, timeout=10))
            for _ in range(CONNECTIONS_MAX + 8)
        ]
        while silent:
            readable, _, _ = select.select(silent, [], [], 10)
            assert readable, "they stay"
            for sock in readable:
                with suppress(ConnectionResetError):  # ended all the same
                    assert sock.recv(1) == b""
                silent.remove(sock)
    assert standing.get("/healthz").status_code == 200
