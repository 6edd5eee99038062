"""DNS messages: one strict form of a query, and answers that any reader understands."""

from __future__ import annotations

from ipaddress import ip_address

import dns.edns
import dns.flags
import dns.message
import dns.rrset
import pytest
from fuzz_targets import load_target
from hypothesis import given, settings
from hypothesis import strategies as st

from aesp_proxy.errors import InputError
from aesp_proxy.normalize.dns import (
    QUERY_BYTES_MAX,
    Rcode,
    answer,
    failure_answer,
    malformed_answer,
    name_rdata,
    read_query,
    refusal,
    reversed_address,
    type_word,
)
from aesp_proxy.normalize.dns_answer import RECORDS_MAX, answers, read_answer, upstream_query

fuzz_dns = load_target("fuzz_dns").fuzz_one


def wire(name: str = "a.example", kind: str = "A", **how: object) -> bytes:
    # One id: the bytes stand in the names of tests, which are the same in every process.
    return dns.message.make_query(name, kind, id=0x1234, **how).to_wire()  # type: ignore[arg-type]


PLAIN = wire(use_edns=-1)
EDNS = wire(use_edns=0, payload=1_200, options=[dns.edns.GenericOption(10, b"cookie!!")])
NAME = b"\1a\7example\0"


# queries ---------------------------------------------------------------------------------


def test_a_query_is_read_and_its_name_is_canonical():
    question = read_query(wire("A.EXAMPLE", "AAAA", use_edns=0, payload=4_096))
    assert (question.host.name, question.type_word) == ("a.example", "AAAA")
    assert (question.edns, question.answer_bytes_max) == (True, 1_232)


@pytest.mark.parametrize(
    ("payload", "bytes_max"), [(0, 512), (100, 512), (800, 800), (65_535, 1_232)]
)
def test_the_size_that_a_client_takes_is_kept_within_bounds(payload, bytes_max):
    assert read_query(wire(use_edns=0, payload=payload)).answer_bytes_max == bytes_max
    assert read_query(PLAIN).answer_bytes_max == 512


def changed(data: bytes, at: int, *new: int) -> bytes:
    return data[:at] + bytes(new) + data[at + len(new) :]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PLAIN[:12],
        PLAIN[:-1],
        PLAIN[:-4],
        PLAIN[:16],
        PLAIN + b"\0",
        EDNS[:-1],
        EDNS + b"\0",
        EDNS + b"x" * QUERY_BYTES_MAX,
        changed(PLAIN, 2, 0x81),  # an answer
        changed(PLAIN, 2, 0x29),  # another opcode
        changed(PLAIN, 2, 0x03),  # truncated
        changed(PLAIN, 2, 0x05),  # authoritative
        changed(PLAIN, 3, 0x40),  # a reserved bit
        changed(PLAIN, 3, 0x05),  # a result code
        changed(PLAIN, 4, 0, 0),
        changed(PLAIN, 4, 0, 2),
        changed(PLAIN, 6, 0, 1),
        changed(PLAIN, 8, 0, 1),
        changed(PLAIN, 10, 0, 1),
        changed(EDNS, 10, 0, 2),
        changed(PLAIN, len(PLAIN) - 1, 3),  # class CH
        PLAIN.replace(NAME, b"\xc0\x0c"),
        PLAIN.replace(NAME, b"\1a\x47example\0"),
        PLAIN.replace(NAME, b"\0"),
        PLAIN.replace(NAME, b"\x03a.b\7example\0"),
        PLAIN.replace(NAME, b"\x02a \7example\0"),
        PLAIN.replace(NAME, b"\x02a\0\7example\0"),
        PLAIN.replace(NAME, b"\x02a\xe9\7example\0"),
        PLAIN.replace(NAME, b"\x0210\x011\x012\x013\0"),  # 10.1.2.3
        PLAIN.replace(NAME, (b"\x3f" + b"a" * 63) * 4 + b"\0"),
        EDNS.replace(b"\0\0\x29", b"\0\0\x10"),  # TXT in place of OPT
        EDNS.replace(b"\x04\xb0\0\0", b"\x04\xb0\0\1"),  # EDNS version 1
        EDNS.replace(b"\0\x0a\0\x08cookie", b"\0\x0a\0\x09cookie"),
        EDNS.replace(b"\0\x0a\0\x08cookie", b"\0\x0a\0\x05cookie"),
    ],
)  # fmt: skip
def test_what_is_not_one_ordinary_question_is_refused(data):
    with pytest.raises(InputError, match="refused"):
        read_query(data)


# answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [PLAIN, EDNS])
def test_an_answer_is_one_to_any_reader(query):
    question = read_query(query)
    told = dns.message.from_wire(answer(question, [ip_address("192.0.2.1").packed], ttl_s=7))
    assert dns.message.from_wire(query).is_response(told)
    assert [rrset.to_text() for rrset in told.answer] == ["a.example. 7 IN A 192.0.2.1"]
    assert told.flags & dns.flags.RA
    assert (told.edns == 0) == question.edns


def test_an_answer_that_is_too_long_is_cut_and_whole_over_a_stream():
    question = read_query(PLAIN)
    rdatas = [bytes((10, 0, 0, number)) for number in range(60)]
    cut = dns.message.from_wire(answer(question, rdatas, ttl_s=7))
    assert (bool(cut.flags & dns.flags.TC), cut.answer) == (True, [])
    whole = dns.message.from_wire(answer(question, rdatas, ttl_s=7, bytes_max=65_535))
    assert len(whole.answer[0]) == 60


def test_a_refusal_says_why_to_those_who_understand_it():
    told = dns.message.from_wire(refusal(read_query(EDNS), Rcode.NXDOMAIN, "host_blocked: é"))
    assert [option.to_text() for option in told.options] == ["EDE 15 (Blocked): host_blocked: ?"]
    plain = dns.message.from_wire(refusal(read_query(PLAIN), Rcode.NXDOMAIN, "host_blocked"))
    assert (plain.rcode(), plain.options) == (Rcode.NXDOMAIN, ())


def test_bytes_that_are_no_query_are_answered_unless_they_are_an_answer_themselves():
    told = dns.message.from_wire(malformed_answer(PLAIN + b"more"))
    assert (told.rcode(), told.id) == (Rcode.FORMERR, int.from_bytes(PLAIN[:2]))
    assert dns.message.from_wire(failure_answer(PLAIN)).rcode() == Rcode.SERVFAIL
    for data in (b"", PLAIN[:11], changed(PLAIN, 2, 0x81)):
        assert malformed_answer(data) == failure_answer(data) == b""


def test_reverse_names_are_read_and_names_written():
    assert reversed_address("1.2.0.192.in-addr.arpa") == ip_address("192.0.2.1")
    six = ip_address("2001:db8::1")
    assert reversed_address(six.reverse_pointer) == six
    for name in (
        "in-addr.arpa",
        "1.in-addr.arpa",
        "x.ip6.arpa",
        "a.example",
        "300.1.1.1.in-addr.arpa",
    ):
        assert reversed_address(name) is None
    assert name_rdata("a.example") == NAME
    assert (type_word(28), type_word(65_280)) == ("AAAA", "TYPE65280")


# upstream --------------------------------------------------------------------------------

QUERY = upstream_query("a.example", 1, message_id=4_660, case_bits=0b11)


def upstream_answer(*lines: str, query: bytes = QUERY, rcode: int = 0) -> bytes:
    made = dns.message.make_response(dns.message.from_wire(query))
    made.set_rcode(rcode)
    for line in lines:
        owner, ttl, _, kind, data = line.split(maxsplit=4)
        section = made.authority if kind == "SOA" else made.answer
        section.append(dns.rrset.from_text(owner, int(ttl), "IN", kind, data))
    return made.to_wire(max_size=65_535)


def test_a_query_upstream_has_the_case_that_was_drawn_and_nothing_else():
    read = dns.message.from_wire(QUERY)
    assert read.question[0].to_text() == "A.Example. IN A"
    assert (read.id, read.flags, read.options) == (4_660, dns.flags.RD, ())


def test_only_what_repeats_id_question_and_case_is_an_answer():
    good = upstream_answer("a.example. 5 IN A 192.0.2.1")
    assert answers(good, QUERY, exact=True)
    assert not answers(QUERY, QUERY, exact=True)
    assert not answers(changed(good, 0, 0), QUERY, exact=False)
    assert not answers(good.replace(b"Example", b"Examplf"), QUERY, exact=False)
    other_case = good.replace(b"\1A\7Example", b"\1a\7example")
    assert not answers(other_case, QUERY, exact=True)
    assert answers(other_case, QUERY, exact=False)


def test_a_chain_is_flattened_and_its_shortest_time_holds():
    found = read_answer(upstream_answer(
        "a.example. 90 IN CNAME b.test.", "b.test. 7 IN CNAME c.test.",
        "c.test. 60 IN A 192.0.2.1", "other.test. 1 IN A 10.0.0.1"), 1)  # fmt: skip
    assert (found.addresses, found.ttl_s) == ((ip_address("192.0.2.1"),), 7)


@pytest.mark.parametrize(("rcode", "exists"), [(0, True), (3, False)])
def test_what_there_is_not_holds_as_long_as_its_zone_says(rcode, exists):
    soa = "example. 40 IN SOA ns.example. a.example. 1 2 3 4 25"
    found = read_answer(upstream_answer(soa, rcode=rcode), 1)
    assert (found.exists, found.rdatas, found.ttl_s) == (exists, (), 25)
    assert read_answer(upstream_answer(rcode=rcode), 1).ttl_s == 0


def test_an_answer_to_a_question_of_another_type_is_none():
    with pytest.raises(InputError, match="another question"):
        read_answer(upstream_answer("a.example. 5 IN A 192.0.2.1"), 28)


def test_a_loop_and_a_very_long_answer_are_bounded():
    loop = ["a.example. 5 IN CNAME b.test.", "b.test. 5 IN CNAME a.example."]
    with pytest.raises(InputError, match="cannot be read"):
        read_answer(upstream_answer(*loop), 1)
    many = [f"a.example. 5 IN A 93.1.{n}.1" for n in range(200)]
    assert len(read_answer(upstream_answer(*many), 1).addresses) == RECORDS_MAX


# fuzzing ---------------------------------------------------------------------------------

_WORDS = st.sampled_from(
    [PLAIN[:12], EDNS[:12], PLAIN, EDNS, upstream_answer("a.example. 5 IN A 192.0.2.1"), NAME,
     b"\0\1\0\1", b"\0\x29\x04\xd0\0\0\0\0\0\0", b"\xc0\x0c", b"\0\5\0\1\0\0\0\1\0\2", b"\1a"]
)  # fmt: skip


@settings(max_examples=400)
@given(st.lists(st.one_of(_WORDS, st.binary(max_size=6)), max_size=8).map(b"".join))
def test_any_bytes_are_a_message_or_an_input_error(data: bytes) -> None:
    fuzz_dns(data)


@settings(max_examples=400)
@given(
    st.sampled_from([PLAIN, EDNS, upstream_answer("a.example. 5 IN A 192.0.2.1")]),
    st.integers(0, 80),
    st.binary(min_size=1, max_size=3),
)
def test_a_message_with_a_few_bytes_changed_is_one_or_an_input_error(
    data: bytes, at: int, new: bytes
) -> None:
    fuzz_dns(changed(data, at, *new))
