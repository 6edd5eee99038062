"""The four nets: each is made to catch, and each time nothing leaves."""

from __future__ import annotations

import dataclasses

from aesp_proxy.daemon import exchange as exchange_module
from aesp_proxy.daemon import pipeline as pipeline_module
from aesp_proxy.decide.secrets.body import StreamPolicy

GET = b"GET /x HTTP/1.1\r\nHost: allowed.test\r\n\r\n"


class BrokenGuard:
    """A guard with a bug."""

    name = "broken"
    grants = False

    def check(self, event):
        raise RuntimeError("a bug, with what the event holds")


def test_net_1_a_guard_that_raises_denies(proxy, answer_of):
    snapshot = proxy.pipeline.snapshot
    guards = (*snapshot.guards, BrokenGuard())
    with proxy.tunnel() as tls:
        proxy.pipeline.snapshot = dataclasses.replace(snapshot, guards=guards)
        tls.sendall(GET)
        answer = answer_of(tls)
    assert b"guard_failed" in answer
    assert b"what the event holds" not in answer
    assert proxy.origin.connections == 0


def test_net_2_no_answer_from_the_engine_denies(proxy, answer_of):
    with proxy.tunnel() as tls:
        proxy.pipeline.snapshot = dataclasses.replace(proxy.pipeline.snapshot, guards=())
        tls.sendall(GET)
        assert b"no_guard" in answer_of(tls)
    assert proxy.origin.connections == 0


def test_net_2_an_engine_that_raises_denies(proxy, answer_of, monkeypatch):
    def broken(event, snapshot):
        raise RuntimeError("a bug")

    with proxy.tunnel() as tls:
        monkeypatch.setattr(pipeline_module, "decide", broken)
        tls.sendall(GET)
        assert b"engine_failed" in answer_of(tls)
    assert proxy.origin.connections == 0


def test_net_3_what_cannot_be_recorded_does_not_pass(proxy, answer_of):
    with proxy.tunnel() as tls:
        proxy.journal.broken = True
        tls.sendall(GET)
        answer = answer_of(tls)
        assert b"record_failed" in answer
        assert b"403" in answer[:20]
        assert b"Retry-After" in answer
        assert proxy.origin.connections == 0
        proxy.journal.broken = False
        tls.sendall(GET)
        assert b"0 bytes" in answer_of(tls)


def test_net_3_a_scan_that_fails_denies(proxy, monkeypatch):
    def broken(self, data):
        raise RuntimeError("the engine broke")

    monkeypatch.setattr(type(proxy.pipeline.snapshot.scanner.stream(
        "body", policy=StreamPolicy())), "feed", broken)  # fmt: skip
    request = b"POST /up HTTP/1.1\r\nHost: allowed.test\r\nContent-Length: 5\r\n\r\nhello"
    answer = proxy.ask(request)
    assert b"engine_failed" in answer
    assert proxy.origin.requests == []


def test_net_4_an_address_check_that_raises_cuts_the_connection(proxy, answer_of, monkeypatch):
    def broken(*_):
        raise RuntimeError("a bug in the check")

    monkeypatch.setattr(exchange_module, "address_decision", broken)
    with proxy.tunnel("localhost") as tls:
        tls.sendall(GET.replace(b"allowed.test", b"localhost"))
        assert answer_of(tls) == b""
    assert proxy.origin.connections == 0
    assert any(r.reason == "interceptor_failed" for r in proxy.journal.records)


def test_net_4_an_interceptor_that_raises_cuts_the_connection(proxy, answer_of, caplog):
    real = proxy.pipeline.request

    def broken(event, tunnel):
        raise RuntimeError("a bug in the interceptor")

    with proxy.tunnel() as tls:
        proxy.pipeline.request = broken
        tls.sendall(GET)
        assert answer_of(tls) == b""
    assert proxy.origin.connections == 0
    assert proxy.journal.records[-1].reason in ("interceptor_failed", "allowed")
    assert any(r.reason == "interceptor_failed" for r in proxy.journal.records)
    proxy.pipeline.request = real
    assert proxy.ask(GET).endswith(b"0 bytes")
