"""Queries to upstream resolvers and what they answer: read once, flattened, bounded.

An answer counts only if it has the id, the question and the spelling that were sent: the
case of each letter is drawn by chance (draft-vixie-dnsext-dns0x20), so that whoever forges
answers must guess it too. Aliases are followed inside the answer; what is handed on are the
records at their end and the shortest time to live on the way.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import Struct
from typing import Final

import dns.exception
import dns.message
import dns.rdataclass

from aesp_proxy.errors import InputError
from aesp_proxy.normalize.dns import UDP_BYTES_MAX, RecordType

RECORDS_MAX: Final = 64
RDATA_BYTES_MAX: Final = 4_096
_HEADER: Final = Struct("!6H")
_RECURSION_DESIRED: Final = 0x0100
_EDNS: Final = b"\0" + Struct("!HHIH").pack(41, UDP_BYTES_MAX, 0, 0)
_EDNS_BYTES: Final = len(_EDNS)
_NOERROR, _NXDOMAIN = 0, 3

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a name has of one type. ``exists`` is False where the name itself does not.

    ``rdatas`` are the records' data, uncompressed; ``addresses`` the same of A and AAAA.
    ``ttl_s`` is the shortest of the chain, or that of "there is none" (RFC 2308).
    """

    exists: bool
    ttl_s: int
    rdatas: tuple[bytes, ...] = ()
    addresses: tuple[Address, ...] = ()


def upstream_query(name: str, record_type: int, *, message_id: int, case_bits: int) -> bytes:
    """Build a query for a canonical name; ``case_bits`` (any size) turn letters to capitals."""
    wire = bytearray()
    for label in name.encode("ascii").split(b"."):
        wire.append(len(label))
        for byte in label:
            capital = case_bits & 1 and 0x61 <= byte <= 0x7A
            wire.append(byte - 0x20 if capital else byte)
            case_bits >>= 1
    head = _HEADER.pack(message_id, _RECURSION_DESIRED, 1, 0, 0, 1)
    return b"".join((head, bytes(wire), b"\0", Struct("!2H").pack(record_type, 1), _EDNS))


def answers(data: bytes, query: bytes, *, exact: bool) -> bool:
    """Tell whether bytes are an answer to the query; ``exact``: letters in the same case."""
    question = query[_HEADER.size : -_EDNS_BYTES]
    given = data[_HEADER.size : _HEADER.size + len(question)]
    same = given == question if exact else given.lower() == question.lower()
    return same and data[:2] == query[:2] and data[2] & 0xF8 == 0x80 and data[4:6] == b"\0\1"


def is_truncated(data: bytes) -> bool:
    """Tell whether an answer was cut, so that it must be asked for over TCP."""
    return bool(data[2] & 0x02)


def rcode_of(data: bytes) -> int:
    """Return the result code of an answer."""
    return data[3] & 0x0F


def read_answer(data: bytes, record_type: int) -> Resolved:
    """Read an answer to a query for ``record_type``; ``InputError`` where it makes no sense."""
    try:
        message = dns.message.from_wire(data)
        if not isinstance(message, dns.message.QueryMessage):
            raise InputError("an upstream resolver's answer is no answer to a query")
        chain = message.resolve_chaining()
    except (dns.exception.DNSException, ValueError, struct.error, IndexError) as error:
        told = type(error).__name__
        raise InputError(f"an upstream resolver's answer cannot be read: {told}") from None
    if [int(asked.rdtype) for asked in message.question] != [record_type]:
        raise InputError("an upstream resolver's answer is to another question")
    exists = message.rcode() != _NXDOMAIN
    ttl_s = max(0, min(int(chain.minimum_ttl), 2**31 - 1))
    if chain.answer is None or not exists:
        # Without an SOA nothing says how long it holds (RFC 2308 section 5).
        return Resolved(exists=exists, ttl_s=ttl_s if message.authority else 0)
    found = [item for item in chain.answer if item.rdclass == dns.rdataclass.IN][:RECORDS_MAX]
    rdatas = tuple(item.to_wire() or b"" for item in found)
    if any(len(rdata) > RDATA_BYTES_MAX for rdata in rdatas):
        raise InputError("an upstream resolver's answer holds a record that is too long")
    addresses: tuple[Address, ...] = ()
    if record_type in (RecordType.A, RecordType.AAAA):
        addresses = tuple(ip_address(rdata) for rdata in rdatas)
    return Resolved(exists=True, ttl_s=ttl_s, rdatas=rdatas, addresses=addresses)
