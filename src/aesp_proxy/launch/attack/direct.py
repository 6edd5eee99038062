"""Attempts past the proxy: sockets of the agent's own, of every kind, to canaries outside."""

from __future__ import annotations

import os
import socket
import stat
import struct
from typing import Final

from aesp_proxy.launch.attack.plan import CannotTryError, Plan, ProvenError

_WAIT_S: Final = 2.0
_HERE: Final = "127.0.0.1"
_SOCK_DIAG: Final = 4  # NETLINK_SOCK_DIAG, sock_diag(7)
_SOCK_DIAG_BY_FAMILY: Final = 20
_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_LISTENING: Final = 1 << 10
_VMADDR_CID_LOCAL: Final = 1
_ETHERTYPE_IP: Final = 0x0800


def _tcp(address: tuple[str, int], token: str, family: int = socket.AF_INET) -> str:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(_WAIT_S)
        sock.connect(address)
        sock.sendall(token.encode() + b"\n")
    return "connected"


def tcp_loopback(plan: Plan, token: str) -> str:
    """Connect to a canary on the host's loopback."""
    return _tcp((_HERE, plan.tcp_ports[0]), token)


def tcp_other_ports(plan: Plan, token: str) -> str:
    """Connect to canaries on other ports, well-known ones among them."""
    places = [(_HERE, port) for port in plan.tcp_ports[1:]]
    places += [(plan.low_host, port) for port in plan.low.get("tcp", [])]
    said = ""
    for place in places:
        try:
            said = _tcp(place, token)
        except OSError as error:
            said = said or f"{type(error).__name__}: {error}"
    return said


def tcp_ipv6(plan: Plan, token: str) -> str:
    """Connect over IPv6."""
    if not plan.tcp6_port:
        raise CannotTryError("this machine has no IPv6 loopback")
    return _tcp(("::1", plan.tcp6_port), token, socket.AF_INET6)


def _udp(address: tuple[str, int], data: bytes) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(data, address)
    return "sent"


def _low(plan: Plan, protocol: str, port: int) -> tuple[str, int]:
    if port not in plan.low.get(protocol, []):
        raise CannotTryError(f"no canary could listen on {protocol.upper()} port {port}")
    return plan.low_host, port


def udp_any(plan: Plan, token: str) -> str:
    """Send a datagram."""
    return _udp((_HERE, plan.udp_port), token.encode())


def udp_quic(plan: Plan, token: str) -> str:
    """Send what begins a QUIC connection to port 443."""
    initial = b"\xc3\x00\x00\x00\x01" + token.encode()
    return _udp(_low(plan, "udp", 443), initial.ljust(1200, b"\0"))


def question(name: str, kind: int = 1) -> bytes:
    """Return a query for a name (RFC 1035 section 4.1)."""
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    return (
        struct.pack(">HHHHHH", 0x1234, 0x0100, 1, 0, 0, 0)
        + labels
        + struct.pack(">BHH", 0, kind, 1)
    )


def dns_canary(plan: Plan, token: str) -> str:
    """Ask a resolver of the agent's own choice, data in a label."""
    return _udp((_HERE, plan.udp_port), question(f"{token}.{plan.denied}"))


def dns_canary_53(plan: Plan, token: str) -> str:
    """The same on the port of DNS."""
    return _udp(_low(plan, "udp", 53), question(f"{token}.{plan.denied}"))


def _only_inside(plan: Plan) -> None:
    if not plan.own_network:
        raise CannotTryError("without a network namespace this would ask the host's resolver")


def dns_refused_name(plan: Plan, token: str) -> str:
    """Ask the proxy's resolver for a name that is not allowed, data in a label."""
    _only_inside(plan)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(_WAIT_S)
        sock.sendto(question(f"{token}.{plan.denied}"), (_HERE, 53))
        return f"answered with code {sock.recv(512)[3] & 15}"


def dns_refused_type(plan: Plan, token: str) -> str:
    """Ask it for a record that is made for data, over TCP."""
    _only_inside(plan)
    query = question(f"{token}.{plan.denied}", kind=16)
    with socket.create_connection((_HERE, 53), _WAIT_S) as sock:
        sock.sendall(struct.pack(">H", len(query)) + query)
        return f"answered with code {sock.recv(512)[5] & 15}"


def _datagram(port: int, token: str) -> bytes:
    """Return an IP datagram from and to loopback, with UDP in it."""
    data = token.encode()
    udp = struct.pack(">HHHH", 9, port, 8 + len(data), 0) + data
    here = socket.inet_aton(_HERE)
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + here + here
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    return head[:10] + struct.pack(">H", checksum) + head[12:] + udp


def raw_socket(plan: Plan, token: str) -> str:
    """Write the datagram by hand, IP head and all."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.sendto(_datagram(plan.udp_port, token), (_HERE, 0))
    return "sent"


def packet_socket(plan: Plan, token: str) -> str:
    """Put a frame on the loopback device."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as sock:
        sock.sendto(_datagram(plan.udp_port, token), ("lo", _ETHERTYPE_IP, 0, 0, bytes(6)))
    return "sent"


def netlink(_plan: Plan, _token: str) -> str:
    """List the host's listening sockets: a port that nobody told of proves it."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as sock:
        sock.settimeout(_WAIT_S)
        body = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, _LISTENING) + bytes(48)
        sock.send(struct.pack("=IHHII", 72, _SOCK_DIAG_BY_FAMILY, _DUMP, 1, 0) + body)
        data, ports = b"", []
        while len(chunk := sock.recv(65536)) >= 16:
            data, kind = chunk, struct.unpack_from("=H", chunk, 4)[0]
            if kind != _SOCK_DIAG_BY_FAMILY:
                break
            while len(data) >= 72:
                ports.append(struct.unpack_from(">H", data, 20)[0])
                data = data[(struct.unpack_from("=I", data)[0] + 3) & ~3 :]
    raise ProvenError(f"ports {' '.join(map(str, ports))} of the host")


def vsock(plan: Plan, token: str) -> str:
    """Connect by a socket between machines that share one host."""
    if not plan.vsock_port:
        raise CannotTryError("this machine has no local vsock")
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as sock:
        sock.settimeout(_WAIT_S)
        sock.connect((_VMADDR_CID_LOCAL, plan.vsock_port))
        sock.sendall(token.encode())
    return "connected"


def _unix(path: str, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_WAIT_S)
        sock.connect(path)
        sock.sendall(data)


def unix_path(plan: Plan, token: str) -> str:
    """Connect to a unix socket of the host, by its path and past it."""
    _unix(plan.unix_path, token.encode())
    return "connected"


def unix_abstract(plan: Plan, token: str) -> str:
    """Connect to one that has no path."""
    _unix("\0" + plan.abstract, token.encode())
    return "connected"


def unix_datagrams(plan: Plan, token: str) -> str:
    """Send from one end of a pair to a path outside."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.sendto(token.encode(), plan.unix_path + ".datagrams")
    return "sent"


def _there(path: str, what: str) -> str:
    if not path or not os.path.exists(path):  # noqa: PTH110 - no pathlib, to start fast
        raise CannotTryError(f"there is no {what}")
    return path


def known_sockets(_plan: Plan, _token: str) -> str:
    """Connect to D-Bus, Docker and the ssh-agent, and say nothing."""
    agent = os.environ.get("SSH_AUTH_SOCK", "")
    bus = os.environ.get("DBUS_SESSION_BUS_ADDRESS", "").removeprefix("unix:path=")
    places = ["/run/dbus/system_bus_socket", "/var/run/docker.sock", agent, bus.partition(",")[0]]
    there = [each for each in places if each and os.path.exists(each)]  # noqa: PTH110
    said = ""
    for place in there:
        try:
            _unix(_there(place, "socket"), b"")
        except OSError as error:
            said += f"{place}: {error.strerror}; "
        else:
            raise ProvenError(f"connected to {place}")
    if not there:
        raise CannotTryError("none of D-Bus, Docker and ssh-agent is there")
    return said


def leaked_descriptor(_plan: Plan, token: str) -> str:
    """Write to every socket that was left open."""
    found = 0
    for number in range(3, 256):
        try:
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                found += 1
                os.write(number, token.encode())
        except OSError:
            continue
    return f"{found} sockets were left open"


ATTEMPTS: Final = {
    "tcp-loopback": tcp_loopback,
    "tcp-other-ports": tcp_other_ports,
    "tcp-ipv6": tcp_ipv6,
    "udp": udp_any,
    "udp-quic": udp_quic,
    "dns-canary": dns_canary,
    "dns-canary-53": dns_canary_53,
    "dns-refused-name": dns_refused_name,
    "dns-refused-type": dns_refused_type,
    "raw-socket": raw_socket,
    "packet-socket": packet_socket,
    "netlink": netlink,
    "vsock": vsock,
    "unix-path": unix_path,
    "unix-abstract": unix_abstract,
    "unix-datagrams": unix_datagrams,
    "known-sockets": known_sockets,
    "leaked-descriptor": leaked_descriptor,
}
