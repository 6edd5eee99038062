"""A sink behind a corporate proxy: it is reached by CONNECT, and the proxy learns no more."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from corporate_lab import Corporate
from siem_lab import Got, Receiver, Said, receiving, syslog_over_tls

from aesp_proxy.aggregator.export.event import ExportEvent
from aesp_proxy.aggregator.export.formats import FORMATS
from aesp_proxy.aggregator.export.settings import SinkSettings
from aesp_proxy.aggregator.export.sinks import open_sink
from aesp_proxy.aggregator.export.sinks.port import Delivery, LaterError, Outgoing

SECRET = "t0ken-of-the-sink"
PASSWORD = "pa:ss word-of-the-proxy"
LOGIN = base64.b64encode(f"aesp:{PASSWORD}".encode())
KINDS = ["webhook", "syslog"]


@contextmanager
def proxying(*args: Any, **changes: Any) -> Iterator[Corporate]:
    corporate = Corporate(*args, **changes)
    try:
        yield corporate
    finally:
        corporate.stop()


@contextmanager
def listening(kind: str, files: dict[str, Path]) -> Iterator[tuple[int, Callable[[], int]]]:
    """Give the port of a receiver over TLS, and how many events it has."""
    if kind == "syslog":
        with syslog_over_tls(files) as lines:
            yield int(lines.address.rpartition(":")[2]), lambda: len(lines.messages)
            return
    got: list[Got] = []
    with receiving(lambda request: got.append(request) or Said(200)) as receiver:
        secure(receiver, files)
        yield receiver.server.server_port, lambda: len(got)


def secure(receiver: Receiver, files: dict[str, Path]) -> None:
    receiver.take_tls(files["right_server"])


def settings_of(kind: str, corporate: Corporate, files: dict[str, Path]) -> SinkSettings:
    plain = SinkSettings(
        name="soc", type=kind, secret=SECRET, format="cef" if kind == "syslog" else "ocsf",
        timeout_s=5.0, ca_file=files["right"], proxy=f"http://127.0.0.1:{corporate.port}",
        proxy_user="aesp", proxy_secret=PASSWORD,
    )  # fmt: skip
    if kind == "syslog":
        return replace(plain, address="receiver.test:6514")
    return replace(plain, url="https://receiver.test")


PLACES = {"webhook": "receiver.test:443", "syslog": "receiver.test:6514"}


def deliver(settings: SinkSettings, new_event: Callable[..., ExportEvent]) -> Delivery:
    event = new_event(seq=1)
    sink = open_sink(settings, now_s=lambda: 1.0, wait=lambda _: None)
    try:
        return sink.deliver([Outgoing(event=event, body=FORMATS[settings.format](event))])
    finally:
        sink.close()


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_reached_by_connect_and_the_proxy_sees_its_name_alone(kind, tls_files, new_event):
    with listening(kind, tls_files) as (port, count):
        with proxying({PLACES[kind]: port}, authorization=LOGIN) as corporate:
            assert deliver(settings_of(kind, corporate, tls_files), new_event) == Delivery()
        (head,) = corporate.asked
        assert head.startswith(b"CONNECT %b HTTP/1.1\r\n" % PLACES[kind].encode())
        assert SECRET.encode() not in head
    assert count() == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"authorization": b"b3RoZXI="}, "407", id="another-password"),
        pytest.param({"answer": b"HTTP/1.1 403 No\r\n\r\n"}, "403", id="refused"),
        pytest.param({"answer": b"SSH-2.0-x\r\n\r\n"}, "", id="not-a-proxy"),
        pytest.param({"answer": b"HTTP/1.1 200 " + b"a" * 200_000}, "", id="endless-answer"),
        pytest.param({"places": {}}, "502", id="not-known-there"),
    ],
)
def test_what_a_proxy_refuses_is_for_later_and_tells_no_secret(
    kind, changes, says, tls_files, new_event
):
    with listening(kind, tls_files) as (port, count):
        given = {"places": {PLACES[kind]: port}, "authorization": LOGIN} | changes
        with (
            proxying(given.pop("places"), **given) as corporate,
            pytest.raises(LaterError) as caught,
        ):
            deliver(settings_of(kind, corporate, tls_files), new_event)
        assert says in str(caught.value)
        for secret in (SECRET, PASSWORD, LOGIN.decode()):
            assert secret not in str(caught.value)
        assert count() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_proxy_that_is_silent_is_left_after_the_time_out(kind, tls_files, new_event):
    with proxying({}, is_silent=True) as corporate:
        settings = replace(settings_of(kind, corporate, tls_files), timeout_s=0.2)
        with pytest.raises(LaterError):
            deliver(settings, new_event)


@pytest.mark.parametrize("kind", KINDS)
def test_a_proxy_that_answers_for_the_receiver_is_not_believed(kind, tls_files, new_event):
    wrong = tls_files | {"right_server": tls_files["wrong_server"]}
    with listening(kind, wrong) as (port, count):
        with (
            proxying({PLACES[kind]: port}) as corporate,
            pytest.raises(LaterError, match=r"(?i)certificate.verify.failed"),
        ):
            deliver(settings_of(kind, corporate, tls_files), new_event)
        assert count() == 0


def test_the_environment_names_no_proxy(tls_files, new_event, monkeypatch):
    with receiving(lambda _: Said(200)) as receiver, proxying({}) as corporate:
        for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{corporate.port}")
        secure(receiver, tls_files)
        settings = replace(
            settings_of("webhook", corporate, tls_files), proxy="", proxy_user="",
            proxy_secret="", url=f"https://127.0.0.1:{receiver.server.server_port}",
        )  # fmt: skip
        assert deliver(settings, new_event) == Delivery()
        assert corporate.asked == []


def test_no_repr_shows_the_password_of_the_proxy(tls_files):
    with proxying({}) as corporate:
        assert PASSWORD not in repr(settings_of("webhook", corporate, tls_files))
