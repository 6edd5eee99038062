"""Whose a connection is, asked of this machine's kernel."""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import ip_address

import pytest

from aesp_proxy.intercept import netlink, socket_owner
from aesp_proxy.intercept.socket_owner import Place, SocketOwners


def place(name: tuple[object, ...]) -> Place:
    return ip_address(str(name[0])), int(str(name[1]))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_user_of_the_other_end_is_told_until_it_is_closed(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        client = socket.create_connection(server.getsockname()[:2])
        accepted, peer = server.accept()
        with accepted:
            here, owners = place(server.getsockname()), SocketOwners()
            assert owners.of(place(peer), here) == os.getuid()
            assert owners.of(place(peer), (here[0], here[1] ^ 1)) is None
            accepted.sendall(b"x")
            client.close()
            # The kernel would say 0, which is root.
            assert owners.of(place(peer), here) is None
            owners.close()


def test_an_old_answer_is_passed_over():
    def answer(number: int, uid: int, inode: int) -> bytes:
        body = bytes(64) + struct.pack("=II", uid, inode)
        return netlink.message(20, 0, number, body)

    class Link:
        def __init__(self) -> None:
            self.answers = [answer(7, 1, 1), answer(1, 4242, 9)]

        def send(self, *_: object) -> None:
            pass

        def recv(self, _: int) -> bytes:
            return self.answers.pop(0)

    owners = SocketOwners()
    owners.close()
    owners._link = Link()  # type: ignore[assignment]
    here = (ip_address("127.0.0.1"), 1)
    assert owners.of(here, here) == 4242
    owners._link.answers.append(answer(2, 4242, 0))  # type: ignore[union-attr]
    assert owners.of(here, here) is None


def test_where_the_kernel_may_not_be_asked_nobody_is_known(monkeypatch):
    def refuse(*_: object) -> socket.socket:
        raise PermissionError

    monkeypatch.setattr(socket_owner.socket, "socket", refuse)
    here = (ip_address("127.0.0.1"), 1)
    assert SocketOwners().of(here, here) is None
