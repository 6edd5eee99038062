"""Peers that are slow, silent or gone at every stage: recorded, and nothing is left behind."""

from __future__ import annotations

import datetime as dt
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aftermath import OK, leaves_nothing, reset
from egress_lab import NOW, Proxy, read_answer
from entries import hello, rest
from scripted import Scripted
from stalling import Stalling

from aesp_proxy.intercept.egress.dialler import StaticAddress
from aesp_proxy.intercept.egress.pool import PoolLimits
from aesp_proxy.intercept.egress.room import Room, RoomLimits, room_within
from aesp_proxy.keys import KeyPair, Purpose, issue_leaf, make_ca
from aesp_proxy.model.principal import Principal

HEAD = b"HTTP/1.1 200 OK\r\n"
CONNECT = b"CONNECT allowed.test:443 HTTP/1.1\r\nHost: allowed.test:443\r\n\r\n"
PLAIN = b"GET http://down.test/ HTTP/1.1\r\nHost: down.test\r\n\r\n"
POST = b"POST http://down.test/ HTTP/1.1\r\nHost: down.test\r\nContent-Length: 9\r\n\r\nabc"
POST_CHUNKED = PLAIN.replace(b"GET", b"POST")[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy that waits for nobody long, and lets no upstream connection rest."""
    proxy = Proxy(
        tmp_path_factory.mktemp("bare"),
        pool=PoolLimits(connections_max=0),
        head_s_max=0.3,
        idle_s_max=0.5,
        connect_s_max=0.3,
    )
    try:
        yield proxy
    finally:
        proxy.stop()


@pytest.fixture
def bare(one: Proxy) -> Proxy:
    """The same, with nothing in its record."""
    one.journal.records.clear()
    return one


@pytest.fixture
def upstream(bare: Proxy) -> Iterator[Callable[..., Stalling]]:
    """Stand for ``down.test`` (plain and TLS) with a server that stalls."""
    started: list[Stalling] = []

    def begin(*words: object, **more: object) -> Stalling:
        started.append(Stalling(*words, **more))  # type: ignore[arg-type]
        _lead(bare, started[-1].port)
        return started[-1]

    yield begin
    for each in started:
        each.stop()


def _lead(proxy: Proxy, port: int) -> None:
    place = StaticAddress(address="127.0.0.1", port=port)
    proxy.interceptor._settings.static["down.test", None] = place


def ask(proxy: Proxy, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
        sock.sendall(request)
        return read_answer(sock)


def told(proxy: Proxy, reason: str) -> list[str]:
    return [r.message for r in proxy.journal.records if r.reason == reason]


# slow clients ---------------------------------------------------------------------------


@pytest.mark.parametrize("taken", [1, 3, 60], ids=["one byte", "no length", "half a hello"])
def test_a_client_that_never_ends_its_handshake_is_cut_and_recorded(
    bare: Proxy, taken: int
) -> None:
    with leaves_nothing(bare):
        sock, _ = bare.connect("allowed.test:443")
        with sock:
            sock.sendall(hello("allowed.test")[:taken])
            assert rest(sock) == b""
        assert any("TLS handshake within 0.3 s" in text for text in told(bare, "limit_exceeded"))


def test_a_client_that_stops_in_its_body_is_cut_and_recorded(bare, upstream) -> None:
    upstream()
    with leaves_nothing(bare):
        assert ask(bare, POST) == b""
        bare.wait_for(lambda: told(bare, "client_gone"), "recorded")


# upstreams that hang ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "status", "why"),
    [
        (b"", b"502", "said nothing for 0.5 s"),
        (HEAD + b"Content-Le", b"502", "said nothing for 0.5 s"),
        (HEAD + b"Content-Length: 9\r\n\r\nabc", b"200", "said nothing for 0.5 s"),
        (CHUNKED + b"3\r\nabc\r\n", b"200", "said nothing for 0.5 s"),
        (CHUNKED + b"3\r\nabc\r\n0\r\nX: y\r\n", b"200", "said nothing for 0.5 s"),
    ],
    ids=["answer", "head", "body", "chunk", "trailers"],
)
def test_an_upstream_that_hangs_is_told_and_recorded(bare, upstream, says, status, why) -> None:
    upstream(says)
    with leaves_nothing(bare):
        answer = ask(bare, PLAIN)
        assert answer[9:12] == status
        assert not answer.endswith(b"0\r\n\r\n")
        assert any(why in text for text in told(bare, "upstream_failed"))


def test_an_upstream_that_never_ends_its_handshake_is_a_502(bare, upstream) -> None:
    upstream()
    with leaves_nothing(bare):
        with bare.tunnel("down.test") as tls:
            tls.sendall(OK.replace(b"allowed", b"down"))
            assert read_answer(tls).startswith(b"HTTP/1.1 502 ")
        assert any("no TLS handshake within 0.3 s" in t for t in told(bare, "upstream_failed"))


def test_an_upstream_that_does_not_take_the_connection_is_a_502(bare: Proxy) -> None:
    with socket.socket() as full, leaves_nothing(bare):
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        _lead(bare, full.getsockname()[1])
        filling = [socket.socket() for _ in range(4)]
        for sock in filling:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        try:
            assert ask(bare, PLAIN).startswith(b"HTTP/1.1 502 ")
        finally:
            for sock in filling:
                sock.close()
        assert any("timed out" in text for text in told(bare, "upstream_failed"))


# resets and half-closes --------------------------------------------------------------------


@pytest.mark.parametrize("then", ["reset", "close", "finish"])
@pytest.mark.parametrize(
    ("says", "at_once"),
    [
        (b"", True), (b"", False), (HEAD, False), (HEAD + b"Content-Length: 9\r\n\r\nabc", False),
        (CHUNKED + b"3\r\nab", False), (CHUNKED + b"3\r\nabc\r\n0\r\nX: y\r\n", False),
    ],
    ids=["connected", "request", "head", "body", "chunk", "trailers"],
)  # fmt: skip
def test_an_upstream_that_ends_at_any_stage_is_recorded(
    bare, upstream, says, at_once, then
) -> None:
    upstream(says, then, at_once=at_once)
    with leaves_nothing(bare):
        answer = ask(bare, PLAIN)
        assert answer[9:12] == (b"200" if b"\r\n\r\n" in says else b"502")
        assert not answer.endswith(b"0\r\n\r\n")
        bare.wait_for(lambda: told(bare, "upstream_failed"), "recorded")


@pytest.mark.parametrize("then", ["reset", "close"])
def test_an_upstream_that_ends_in_its_handshake_is_a_502(bare, upstream, then) -> None:
    upstream(b"\x16\x03\x03\x00\x7a\x02", then)
    with leaves_nothing(bare), bare.tunnel("down.test") as tls:
        tls.sendall(OK.replace(b"allowed", b"down"))
        assert read_answer(tls).startswith(b"HTTP/1.1 502 ")
    assert told(bare, "upstream_failed")


CLIENT_STAGES = {
    "nothing": [b""],
    "half a CONNECT": [CONNECT[:20]],
    "CONNECT": [CONNECT],
    "half a hello": [CONNECT, hello("allowed.test")[:90]],
    "hello": [CONNECT, hello("allowed.test")],
    "half a head": [b"GET http://down.test/ HT"],
    "head": [PLAIN],
    "half a body": [POST],
    "half a chunk": [
        POST.replace(b"Content-Length: 9", b"Transfer-Encoding: chunked") + b"9\r\nab"
    ],
    "half a trailer": [
        POST.replace(b"Content-Length: 9\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ")
    ],
    "greeting of SOCKS": [b"\x05\x01\x00"],
}


@pytest.mark.parametrize("stage", CLIENT_STAGES)
@pytest.mark.parametrize("way", ["reset", "half-close"])
def test_a_client_that_ends_at_any_stage_leaves_nothing(bare, upstream, stage, way) -> None:
    upstream()
    with leaves_nothing(bare):
        sock = socket.create_connection(("127.0.0.1", bare.port), 10)
        with sock:
            first, *more = CLIENT_STAGES[stage]
            sock.sendall(first)
            for data in more:
                assert sock.recv(65_536).startswith(b"HTTP/1.1 200 ")
                sock.sendall(data)
            if way == "reset":
                reset(sock)
            else:
                sock.shutdown(socket.SHUT_WR)
                rest(sock)


def test_a_client_that_half_closes_after_its_request_is_answered(bare: Proxy) -> None:
    with leaves_nothing(bare), socket.create_connection(("127.0.0.1", bare.port), 10) as sock:
        sock.sendall(b"GET http://plain.test/ok HTTP/1.1\r\nHost: plain.test\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert rest(sock).endswith(b"0 bytes")


def test_a_client_that_resets_in_the_middle_of_an_answer_leaves_nothing(bare, upstream) -> None:
    upstream(HEAD + b"Content-Length: 90000000\r\n\r\n" + b"a" * 1_000_000)
    with leaves_nothing(bare):
        sock = socket.create_connection(("127.0.0.1", bare.port), 10)
        sock.sendall(PLAIN)
        sock.recv(1_000)
        reset(sock)
    assert told(bare, "client_gone")


# certificates --------------------------------------------------------------------------------


OTHER_CA = make_ca("another internet", now=NOW)


def _leaf(proxy: Proxy, kind: str) -> bytes:
    """Make a certificate and key for ``down.test`` with something wrong."""
    unknown = KeyPair(cert_pem=OTHER_CA[0], key_pem=OTHER_CA[1])
    ca = unknown if kind == "unknown root" else proxy.origin.ca
    days = {"expired": -10, "not yet valid": 5}.get(kind, 0)
    purpose = Purpose.CLIENT if kind == "of a client" else Purpose.SERVER
    names = ["other.example"] if kind == "another name" else ["down.test"]
    if kind == "self-signed":
        return b"".join(make_ca("down.test", now=NOW))
    return b"".join(issue_leaf(ca, names, purpose=purpose, now=NOW + dt.timedelta(days), days=2))


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("expired", "expired"),
        ("not yet valid", "not yet valid"),
        ("another name", "ostname mismatch"),
        ("unknown root", "local issuer"),
        ("self-signed", "self-signed certificate"),
        ("of a client", "purpose"),
    ],
    ids=str,
)
def test_a_certificate_that_does_not_convince_is_refused_and_says_why(
    bare: Proxy, kind: str, why: str, tmp_path: Path
) -> None:
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(_leaf(bare, kind))
    server = Scripted(lambda *_: [HEAD + b"Content-Length: 0\r\n\r\n"], leaf)
    _lead(bare, server.port)
    try:
        with leaves_nothing(bare):
            answer = bare.ask(OK.replace(b"allowed", b"down"), "down.test")
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert b"upstream_untrusted" in answer
        assert why in str(told(bare, "upstream_untrusted"))
        assert server.heads in ([], [[]])
    finally:
        server.stop()


# room ------------------------------------------------------------------------------------------


def test_there_is_room_for_so_many_clients_in_all_and_of_one_agent() -> None:
    alice, bob = (
        Principal(principal_id=name, agent_id="a", agent_type="t", session_id="s")
        for name in ("alice", "bob")
    )
    room = Room(RoomLimits(connections_max=3, agent_connections_max=2))
    for _ in range(2):
        assert room.objection(alice) == ""
        room.enter(alice)
    assert room.objection(alice) == "more than 2 connections of one agent"
    assert room.objection(bob) == ""
    room.enter(bob)
    assert room.objection(bob) == "more than 3 connections"
    room.leave(alice)
    assert room.objection(alice) == ""


def test_few_descriptors_allow_few_connections_but_always_one() -> None:
    limits = RoomLimits(connections_max=5_000, agent_connections_max=400)
    assert room_within(limits, 1 << 20) == limits
    assert room_within(limits, 1_024).connections_max == 448
    assert room_within(limits, 1_024).agent_connections_max == 400
    assert room_within(limits, 64).connections_max == 1
