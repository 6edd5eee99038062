"""Whose a captured connection is: in the record, and when it is the proxy's own."""

from __future__ import annotations

import os
import socket

import pytest
from egress_lab import Proxy
from entries import rest


def captured(proxy: Proxy, port: int) -> socket.socket:
    return socket.create_connection(proxy.capture("203.0.113.7", port), 10)


@pytest.fixture
def asked(proxy: Proxy) -> list[tuple[object, object]]:
    """What the kernel was asked: the two ends of each connection."""
    seen: list[tuple[object, object]] = []

    def owner_of(peer: object, destination: object) -> int:
        seen.append((peer, destination))
        return 4242

    proxy.interceptor._owner_of = owner_of
    proxy.pipeline._user_of = {4242: "agent", os.geteuid(): "the proxy"}.__getitem__
    return seen


def test_the_user_of_the_socket_is_the_principal(proxy, asked):
    with captured(proxy, 80) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n")
        assert b"403" in rest(sock)
        here = sock.getsockname()
    ((peer, destination),) = asked
    assert (str(peer[0]), peer[1]) == here
    assert destination[1] == 80
    assert {record.principal_id for record in proxy.journal.records} == {"agent"}


def test_an_explicit_connection_has_a_user_too(proxy, asked):
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
        sock.sendall(
            b"GET http://other.example/ HTTP/1.1\r\nHost: other.example\r\n"
            b"Connection: close\r\n\r\n"
        )
        assert b"403" in rest(sock)
    ((_, destination),) = asked
    assert destination[1] == proxy.port
    assert {record.principal_id for record in proxy.journal.records} == {"agent"}


def test_where_users_are_not_told_apart_the_operators_word_stands(proxy, asked):
    proxy.pipeline._user_of = None
    with captured(proxy, 80) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n")
        rest(sock)
    assert {record.principal_id for record in proxy.journal.records} == {"alice"}


def test_a_connection_of_its_own_that_comes_back_is_ended_and_recorded(proxy, asked):
    proxy.interceptor._owner_of = lambda *_: os.geteuid()
    with captured(proxy, 80) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n")
        assert rest(sock) == b""
    (record,) = proxy.journal.records
    assert record.reason == "unsupported"
    assert "came back to it" in record.message
