"""Upstream connections are shared one after another: by whom, after what, and never with a rest."""

from __future__ import annotations

import dataclasses
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from corporate_lab import Corporate
from egress_lab import POLICY, Proxy, read_answer, snapshot_of
from scripted import Answer, Scripted

from aesp_proxy.daemon.config_upstream import Upstream
from aesp_proxy.daemon.reaching import way_out
from aesp_proxy.intercept.egress.dialler import StaticAddress
from aesp_proxy.intercept.egress.pool import PoolLimits
from aesp_proxy.normalize.http_head import HeadLimits
from aesp_proxy.normalize.http_relay import ResponseRelay

GET = b"GET /x HTTP/1.1\r\nHost: plain.test\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"
FIRST, CLEAN = OK % (5, b"first"), OK % (5, b"clean")
STRAY = OK % (5, b"stray")


class Lab:
    """A scripted server behind a name, and clients that come one after another."""

    def __init__(self, proxy: Proxy, *, tls: bool) -> None:
        self.proxy = proxy
        self._tls = tls
        self._name = "allowed.test" if tls else "plain.test"
        self._servers: list[Scripted] = []

    def serve(self, answer: Answer) -> Scripted:
        server = Scripted(answer, self.proxy.directory / "leaf.pem" if self._tls else None)
        self._servers.append(server)
        place = StaticAddress(address="127.0.0.1", port=server.port)
        self.proxy.interceptor._settings.static[self._name, None] = place
        return server

    def connect(self) -> socket.socket:
        return self.proxy.tunnel() if self._tls else self.proxy.connect("plain.test:80")[0]

    def named(self, request: bytes) -> bytes:
        return request.replace(b"plain.test", self._name.encode())

    def ask(self, request: bytes = GET, *, until: Callable[[bytes], bool] | None = None) -> bytes:
        """Ask on a connection of its own, go, and see the proxy notice."""
        with self.connect() as sock:
            sock.sendall(self.named(request))
            got = b""
            while not (until or is_whole)(got):
                got += sock.recv(65_536) or pytest.fail(f"closed after {got!r}")
        self.proxy.wait_for(lambda: self.proxy.interceptor.connections == 0, "the client is gone")
        return got

    def stop(self) -> None:
        for server in self._servers:
            server.stop()


@pytest.fixture(params=["plain", "TLS"])
def lab(proxy: Proxy, request) -> Iterator[Lab]:
    made = Lab(proxy, tls=request.param == "TLS")
    try:
        yield made
    finally:
        made.stop()


def is_whole(data: bytes, method: str = "GET") -> bool:
    relay = ResponseRelay(HeadLimits(), method=method, minor_version=1)
    relay.feed(data)
    return relay.done


def resting(proxy: Proxy) -> int:
    return len(proxy.interceptor._pool)


def always(answer: bytes) -> Answer:
    return lambda connection, request: [answer]


def once(*steps: bytes | threading.Event | None) -> Answer:
    """Do this at the very first request, and answer cleanly ever after."""
    return lambda connection, request: [CLEAN] if connection or request else list(steps)


# who shares --------------------------------------------------------------------------


def test_clients_of_one_agent_share_a_connection_one_after_another(proxy, lab):
    server = lab.serve(always(CLEAN))
    for _ in range(3):
        assert lab.ask() == CLEAN
    assert [len(heads) for heads in server.heads] == [3]
    assert resting(proxy) == 1
    outcomes = [r for r in proxy.journal.records if r.kind == "outcome" and r.action == "http.get"]
    assert {r.upstream_address for r in outcomes} == {f"127.0.0.1:{server.port}"}
    assert len(outcomes) == 3


def test_clients_at_the_same_time_have_connections_of_their_own(proxy):
    with proxy.tunnel() as one, proxy.tunnel() as other:
        for tls in (one, other, one):
            tls.sendall(b"GET /x HTTP/1.1\r\nHost: allowed.test\r\n\r\n")
            assert read_answer(tls).endswith(b"0 bytes")
    assert proxy.origin.connections == 2


@pytest.mark.parametrize("field", ["principal_id", "agent_id", "session_id", "tenant_id"])
def test_another_identity_shares_nothing(proxy, field):
    ask = b"GET /x HTTP/1.1\r\nHost: allowed.test\r\n\r\n"
    proxy.ask(ask)
    proxy.wait_for(lambda: resting(proxy) == 1, "the connection rests")
    pipeline = proxy.pipeline
    pipeline._identity = dataclasses.replace(pipeline._identity, **{field: "somebody-else"})
    pipeline._principals.clear()
    assert proxy.ask(ask).endswith(b"0 bytes")
    assert proxy.origin.connections == 2


def test_another_host_scheme_or_port_shares_nothing(proxy):
    request = b"GET /x HTTP/1.1\r\nHost: %b\r\n\r\n"
    static = proxy.interceptor._settings.static
    place = StaticAddress(address="127.0.0.1", port=proxy.origin.plain_port)
    static["allowed.test", 80] = place
    for host in (b"allowed.test", b"a.sub.test"):  # one server, one certificate
        assert proxy.ask(request % host, host.decode()).endswith(b"0 bytes")
    sock, _ = proxy.connect("allowed.test:80")
    with sock:
        sock.sendall(request % b"allowed.test")
        assert read_answer(sock).endswith(b"0 bytes")
    assert proxy.origin.connections == 3


def test_a_client_that_goes_on_to_another_host_leaves_its_connection(proxy):
    static = proxy.interceptor._settings.static
    static["other.test", None] = static["plain.test", None]
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
        for host in (b"plain.test", b"other.test", b"plain.test"):
            sock.sendall(b"GET http://%b/ HTTP/1.1\r\nHost: %b\r\n\r\n" % (host, host))
            assert read_answer(sock).endswith(b"0 bytes")
    assert proxy.origin.connections == 2


def test_connections_through_a_corporate_proxy_are_shared_too(start):
    corporate = Corporate({})
    try:
        proxy = start(corporate=way_out(Upstream(proxy=f"http://127.0.0.1:{corporate.port}")))
        proxy.interceptor._settings.static.clear()
        corporate.places["allowed.test:443"] = proxy.origin.tls_port
        for _ in range(2):
            answer = proxy.ask(b"GET /x HTTP/1.1\r\nHost: allowed.test\r\n\r\n")
            assert answer.endswith(b"0 bytes")
            proxy.wait_for(lambda: resting(proxy) == 1, "the connection rests")
        assert len(corporate.asked) == 1
    finally:
        corporate.stop()


# the address is checked again --------------------------------------------------------


def test_an_address_that_the_policy_forbids_since_is_not_spoken_to(start, answer_of):
    policy = POLICY.replace('"other.test"', '"other.test", "localhost:*", "127.0.0.0/8:*"')
    proxy = start(policy)
    port = proxy.origin.plain_port
    request = b"GET http://localhost:%d/ HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % (port, port)

    def ask() -> bytes:
        with socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
            sock.sendall(request)
            return answer_of(sock)

    assert ask().endswith(b"0 bytes")
    proxy.wait_for(lambda: resting(proxy) == 1, "the connection rests")
    proxy.pipeline.snapshot = snapshot_of(policy.replace(', "127.0.0.0/8:*"', ""))
    assert b"AESP-Reason: address_forbidden\r\n" in ask()
    assert resting(proxy) == 0
    assert len(proxy.origin.requests) == 1


# what is left over is never another's ------------------------------------------------

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n%b\r\n"
LEFT_OVER = {
    "a second answer": FIRST + STRAY,
    "a byte more than the length": FIRST + b"x",
    "an empty line": FIRST + b"\r\n",
    "half a head": FIRST + b"HTTP/1.1 200 OK\r\nX-",
    "a stray 100": FIRST + b"HTTP/1.1 100 Continue\r\n\r\n",
    "a stray 103": FIRST + b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
    "a second answer after chunks": CHUNKED % b"" + STRAY,
    "a second answer after trailers": CHUNKED % b"X-Sum: 1\r\n" + STRAY,
    "bytes after the last chunk": CHUNKED % b"" + b"0\r\n\r\n",
}


def begins(data: bytes) -> bool:
    return b"first" in data


@pytest.mark.parametrize("left", LEFT_OVER.values(), ids=LEFT_OVER)
def test_what_comes_with_an_answer_goes_to_nobody(proxy, lab, left):
    server = lab.serve(once(left))
    assert b"stray" not in lab.ask(until=begins)
    assert resting(proxy) == 0
    assert lab.ask() == CLEAN
    assert server.connections == 2


@pytest.mark.parametrize("left", LEFT_OVER.values(), ids=LEFT_OVER)
def test_what_comes_after_an_answer_goes_to_nobody(proxy, lab, left):
    later = threading.Event()
    end = left.index(b"first") + 5
    end += len(left[end:].partition(b"\r\n\r\n")[0]) + 4 if left.startswith(CHUNKED[:30]) else 0
    server = lab.serve(once(left[:end], later, left[end:]))
    assert b"stray" not in lab.ask()
    proxy.wait_for(lambda: resting(proxy) == 1, "the connection rests")
    later.set()
    proxy.wait_for(lambda: resting(proxy) == 0, "the connection is closed")
    assert lab.ask() == CLEAN
    assert server.connections == 2


def test_an_answer_that_nobody_asked_for_ends_a_connection_that_is_kept(proxy, lab):
    stray = threading.Event()
    lab.serve(once(FIRST, stray, STRAY))
    with lab.connect() as sock:
        sock.sendall(lab.named(GET))
        assert read_answer(sock) == FIRST
        stray.set()
        assert read_answer(sock) == b""
    assert resting(proxy) == 0


@pytest.mark.parametrize(
    ("request_bytes", "answer", "method"),
    [
        (GET, b"HTTP/1.1 204 No Content\r\n\r\n", "GET"),
        (GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "GET"),
        (GET, b"HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n", "GET"),
        (GET.replace(b"GET", b"HEAD"), b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD"),
        (GET, b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "GET"),
        (GET, b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", "GET"),
        (GET.replace(b"/1.1", b"/1.0"), OK % (0, b""), "GET"),
        (GET.replace(b"GET", b"POST"), OK % (0, b""), "POST"),
        (GET.replace(b"GET", b"DELETE"), OK % (0, b""), "DELETE"),
        (GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\nab"), OK % (0, b""), "GET"),
        (GET.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"), OK % (0, b""), "GET"),
        (
            GET.replace(b"\r\n\r\n", b"\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"),
            OK % (0, b""),
            "GET",
        ),
        (GET.replace(b"\r\n\r\n", b"\r\nAuthorization: NTLM AAAA\r\n\r\n"), OK % (0, b""), "GET"),
        (
            GET,
            b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic, Negotiate\r\nContent-Length: 0\r\n\r\n",
            "GET",
        ),
        (GET, b"HTTP/1.1 200 OK\r\nPersistent-Auth: true\r\nContent-Length: 0\r\n\r\n", "GET"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value,
)
@pytest.mark.parametrize("lab", ["plain"], indirect=True)
def test_after_an_exchange_that_servers_may_read_differently_nothing_is_shared(
    proxy, lab, request_bytes, answer, method
):
    server = lab.serve(once(answer))
    lab.ask(request_bytes, until=lambda data: is_whole(data, method))
    assert resting(proxy) == 0
    assert lab.ask() == CLEAN
    assert server.connections == 2


@pytest.mark.parametrize("lab", ["plain"], indirect=True)
def test_one_such_exchange_is_remembered_for_the_life_of_the_connection(proxy, lab):
    lab.serve(always(CLEAN))
    post = b"POST /x HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 2\r\n\r\nab"
    lab.ask(post + GET, until=lambda data: data == CLEAN + CLEAN)
    assert resting(proxy) == 0


def test_an_early_answer_with_the_body_unread_is_the_last_of_its_connection(proxy, lab):
    early = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"
    server = lab.serve(once(early))
    lab.ask(
        b"POST /x HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 900000\r\n\r\n" + b"a" * 2_000
    )
    assert resting(proxy) == 0
    assert lab.ask() == CLEAN
    assert server.connections == 2


def test_a_refused_request_does_not_use_or_spoil_what_rests(proxy, lab, canary):
    server = lab.serve(always(CLEAN))
    lab.ask()
    assert b"secret_found" in lab.ask(GET.replace(b"/x", b"/" + canary))
    assert resting(proxy) == 1
    assert lab.ask() == CLEAN
    assert [len(heads) for heads in server.heads] == [2]


# old connections ---------------------------------------------------------------------


def stale(*steps: bytes | None) -> Answer:
    """Answer the first request of the first connection, and do this at its second."""
    return lambda connection, request: list(steps) if (connection, request) == (0, 1) else [CLEAN]


TIMED_OUT = b"HTTP/1.1 408 Request Time-out\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("steps", [(None,), (TIMED_OUT, None)], ids=["closed", "408"])
def test_a_connection_that_is_too_old_is_no_failure(proxy, lab, steps):
    server = lab.serve(stale(*steps))
    assert [lab.ask(), lab.ask()] == [CLEAN, CLEAN]
    assert server.connections == 2
    outcomes = [r for r in proxy.journal.records if r.kind == "outcome" and r.action == "http.get"]
    assert [(r.reason, r.status) for r in outcomes] == [("allowed", 200)] * 2


@pytest.mark.parametrize("begun", [b"HTTP/1.1 ", b"HTTP/1.1 103 Early Hints\r\n\r\n", FIRST[:-2]])
@pytest.mark.parametrize("lab", ["plain"], indirect=True)
def test_a_request_whose_answer_has_begun_is_not_sent_again(proxy, lab, begun):
    server = lab.serve(stale(begun, None))
    assert lab.ask() == CLEAN
    sock, _ = proxy.connect("plain.test:80")
    with sock:
        sock.sendall(GET)
        assert read_answer(sock) != CLEAN
    assert [len(heads) for heads in server.heads] == [2]


@pytest.mark.parametrize("lab", ["plain"], indirect=True)
def test_a_new_connection_that_closes_is_a_failure_at_once(proxy, lab):
    server = lab.serve(lambda connection, request: [None] if connection or request else [CLEAN])
    assert lab.ask() == CLEAN
    assert lab.ask().startswith(b"HTTP/1.1 502 ")
    assert [len(heads) for heads in server.heads] == [2, 1]


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"DELETE", b"MKCOL"])
@pytest.mark.parametrize("lab", ["plain"], indirect=True)
def test_what_must_not_be_sent_twice_gets_a_connection_of_its_own(lab, method):
    server = lab.serve(always(CLEAN))
    lab.ask()
    assert lab.ask(GET.replace(b"GET", method)) == CLEAN
    assert server.connections == 2


# what never rests --------------------------------------------------------------------


def test_a_websocket_and_http_2_leave_nothing(proxy):
    from h2_client import H2Client

    with proxy.tunnel(alpn=("h2",)) as tls:
        assert H2Client(tls).ask("/x") == (200, b"0 bytes")
    with proxy.tunnel() as tls:
        tls.sendall(
            b"GET /x HTTP/1.1\r\nHost: allowed.test\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert read_answer(tls).endswith(b"0 bytes")
    proxy.wait_for(lambda: proxy.interceptor.connections == 0, "the clients are gone")
    assert resting(proxy) == 0


def test_nothing_rests_where_the_operator_says_so(start):
    proxy = start(pool=PoolLimits(connections_max=0))
    for _ in range(2):
        proxy.ask(b"GET /x HTTP/1.1\r\nHost: allowed.test\r\n\r\n")
    assert proxy.origin.connections == 2
