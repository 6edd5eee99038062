"""DNS queries of the agent: one strict form or an ``InputError``; and the answers to them.

What is accepted is what stub resolvers send (RFC 1035 section 4.1): one question, class
IN, an ordinary query, at most one EDNS record (RFC 6891) whose options are skipped. A
name in a question is never compressed, so nothing here follows a pointer. Nothing of the
agent's bytes goes further than the canonical name and the type; the question is kept only
to be echoed. Answers carry final addresses, never the chain that led to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import Final

from aesp_proxy.errors import InputError
from aesp_proxy.model.host import Host, parse_host

QUERY_BYTES_MAX: Final = 1_024
UDP_BYTES_MAX: Final = 1_232  # fits an IPv6 packet of the smallest MTU: no fragments
_PLAIN_UDP_BYTES_MAX: Final = 512  # RFC 1035 section 4.2.1
_NAME_BYTES_MAX: Final = 255
_LABEL_BYTES_MAX: Final = 63
_CLASS_IN: Final = 1
_TYPE_OPT: Final = 41
_OPTION_ERROR: Final = 15  # RFC 8914
_BLOCKED: Final = 15  # RFC 8914 section 4.16: by a policy of the operator of the server

_HEADER: Final = Struct("!6H")
_QUESTION: Final = Struct("!2H")
_RECORD: Final = Struct("!HHIH")
_OPTION: Final = Struct("!2H")

_RESPONSE: Final = 0x8000
_RECURSES: Final = 0x0080
_TRUNCATED: Final = 0x0200
# RD, AD and CD; every other bit of a query's flags is zero.
_FLAGS_OF_QUERY: Final = 0x0130
_FLAGS_ECHOED: Final = 0x0110

Address = IPv4Address | IPv6Address


class Rcode(IntEnum):
    """How a query went (RFC 1035 section 4.1.1)."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    REFUSED = 5


class RecordType(IntEnum):
    """The types of record that are known by a word here."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    NULL = 10
    PTR = 12
    MX = 15
    TXT = 16
    AAAA = 28
    SRV = 33
    NAPTR = 35
    SVCB = 64
    HTTPS = 65
    CAA = 257
    AXFR = 252
    ANY = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One query. ``question`` is its section as sent; ``edns`` whether it had such a record."""

    message_id: int
    flags: int
    host: Host
    type: int
    question: bytes
    edns: bool
    answer_bytes_max: int

    @property
    def type_word(self) -> str:
        """The type as a word, ``TYPE123`` (RFC 3597) where it has none."""
        return type_word(self.type)


def type_word(number: int) -> str:
    """Return the word of a type of record, ``TYPE123`` (RFC 3597) where there is none here."""
    try:
        return RecordType(number).name
    except ValueError:
        return f"TYPE{number}"


def read_query(data: bytes) -> Question:
    """Read one query; ``InputError`` for everything else."""
    if not _HEADER.size < len(data) <= QUERY_BYTES_MAX:
        raise _refused(f"{len(data)} bytes are not a query's size")
    message_id, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
    if flags & ~_FLAGS_OF_QUERY:
        raise _refused("its flags are not those of an ordinary query")
    if questions != 1 or answers or authorities or additional > 1:
        raise _refused("it does not hold one question and at most one EDNS record")
    name, end = _read_name(data, _HEADER.size)
    if end + _QUESTION.size > len(data):
        raise _refused("it ends in its question")
    record_type, record_class = _QUESTION.unpack_from(data, end)
    end += _QUESTION.size
    question = data[_HEADER.size : end]
    if record_class != _CLASS_IN:
        raise _refused("its class is not IN")
    bytes_max = _PLAIN_UDP_BYTES_MAX
    if additional:
        payload, end = _read_edns(data, end)
        bytes_max = min(max(payload, bytes_max), UDP_BYTES_MAX)
    if end != len(data):
        raise _refused("bytes follow its end")
    host = parse_host(name)
    if host.address is not None:
        raise _refused("an address is no name to ask for")
    return Question(
        message_id=message_id,
        flags=flags,
        host=host,
        type=record_type,
        question=question,
        edns=bool(additional),
        answer_bytes_max=bytes_max,
    )


def _read_name(data: bytes, at: int) -> tuple[str, int]:
    labels: list[bytes] = []
    start = at
    while True:
        if at >= len(data):
            raise _refused("it ends in its name")
        length = data[at]
        at += 1
        if not length:
            break
        if length > _LABEL_BYTES_MAX:
            raise _refused("a label is longer than 63 bytes, or compressed")
        label = data[at : at + length]
        if len(label) != length or b"." in label or not label.isascii():
            raise _refused("a label is cut, or holds a dot or a byte beyond ASCII")
        labels.append(label)
        at += length
        if at - start >= _NAME_BYTES_MAX:
            raise _refused("its name is longer than 255 bytes")
    if not labels:
        raise _refused("the root is no host")
    return b".".join(labels).decode("ascii"), at


def _read_edns(data: bytes, at: int) -> tuple[int, int]:
    """Return the payload size that the client takes, and where the record ends."""
    head = data[at : at + 1 + _RECORD.size]
    if len(head) != 1 + _RECORD.size or head[0]:
        raise _refused("its additional record is not EDNS")
    record_type, payload, flags, length = _RECORD.unpack_from(head, 1)
    if record_type != _TYPE_OPT or flags >> 16:
        raise _refused("its additional record is not EDNS version 0")
    at += len(head)
    end = at + length
    if end > len(data):
        raise _refused("it ends in its EDNS options")
    while at < end:
        if at + _OPTION.size > end:
            raise _refused("an EDNS option is cut")
        at += _OPTION.size + _OPTION.unpack_from(data, at)[1]
    if at != end:
        raise _refused("an EDNS option is longer than its record")
    return payload, end


# answers ------------------------------------------------------------------------------


def answer(
    question: Question,
    rdatas: Sequence[bytes],
    *,
    ttl_s: int,
    bytes_max: int | None = None,
) -> bytes:
    """Build the answer with these records of the type asked for; none is "no such record".

    Where it is longer than ``bytes_max`` (None: what the query says) it comes without
    records and truncated, and the client asks again over TCP (RFC 2181 section 9).
    """
    head = _RECORD.pack  # every record's name is a pointer to the question's
    records = b"".join(
        b"\xc0\x0c" + head(question.type, _CLASS_IN, ttl_s, len(rdata)) + rdata for rdata in rdatas
    )
    whole = _message(question, Rcode.NOERROR, len(rdatas), records, b"")
    if len(whole) <= (question.answer_bytes_max if bytes_max is None else bytes_max):
        return whole
    return _message(question, Rcode.NOERROR | _TRUNCATED, 0, b"", b"")


def refusal(question: Question, rcode: Rcode, told: str = "") -> bytes:
    """Build an answer without records; ``told`` goes along as the reason (RFC 8914)."""
    if not told:
        return _message(question, rcode, 0, b"", b"")
    text = told.encode("ascii", "replace")[:200]
    data = _BLOCKED.to_bytes(2) + text
    return _message(question, rcode, 0, b"", _OPTION.pack(_OPTION_ERROR, len(data)) + data)


def malformed_answer(data: bytes) -> bytes:
    """Build the answer to bytes that are no query; empty where nothing may be answered."""
    if len(data) < _HEADER.size or data[2] & 0x80:  # an answer to an answer would never end
        return b""
    flags = _RESPONSE | _RECURSES | Rcode.FORMERR | (data[2] & 0x79) << 8
    return data[:2] + _HEADER.pack(0, flags, 0, 0, 0, 0)[2:]


def failure_answer(data: bytes) -> bytes:
    """Build "try later" for a query that was not even read; empty where there is no query."""
    told = malformed_answer(data)
    return told and told[:3] + bytes((told[3] & 0xF0 | Rcode.SERVFAIL,)) + told[4:]


def address_rdata(address: Address) -> bytes:
    """Return the data of an A or AAAA record."""
    return address.packed


def name_rdata(name: str) -> bytes:
    """Return a canonical name as the data of a record."""
    labels = name.encode("ascii").split(b".")
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def reversed_address(name: str) -> Address | None:
    """Return the address that a reverse name asks about (RFC 1035 3.5, RFC 3596 2.5)."""
    labels = name.split(".")
    try:
        match labels[-2:]:
            case ["in-addr", "arpa"]:
                return IPv4Address(".".join(reversed(labels[:-2])))
            case ["ip6", "arpa"] if all(len(label) == 1 for label in labels[:-2]):
                digits = "".join(reversed(labels[:-2]))
                return IPv6Address(int(digits, 16)) if len(digits) == 32 else None
            case _:
                return None
    except ValueError:
        pass
    return None


def _message(question: Question, code: int, count: int, records: bytes, options: bytes) -> bytes:
    flags = _RESPONSE | _RECURSES | question.flags & _FLAGS_ECHOED | code
    head = _HEADER.pack(question.message_id, flags, 1, count, 0, int(question.edns))
    edns = b""
    if question.edns:
        edns = b"\0" + _RECORD.pack(_TYPE_OPT, UDP_BYTES_MAX, 0, len(options)) + options
    return b"".join((head, question.question, records, edns))


def _refused(why: str) -> InputError:
    return InputError(f"a DNS query is refused: {why}")
