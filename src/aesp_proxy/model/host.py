"""Hosts and authorities: one strict parser, shared by policy, normalising and dialling.

Rows 8-10 of the threat list: everything an attacker can spell two ways has one
spelling here or is an ``InputError``. Sources: RFC 3986 section 3.2, RFC 5891
(IDNA 2008 after the UTS 46 mapping, non-transitional), the WHATWG URL standard's
IPv4 parser ("ends in a number"), RFC 4291 section 2.5.5, RFC 6761.

Stricter than the sources on purpose: zone ids, empty labels, percent-encoding and
A-labels that do not decode are refused; an address written inside another
(IPv4-mapped, IPv4-compatible) becomes the inner one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

import idna

from aesp_proxy.errors import InputError

_RAW_CHARS_MAX = 1024
_NAME_CHARS_MAX = 253
_LABEL_CHARS_MAX = 63
_SHOWN_CHARS_MAX = 80
_CACHE_ENTRIES = 8192
_PORT_MAX = 65_535

_LABEL_CHARS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
_DECIMAL = frozenset("0123456789")
_OCTAL = frozenset("01234567")
_HEX = frozenset("0123456789abcdef")
_NAMED_BAD = {
    "%": "percent-encoding",
    "@": "user information",
    "\\": "a backslash",
    "/": "a slash",
    "?": "a question mark",
    "#": "a fragment",
    ":": "a colon",
    "[": "a bracket",
    "]": "a bracket",
    " ": "a space",
    "*": "a wildcard",
}


@dataclass(frozen=True, slots=True)
class Host:
    """A canonical host: ``name`` in lower-case A-labels without trailing dot, or an address.

    For an address ``name`` is its canonical text (IPv6 compressed, no
    brackets, no zone) and ``address`` the value; IPv4-mapped IPv6 has become IPv4.
    """

    name: str
    address: IPv4Address | IPv6Address | None = None

    def __str__(self) -> str:
        return f"[{self.name}]" if isinstance(self.address, IPv6Address) else self.name


@lru_cache(maxsize=_CACHE_ENTRIES)
def parse_host(text: str) -> Host:
    """Parse a host: a name, an IPv4 address in any WHATWG form, IPv6 with or without brackets.

    Raises ``InputError`` with the reason for everything that is not one host
    beyond doubt. Idempotent: the ``str`` of the result parses to the same value.
    """
    if len(text) > _RAW_CHARS_MAX:
        raise _refused(text, f"longer than {_RAW_CHARS_MAX} characters")
    if text.startswith("["):
        if not text.endswith("]"):
            raise _refused(text, "the bracket is not closed")
        return _parse_ipv6(text[1:-1], text)
    if text.count(":") > 1:
        return _parse_ipv6(text, text)
    name = text.lower() if text.isascii() else _mapped(text)
    name = name.removesuffix(".")
    labels = name.split(".")
    if _is_number(labels[-1]):
        return _address_host(_parse_ipv4(labels, text))
    for label in labels:
        _check_label(label, text)
    if len(name) > _NAME_CHARS_MAX:
        raise _refused(text, f"longer than {_NAME_CHARS_MAX} characters")
    return Host(name)


@lru_cache(maxsize=_CACHE_ENTRIES)
def parse_authority(text: str, default_port: int | None) -> tuple[Host, int]:
    """Parse ``host``, ``host:port`` or ``[ipv6]:port`` into a host and a port of 1 to 65535.

    IPv6 must stand in brackets (RFC 3986 section 3.2.2). Without a port
    ``default_port`` holds; where that is None the port is required. Raises
    ``InputError``.
    """
    if text.startswith("["):
        end = text.find("]") + 1
        host_text, rest = text[:end], text[end:]
        if not end or (rest and not rest.startswith(":")):
            raise _refused(text, "the bracket is not closed, or no port follows it")
        colon, port_text = rest[:1], rest[1:]
    else:
        host_text, colon, port_text = text.partition(":")
        if ":" in port_text:
            raise _refused(text, "an IPv6 address must stand in brackets")
    if colon:
        return parse_host(host_text), _parse_port(port_text, text)
    if default_port is None:
        raise _refused(text, "the port is missing")
    return parse_host(host_text), default_port


def unwrap_address(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address inside an IPv4-mapped or IPv4-compatible one, else the same."""
    if isinstance(address, IPv4Address):
        return address
    value = int(address)
    if value >> 32 == 0xFFFF or (value >> 32 == 0 and value > 1):
        return IPv4Address(value & 0xFFFF_FFFF)
    return address


def _parse_port(text: str, authority: str) -> int:
    if not text or len(text) > 5 or not _DECIMAL.issuperset(text) or text.startswith("0"):
        raise _refused(authority, "the port is not a decimal number from 1 to 65535")
    port = int(text)
    if port > _PORT_MAX:
        raise _refused(authority, "the port is not a decimal number from 1 to 65535")
    return port


def _parse_ipv6(inner: str, text: str) -> Host:
    if "%" in inner:
        raise _refused(text, "zone ids are not accepted")
    try:
        address = IPv6Address(inner)
    except ValueError:
        raise _refused(text, "not an IPv6 address") from None
    return _address_host(unwrap_address(address))


def _address_host(address: IPv4Address | IPv6Address) -> Host:
    return Host(str(address), address)


def _is_number(label: str) -> bool:
    """Tell whether WHATWG's "ends in a number" holds for the last label."""
    if label and _DECIMAL.issuperset(label):
        return True
    return label.startswith("0x") and _HEX.issuperset(label[2:])


def _parse_ipv4(labels: list[str], text: str) -> IPv4Address:
    if len(labels) > 4:
        raise _refused(text, "ends in a number but is not an IPv4 address")
    parts = [_parse_ipv4_part(label, text) for label in labels]
    last_max = 256 ** (5 - len(parts)) - 1
    if any(part > 255 for part in parts[:-1]) or parts[-1] > last_max:
        raise _refused(text, "an IPv4 part is out of range")
    value = parts[-1]
    for index, part in enumerate(parts[:-1]):
        value += part << (8 * (3 - index))
    return IPv4Address(value)


def _parse_ipv4_part(label: str, text: str) -> int:
    digits, base, allowed = label, 10, _DECIMAL
    if label.startswith("0x"):
        digits, base, allowed = label[2:] or "0", 16, _HEX
    elif len(label) > 1 and label.startswith("0"):
        digits, base, allowed = label[1:], 8, _OCTAL
    if not digits or not allowed.issuperset(digits):
        raise _refused(text, "ends in a number but is not an IPv4 address")
    # 2**32 has 11 octal digits; leading zeros may be many, long values may not.
    if len(digits.lstrip("0")) > 11:
        raise _refused(text, "an IPv4 part is out of range")
    return int(digits, base)


def _mapped(text: str) -> str:
    """Apply the UTS 46 mapping and turn every label into an A-label."""
    try:
        name = idna.uts46_remap(text, std3_rules=False, transitional=False)
        labels = [
            label if label.isascii() else idna.alabel(label).decode("ascii")
            for label in name.split(".")
        ]
    except (idna.IDNAError, UnicodeError, ValueError, IndexError):
        raise _refused(text, "not a valid internationalised name") from None
    return ".".join(labels).lower()


def _check_label(label: str, text: str) -> None:
    if not label:
        raise _refused(text, "empty" if not text.strip(".") else "an empty label")
    if not _LABEL_CHARS.issuperset(label):
        raise _refused(text, f"{_bad_character(label)} is not part of a host")
    if len(label) > _LABEL_CHARS_MAX:
        raise _refused(text, f"a label is longer than {_LABEL_CHARS_MAX} characters")
    if label[0] == "-" or label[-1] == "-":
        raise _refused(text, "a label begins or ends with a hyphen")
    if label.startswith("xn--"):
        _check_a_label(label, text)


def _check_a_label(label: str, text: str) -> None:
    try:
        same = idna.alabel(idna.ulabel(label)).decode("ascii") == label
    except (idna.IDNAError, UnicodeError, ValueError, IndexError):
        same = False
    if not same:
        raise _refused(text, "an xn-- label is not valid punycode of a name")


def _bad_character(label: str) -> str:
    bad = next(character for character in label if character not in _LABEL_CHARS)
    if bad in _NAMED_BAD:
        return _NAMED_BAD[bad]
    return f"the character U+{ord(bad):04X}"


def _refused(text: str, why: str) -> InputError:
    # What stands before an @ may be a password.
    hidden = "..." + text[text.rfind("@") :] if "@" in text else text
    shown = hidden if len(hidden) <= _SHOWN_CHARS_MAX else hidden[:_SHOWN_CHARS_MAX] + "..."
    return InputError(f"host {shown!a} is refused: {why}")
