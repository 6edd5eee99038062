"""Attempts through the proxy: forbidden hosts, ports and addresses, two names, two readings."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final

from aesp_proxy.launch.attack.plan import CannotTryError, Plan
from aesp_proxy.launch.attack.wire import (
    RefusedError,
    absolute,
    ask,
    connect,
    encrypted,
    head,
    inside,
    tunnel,
)

_FORMS: Final = (
    "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "127.1", "127.0.1",
)  # fmt: skip
_EMBEDDED: Final = ("[::ffff:127.0.0.1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]")


def _through(plan: Plan, authority: str, token: str, name: str = "") -> str:
    """Ask for a token at an authority: by a tunnel with TLS, then without."""
    try:
        host = name or authority.rpartition(":")[0]
        with encrypted(tunnel(plan, authority), "" if host[:1] in "[0123456789" else host) as sock:
            return ask(sock, head("GET", f"/{token}", authority))
    except RefusedError:
        raise
    except OSError:
        with tunnel(plan, authority) as sock:
            return ask(sock, head("GET", f"/{token}", authority))


def _all(plan: Plan, authorities: list[str], token: str) -> str:
    said = ""
    for authority in authorities:
        try:
            said = _through(plan, authority, token)
        except (OSError, RefusedError) as error:
            said = said or str(error)
    return said


def control(plan: Plan, token: str) -> str:
    """Ask for what is allowed: it must pass, or the rest proves nothing."""
    return inside(plan, head("GET", f"/{token}", plan.allowed))


def fronting_host(plan: Plan, token: str) -> str:
    """Name an allowed host outside, another inside."""
    return inside(plan, head("GET", f"/{token}", plan.denied))


def fronting_sni(plan: Plan, token: str) -> str:
    """Name another host in TLS only."""
    with encrypted(tunnel(plan, f"{plan.allowed}:443"), plan.denied) as sock:
        return ask(sock, head("GET", f"/{token}", plan.allowed))


def two_authorities(plan: Plan, token: str) -> str:
    """Absolute form with an allowed host, and another in Host."""
    return absolute(plan, f"http://{plan.allowed}/{token}", plan.denied)


def no_sni(plan: Plan, token: str) -> str:
    """No name in TLS, another in Host."""
    with encrypted(tunnel(plan, f"{plan.allowed}:443"), "") as sock:
        return ask(sock, head("GET", f"/{token}", plan.denied))


def raw_address(plan: Plan, token: str) -> str:
    """CONNECT to the address of a canary on the host's loopback."""
    places = [f"127.0.0.1:{plan.tls_port}", f"127.0.0.1:{plan.plain_port}"]
    return _all(plan, [*places, f"[::1]:{plan.tcp6_port}"] if plan.tcp6_port else places, token)


def rebinding(plan: Plan, token: str) -> str:
    """Ask for an allowed name that the canary resolver answers with loopback."""
    if not plan.second:
        raise CannotTryError("the policy allows no second host, whose name could be answered")
    if not {80, 443} & set(plan.low.get("tcp", [])):
        raise CannotTryError("no canary could listen on port 80 or 443")
    said = absolute(plan, f"http://{plan.second}/{token}", plan.second)
    with contextlib.suppress(OSError, RefusedError):
        _through(plan, f"{plan.second}:443", token)
    return said


def metadata(plan: Plan, token: str) -> str:
    """The address of metadata services, by CONNECT and in absolute form."""
    said = absolute(plan, f"http://169.254.169.254/{token}", "169.254.169.254")
    _all(plan, ["169.254.169.254:80", "[fd00:ec2::254]:80"], token)
    return said


def metadata_name(plan: Plan, token: str) -> str:
    """Their names."""
    name = "metadata.google.internal"
    return absolute(plan, f"http://{name}/{token}", name)


def address_forms(plan: Plan, token: str) -> str:
    """Loopback as decimal, hexadecimal, octal and short."""
    return _all(plan, [f"{form}:{plan.plain_port}" for form in _FORMS], token)


def embedded_address(plan: Plan, token: str) -> str:
    """Loopback inside an IPv6 address."""
    return _all(plan, [f"{form}:{plan.plain_port}" for form in _EMBEDDED], token)


def look_alikes(plan: Plan, token: str) -> str:
    """Names that begin or end as an allowed one does."""
    names = (f"evil-{plan.allowed}", f"{plan.allowed}.{plan.denied}")
    return _all(plan, [f"{name}:443" for name in names], token)


def forbidden_host(plan: Plan, token: str) -> str:
    """A host that is not allowed, in several spellings."""
    denied = plan.denied
    names = (denied, denied.upper(), f"{denied}.", f"{denied}\0.{plan.allowed}")
    return _all(plan, [f"{name}:443" for name in names], token)


def two_parsers(plan: Plan, token: str) -> str:
    """User information, backslash and fragment around two hosts."""
    allowed, denied = plan.allowed, plan.denied
    said = ""
    for hosts in (f"{allowed}@{denied}", f"{denied}\\@{allowed}", f"{denied}#@{allowed}",
                  f"{denied}?@{allowed}"):  # fmt: skip
        target = f"http://{hosts}/{token}"
        said = absolute(plan, target, denied)
    return said


def user_information(plan: Plan, token: str) -> str:
    """An allowed host as user of another, in Host as well."""
    authority = f"{plan.allowed}@{plan.denied}"
    return absolute(plan, f"http://{authority}/{token}", authority)


def other_ports(plan: Plan, token: str) -> str:
    """An allowed host on ports that nobody named."""
    return _all(plan, [f"{plan.allowed}:{port}" for port in (8443, 22, 25)], token)


def absolute_form(plan: Plan, token: str) -> str:
    """A host that is not allowed, without a tunnel."""
    return absolute(plan, f"http://{plan.denied}/{token}", plan.denied)


def relayed_connect(plan: Plan, token: str) -> str:
    """A second CONNECT inside the tunnel of the first."""
    with tunnel(plan, f"{plan.allowed}:80") as sock:
        tunnel(plan, f"{plan.denied}:80", sock)
        return ask(sock, head("GET", f"/{token}", plan.denied))


def raw_bytes(plan: Plan, token: str) -> str:
    """Bytes that are neither TLS nor HTTP, in the tunnel of an allowed host."""
    said = []
    for port in (443, 80):
        with tunnel(plan, f"{plan.allowed}:{port}") as sock:
            said.append(ask(sock, b"\0\1\2\3" + token.encode() + b"\r\n\r\n"))
    return "; ".join(said)


def _socks(plan: Plan, destination: bytes, token: str) -> str:
    with connect(plan) as sock:
        sock.sendall(b"\x05\x01\x00")
        sock.recv(2)
        sock.sendall(b"\x05\x01\x00" + destination)
        reply = sock.recv(64)
        if reply[1:2] != b"\0":
            return f"SOCKS reply {reply[1:2].hex() or 'none'}"
        return ask(sock, head("GET", f"/{token}", plan.denied))


def socks(plan: Plan, token: str) -> str:
    """A host that is not allowed, and loopback, by SOCKS5."""
    name = plan.denied.encode()
    port = struct.pack(">H", plan.plain_port)
    _socks(plan, b"\x01" + socket.inet_aton("127.0.0.1") + port, token)
    return _socks(plan, b"\x03" + bytes([len(name)]) + name + struct.pack(">H", 80), token)


def loop(plan: Plan, token: str) -> str:
    """A request to the proxy itself, which would come from outside."""
    authority = f"{plan.proxy[0]}:{plan.proxy[1]}"
    with tunnel(plan, authority) as sock:
        return ask(sock, head("GET", f"http://{plan.allowed}/{token}", plan.allowed))


def _hidden(plan: Plan, token: str) -> bytes:
    """Return the request that is to be smuggled in the body of another."""
    return head("GET", f"/{token}", plan.allowed)


def two_framings(plan: Plan, token: str) -> str:
    """A length and chunks; two lengths."""
    hidden = _hidden(plan, token)
    both = (f"Content-Length: {len(hidden) + 5}", "Transfer-Encoding: chunked")
    said = inside(plan, head("POST", "/", plan.allowed, *both) + b"0\r\n\r\n" + hidden)
    two = ("Content-Length: 0", f"Content-Length: {len(hidden)}")
    inside(plan, head("POST", "/", plan.allowed, *two) + hidden)
    return said


def hidden_coding(plan: Plan, token: str) -> str:
    """A transfer coding that only one side sees."""
    said = ""
    for field in ("Transfer-Encoding: xchunked", "Transfer-Encoding : chunked",
                  "Transfer-Encoding: chunked, identity",
                  "Transfer-Encoding:\x0bchunked"):  # fmt: skip
        body = b"0\r\n\r\n" + _hidden(plan, token)
        said = inside(plan, head("POST", "/", plan.allowed, field) + body)
    return said


def chunk_framing(plan: Plan, token: str) -> str:
    """Sizes of chunks that two parsers read differently."""
    said = ""
    for size in (b"0x0", b"-0", b"0 0", b"+0", b"0_0"):
        start = head("POST", "/", plan.allowed, "Transfer-Encoding: chunked")
        said = inside(plan, start + size + b"\r\n\r\n" + _hidden(plan, token))
    return said


def line_ends(plan: Plan, token: str) -> str:
    """A bare line feed, a folded line and a NUL in the head."""
    said = ""
    for field in (f"X: a\nHost: {plan.denied}", "X: a\r\n b", "X: a\0b", "X: a\rY: b"):
        said = inside(plan, head("GET", f"/{token}", plan.allowed, field))
    return said


ATTEMPTS: Final = {
    "control": control,
    "fronting-host": fronting_host,
    "fronting-sni": fronting_sni,
    "two-authorities": two_authorities,
    "no-sni": no_sni,
    "raw-address": raw_address,
    "rebinding": rebinding,
    "metadata": metadata,
    "metadata-name": metadata_name,
    "address-forms": address_forms,
    "embedded-address": embedded_address,
    "look-alikes": look_alikes,
    "forbidden-host": forbidden_host,
    "two-parsers": two_parsers,
    "user-information": user_information,
    "other-ports": other_ports,
    "absolute-form": absolute_form,
    "relayed-connect": relayed_connect,
    "raw-bytes": raw_bytes,
    "socks": socks,
    "loop": loop,
    "two-framings": two_framings,
    "hidden-coding": hidden_coding,
    "chunk-framing": chunk_framing,
    "line-ends": line_ends,
}
