"""The sockets that a worker inherits, each named by an option of its command line."""

from __future__ import annotations

import socket
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from aesp_proxy.intercept.socket_owner import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Sockets:
    """What was inherited to listen on."""

    listen: socket.socket
    transparent: tuple[socket.socket, ...] = ()
    dns_udp: tuple[socket.socket, ...] = ()
    dns_tcp: tuple[socket.socket, ...] = ()
    names_in: socket.socket | None = None
    names_out: tuple[socket.socket, ...] = ()
    pieces_in: socket.socket | None = None
    pieces_out: tuple[socket.socket, ...] = ()
    labels: socket.socket | None = None

    def places(self) -> frozenset[Place]:
        """Return where they are bound."""
        bound = (self.listen, *self.transparent, *self.dns_udp, *self.dns_tcp)
        names = (sock.getsockname() for sock in bound)
        return frozenset((ip_address(name[0].partition("%")[0]), name[1]) for name in names)


def inherited(words: Sequence[str]) -> tuple[socket.socket, Sockets]:
    """Read the options of a worker; return the socket of its supervisor, and the others."""
    parser = ArgumentParser(prog="aesp_proxy.daemon.worker")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--listen-fd", type=int, required=True)
    parser.add_argument("--transparent-fd", type=int, action="append", default=[])
    parser.add_argument("--dns-udp-fd", type=int, action="append", default=[])
    parser.add_argument("--dns-tcp-fd", type=int, action="append", default=[])
    parser.add_argument("--names-in-fd", type=int)
    parser.add_argument("--labels-fd", type=int)
    parser.add_argument("--names-out-fd", type=int, action="append", default=[])
    parser.add_argument("--pieces-in-fd", type=int)
    parser.add_argument("--pieces-out-fd", type=int, action="append", default=[])
    arguments = parser.parse_args(words)
    control = socket.socket(fileno=arguments.control_fd)
    return control, Sockets(
        listen=socket.socket(fileno=arguments.listen_fd),
        transparent=tuple(socket.socket(fileno=fd) for fd in arguments.transparent_fd),
        dns_udp=tuple(socket.socket(fileno=fd) for fd in arguments.dns_udp_fd),
        dns_tcp=tuple(socket.socket(fileno=fd) for fd in arguments.dns_tcp_fd),
        names_in=socket.socket(fileno=arguments.names_in_fd) if arguments.names_in_fd else None,
        names_out=tuple(socket.socket(fileno=fd) for fd in arguments.names_out_fd),
        pieces_in=socket.socket(fileno=arguments.pieces_in_fd) if arguments.pieces_in_fd else None,
        pieces_out=tuple(socket.socket(fileno=fd) for fd in arguments.pieces_out_fd),
        labels=socket.socket(fileno=arguments.labels_fd) if arguments.labels_fd else None,
    )
