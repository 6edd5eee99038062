"""What a captured user tries, by sockets of its own; standard library only.

``capture_attacks.py DEVICE ADDRESS4 ADDRESS6 OWN_ADDRESS``: prints one JSON object, an
attempt to what came of it: the first bytes that came back, or the name of an errno.
"""

from __future__ import annotations

import errno
import json
import socket
import sys
from collections.abc import Callable, Sequence

DEVICE, FOUR, SIX, OWN = sys.argv[1:] if len(sys.argv) == 5 else ("", "", "", "")
LOCAL_PORT = 7777
IPPROTO_MPTCP, IPPROTO_UDPLITE, IPPROTO_SCTP = 262, 136, 132
WAIT_S = 1.5

Option = tuple[int, int, bytes]


def tcp(
    family: int, address: str, port: int, protocol: int = 0, options: Sequence[Option] = ()
) -> str:
    """Connect, say something that is no HTTP, and return what comes back."""
    with socket.socket(family, socket.SOCK_STREAM, protocol) as sock:
        sock.settimeout(WAIT_S)
        for option in options:
            sock.setsockopt(*option)
        sock.connect((address, port))
        sock.sendall(b"\1canary\n")
        return sock.recv(60).decode("latin-1")


def udp(
    family: int, address: str, port: int, protocol: int = 0, options: Sequence[Option] = ()
) -> str:
    """Send a datagram and return what comes back."""
    with socket.socket(family, socket.SOCK_DGRAM, protocol) as sock:
        sock.settimeout(WAIT_S)
        for option in options:
            sock.setsockopt(*option)
        sock.sendto(b"\1canary\n", (address, port))
        return sock.recv(60).decode("latin-1")


def raw(family: int, protocol: int, address: str) -> str:
    """Send a packet that is neither."""
    with socket.socket(family, socket.SOCK_RAW, protocol) as sock:
        sock.sendto(b"\1canary\n", (address, 0))
        return "sent"


def attempts() -> dict[str, Callable[[], str]]:
    """Give all of them by name."""
    bound = ((socket.SOL_SOCKET, socket.SO_BINDTODEVICE, DEVICE.encode() + b"\0"),)
    found: dict[str, Callable[[], str]] = {}
    for name, family, address in (("4", socket.AF_INET, FOUR), ("6", socket.AF_INET6, SIX)):

        def there(
            how: Callable[..., str], port: int, *, family: int = family, address: str = address,
            **more: object,
        ) -> Callable[[], str]:  # fmt: skip
            return lambda: how(family, address, port, **more)

        found |= {f"tcp {port} {name}": there(tcp, port) for port in (22, 80, 443, 4567, 5432)}
        found |= {f"udp {port} {name}": there(udp, port) for port in (443, 9999)}
        found[f"tcp bound {name}"] = there(tcp, 4567, options=bound)
        found[f"udp bound {name}"] = there(udp, 9999, options=bound)
        found[f"dns bound {name}"] = there(udp, 53, options=bound)
        found[f"dns garbage {name}"] = there(udp, 53)
        found[f"mptcp {name}"] = there(tcp, 4567, protocol=IPPROTO_MPTCP)
        found[f"udplite {name}"] = there(udp, 9999, protocol=IPPROTO_UDPLITE)
        found[f"sctp {name}"] = there(tcp, 80, protocol=IPPROTO_SCTP)
    found["icmp 4"] = lambda: raw(socket.AF_INET, socket.IPPROTO_ICMP, FOUR)
    found["icmp 6"] = lambda: raw(socket.AF_INET6, socket.IPPROTO_ICMPV6, SIX)
    found["local 127.0.0.1"] = lambda: tcp(socket.AF_INET, "127.0.0.1", LOCAL_PORT)
    found["local 127.9.9.9"] = lambda: tcp(socket.AF_INET, "127.9.9.9", LOCAL_PORT)
    found["local own"] = lambda: tcp(socket.AF_INET, OWN, LOCAL_PORT)
    found["local ::1"] = lambda: tcp(socket.AF_INET6, "::1", LOCAL_PORT)
    found["local udp"] = lambda: udp(socket.AF_INET, "127.0.0.1", LOCAL_PORT)
    found["transparent listener"] = lambda: tcp(socket.AF_INET, "127.0.0.1", 3129)
    return found


def tried(attempt: Callable[[], str]) -> str:
    """Return what an attempt came to."""
    try:
        return attempt()
    except TimeoutError:
        return "ETIMEDOUT"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "EOTHER")


if __name__ == "__main__":
    print(json.dumps({name: tried(attempt) for name, attempt in attempts().items()}))
