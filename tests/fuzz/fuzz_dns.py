"""Fuzz target: queries, and what upstream resolvers say, give a value or an InputError.

What is accepted as a query is read the same by dnspython, and every answer to it is an
answer to dnspython too.
"""

from __future__ import annotations

import contextlib

import dns.message
import dns.name

from aesp_proxy.errors import InputError
from aesp_proxy.normalize.dns import (
    Rcode,
    answer,
    failure_answer,
    malformed_answer,
    read_query,
    refusal,
)
from aesp_proxy.normalize.dns_answer import answers, read_answer, upstream_query


class FindingError(AssertionError):
    """A promise that did not hold."""


def fuzz_one(data: bytes) -> None:
    """Run one input; anything but a value or an InputError is a finding."""
    malformed_answer(data)
    failure_answer(data)
    for kind in (1, 28):
        with contextlib.suppress(InputError):
            read_answer(data, kind)
    query = upstream_query("a.example", 1, message_id=7, case_bits=5)
    if answers(data, query, exact=True) and not answers(data, query, exact=False):
        raise FindingError(data)
    with contextlib.suppress(InputError):
        _accepted(data)


def _accepted(data: bytes) -> None:
    ours = read_query(data)
    theirs = dns.message.from_wire(data, ignore_trailing=False)
    (asked,) = theirs.question
    name = dns.name.from_text(ours.host.name)
    if (asked.name, int(asked.rdtype), theirs.id) != (name, ours.type, ours.message_id):
        raise FindingError(data)
    for told in (
        answer(ours, [b"1234"] * 40 if ours.type == 1 else [], ttl_s=9),
        refusal(ours, Rcode.NXDOMAIN, "why"),
    ):
        if not theirs.is_response(dns.message.from_wire(told)):
            raise FindingError(told)
