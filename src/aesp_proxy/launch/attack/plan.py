"""What the attacking program is told, and how it says what it cannot try or has proved."""

from __future__ import annotations

from typing import NamedTuple


class CannotTryError(Exception):
    """This attack needs what is not there; the text says what."""


class ProvenError(Exception):
    """It got out where no canary sees it; the text is the proof."""


class Plan(NamedTuple):
    """Where the canaries are, what each attack is to show them, and whom to attack.

    ``tokens`` maps an attack to what its canary would see. Ports are on 127.0.0.1, those
    of ``low`` (by protocol) on ``low_host``. An empty host, path or port is not there.
    ``victims`` maps an attack to a process outside, which holds the descriptor ``held``
    to a canary. ``outside4`` and ``outside6`` are the addresses of canaries of a world
    beyond ``device``, for a captured user: TCP on 53, 80, 443 and ``outside_tcp``, UDP on
    53, 443 and ``outside_udp``, and of IPv6 ``outside_tcp6`` and ``outside_udp6``.
    """

    tokens: dict[str, str]
    proxy: tuple[str, int]
    own_network: bool
    tcp_ports: list[int]
    tcp6_port: int
    udp_port: int
    low_host: str
    low: dict[str, list[int]]
    unix_path: str
    abstract: str
    vsock_port: int
    victims: dict[str, int]
    held: int
    allowed: str
    second: str
    denied: str
    plain_port: int
    tls_port: int
    policy: str
    ca_key: str
    outside4: str = ""
    outside6: str = ""
    outside_tcp: int = 0
    outside_tcp6: int = 0
    outside_udp: int = 0
    outside_udp6: int = 0
    device: str = ""
