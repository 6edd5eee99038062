"""Names: what is answered, what is refused, and that nothing of it reaches the upstream."""

from __future__ import annotations

import socket
import threading

import dns.edns
import dns.message
import dns.query
import dns.rcode
import pytest
from dns_lab import POLICY, PUBLIC, DnsLab

from aesp_proxy.daemon.name_budget import BudgetLimits


def told(answer: dns.message.Message) -> str:
    """Return the reason that goes with an answer."""
    return next((option.text or "" for option in answer.options
                 if isinstance(option, dns.edns.EDEOption)), "")  # fmt: skip


# what is answered ------------------------------------------------------------------------


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize("edns", [None, 0])
def test_an_allowed_name_is_resolved_upstream_remembered_and_recorded(dns_lab, tcp, edns):
    lab: DnsLab = dns_lab()
    lab.upstream.say("allowed.test", "A", [f"allowed.test. 60 IN A {PUBLIC}"])
    assert lab.addresses("Allowed.TEST", tcp=tcp, edns=edns) == [PUBLIC]
    assert lab.names.of(dns_address(PUBLIC), now=lab.now) == ("allowed.test",)
    decided, outcome = lab.journal.records
    assert (decided.action, decided.target_host, decided.target_path) == (
        "dns.query", "allowed.test", "A")  # fmt: skip
    assert (decided.verdict, outcome.message, outcome.outcome) == ("allow", PUBLIC, "SUCCESS")


def dns_address(text: str):
    from ipaddress import ip_address

    return ip_address(text)


def test_a_name_without_such_a_record_and_a_name_that_does_not_exist_are_told_apart(dns_lab):
    lab: DnsLab = dns_lab()
    lab.upstream.say("allowed.test", "A", [f"allowed.test. 60 IN A {PUBLIC}"])
    assert (lab.rcode("allowed.test", "AAAA"), lab.addresses("allowed.test", "AAAA")) == (
        "NOERROR", [])  # fmt: skip
    assert lab.rcode("no.sub.test") == "NXDOMAIN"


def test_aliases_are_followed_and_only_the_end_is_told_for_the_shortest_time(dns_lab):
    lab: DnsLab = dns_lab()
    chain = ["allowed.test. 90 IN CNAME a.elsewhere.example.",
             "a.elsewhere.example. 7 IN CNAME b.elsewhere.example.",
             f"b.elsewhere.example. 80 IN A {PUBLIC}"]  # fmt: skip
    lab.upstream.say("allowed.test", "A", chain)
    answer = lab.ask("allowed.test")
    assert [rrset.to_text() for rrset in answer.answer] == [f"allowed.test. 7 IN A {PUBLIC}"]
    assert lab.upstream.names() == {"allowed.test"}


def test_a_time_to_live_is_capped_and_an_answer_kept_for_what_is_left_of_it(dns_lab):
    lab: DnsLab = dns_lab()
    lab.upstream.say("allowed.test", "A", [f"allowed.test. 99999 IN A {PUBLIC}"])
    assert lab.ask("allowed.test").answer[0].ttl == 300
    lab.now += 100
    assert lab.ask("allowed.test").answer[0].ttl == 200
    assert len(lab.upstream.seen) == 1
    lab.now += 200
    lab.ask("allowed.test")
    assert len(lab.upstream.seen) == 2


def test_who_asks_at_the_same_time_is_answered_by_one_query(dns_lab):
    lab: DnsLab = dns_lab(timeout_s=5)
    lab.upstream.say("allowed.test", "A", [f"allowed.test. 60 IN A {PUBLIC}"])
    asking = [threading.Thread(target=lab.ask, args=("allowed.test",)) for _ in range(8)]
    for each in asking:
        each.start()
    for each in asking:
        each.join()
    assert len(lab.upstream.seen) == 1
    assert len(lab.journal.records) == 16  # each is decided and recorded by itself


def test_what_does_not_fit_a_datagram_is_told_over_tcp(dns_lab):
    lab: DnsLab = dns_lab()
    lab.upstream.say("allowed.test", "A", "many")
    cut = lab.ask("allowed.test", edns=None)
    assert cut.flags & dns.flags.TC
    assert not cut.answer
    assert len(lab.addresses("allowed.test", tcp=True)) == 64


def test_the_operators_addresses_are_told_without_asking_and_without_a_check(dns_lab):
    lab: DnsLab = dns_lab(static={"allowed.test": "10.9.9.9"})
    assert lab.addresses("allowed.test") == ["10.9.9.9"]
    assert lab.addresses("allowed.test", "AAAA") == []
    assert lab.upstream.seen == []


def test_for_a_loopback_address_the_agent_is_told_one_that_leads_to_the_proxy(dns_lab):
    lab: DnsLab = dns_lab(static={"allowed.test": "127.0.0.1", "a.sub.test": "::1"})
    assert lab.addresses("allowed.test") == ["198.18.0.1"]
    assert lab.addresses("a.sub.test", "AAAA") == ["2001:2::2"]
    assert lab.addresses("allowed.test") == ["198.18.0.1"]
    late = lab.now + 80_000
    assert lab.names.of(dns_address("198.18.0.1"), now=late) == ("allowed.test",)
    assert lab.names.of(dns_address("2001:2::2"), now=late) == ("a.sub.test",)
    assert "127.0.0.1" in {record.message for record in lab.journal.records}


def test_a_name_of_one_label_is_looked_for_in_the_operators_domains(dns_lab):
    policy = POLICY.replace('"allowed.test"', '"git"')
    lab: DnsLab = dns_lab(policy, search=("no.example", "corp.example"))
    lab.upstream.say("git.corp.example", "A", [f"git.corp.example. 60 IN A {PUBLIC}"])
    answer = lab.ask("git")
    assert [rrset.to_text() for rrset in answer.answer] == [f"git. 60 IN A {PUBLIC}"]
    assert [name for _, name, _ in lab.upstream.seen] == ["git.no.example", "git.corp.example"]


def test_localhost_and_reverse_lookups_never_leave(dns_lab):
    lab: DnsLab = dns_lab()
    assert lab.addresses("localhost") == ["127.0.0.1"]
    assert lab.addresses("a.localhost", "AAAA") == ["::1"]
    reverse = "14.215.184.93.in-addr.arpa"
    assert lab.rcode(reverse, "PTR") == "NXDOMAIN"
    lab.upstream.say("allowed.test", "A", [f"allowed.test. 60 IN A {PUBLIC}"])
    lab.ask("allowed.test")
    assert lab.addresses(reverse, "PTR") == ["allowed.test."]
    assert lab.upstream.names() == {"allowed.test"}


# what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("evil.example", "host_not_allowed"),
        ("allowed.test.evil.example", "host_not_allowed"),
        ("sub.test", "host_not_allowed"),
        ("evil.sub.test", "host_blocked"),
    ],
)
def test_a_refused_name_fails_at_once_says_why_and_never_reaches_the_upstream(
    dns_lab, name, reason
):
    lab: DnsLab = dns_lab()
    answer = lab.ask(name)
    assert answer.rcode() == dns.rcode.NXDOMAIN
    assert told(answer).startswith(f"{reason}: ")
    assert lab.reasons() == [reason]
    assert lab.upstream.seen == []


def test_a_name_that_is_allowed_on_an_odd_port_only_is_resolved(dns_lab):
    lab: DnsLab = dns_lab()
    lab.upstream.say("odd.test", "A", [f"odd.test. 60 IN A {PUBLIC}"])
    assert lab.addresses("odd.test") == [PUBLIC]


@pytest.mark.parametrize("kind", ["HTTPS", "SVCB"])
def test_records_that_carry_ech_keys_are_withheld(dns_lab, kind):
    lab: DnsLab = dns_lab()
    answer = lab.ask("allowed.test", kind)
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
    assert lab.upstream.seen == []
    assert lab.journal.records[-1].message == f"{kind} records are withheld"


@pytest.mark.parametrize("kind", ["TXT", "MX", "NULL", "ANY", "AXFR", "CNAME", "TYPE65280"])
def test_other_types_are_refused_and_recorded(dns_lab, kind):
    lab: DnsLab = dns_lab()
    query = dns.message.make_query("allowed.test", kind, use_edns=0)
    answer = dns.message.from_wire(lab.send(query.to_wire()))
    assert answer.rcode() == dns.rcode.REFUSED
    assert lab.reasons()[-1] == "unsupported"
    assert lab.upstream.seen == []


def test_types_that_the_operator_lists_are_passed_on(dns_lab):
    lab: DnsLab = dns_lab(types=frozenset({16}))
    lab.upstream.say("allowed.test", "TXT", ['allowed.test. 60 IN TXT "a=b"'])
    assert lab.addresses("allowed.test", "TXT") == ['"a=b"']


@pytest.mark.parametrize("records", [["10.0.0.1"], [PUBLIC, "127.0.0.1"], ["169.254.169.254"]])
def test_an_answer_with_a_forbidden_address_never_reaches_the_agent(dns_lab, records):
    lab: DnsLab = dns_lab()
    lab.upstream.say("allowed.test", "A", [f"allowed.test. 60 IN A {each}" for each in records])
    answer = lab.ask("allowed.test")
    assert (answer.rcode(), answer.answer) == (dns.rcode.NXDOMAIN, [])
    assert told(answer).startswith("address_forbidden: allowed.test resolves to ")
    assert lab.reasons() == ["allowed", "address_forbidden", "address_forbidden"]
    assert lab.names.of(dns_address(records[0]), now=lab.now) == ()


def test_a_name_that_is_rebound_to_a_private_address_is_refused_from_then_on(dns_lab):
    lab: DnsLab = dns_lab()
    lab.upstream.say("allowed.test", "A", [f"allowed.test. 5 IN A {PUBLIC}"],
                     ["allowed.test. 5 IN A 192.168.0.1"])  # fmt: skip
    assert lab.addresses("allowed.test") == [PUBLIC]
    lab.now += 5
    assert lab.rcode("allowed.test") == "NXDOMAIN"
    assert "address_forbidden" in lab.reasons()


def test_a_private_address_that_the_policy_names_is_told(dns_lab):
    lab: DnsLab = dns_lab()
    lab.upstream.say("inside.test", "A", ["inside.test. 60 IN A 10.1.2.3"])
    assert lab.addresses("inside.test") == ["10.1.2.3"]


def test_data_in_labels_under_an_allowed_suffix_is_stopped(dns_lab):
    limits = BudgetLimits(names_per_minute_max=3)
    lab: DnsLab = dns_lab(budget=limits)
    secret = "4d5a" * 12 + "x"
    assert lab.rcode(f"{secret}.sub.test") == "NXDOMAIN"
    spread = "k7q2x9v4m1z8c5n3b6w0j" + "."
    assert told(lab.ask(f"{spread * 4}sub.test")).startswith("limit_exceeded: ")
    assert lab.upstream.seen == []
    for number in range(20):
        lab.ask(f"part-{number}.sub.test")
    assert lab.upstream.names() == {f"part-{n}.sub.test" for n in range(3)}
    assert lab.reasons().count("limit_exceeded") == 2 + 17
    # What is known stays free, and time gives new ones.
    assert told(lab.ask("part-0.sub.test")) == ""
    lab.now += 20
    assert told(lab.ask("part-9.sub.test")) == ""


def test_the_case_of_letters_and_the_options_of_a_query_go_nowhere(dns_lab):
    lab: DnsLab = dns_lab()
    cookie = dns.edns.GenericOption(10, b"12345678")
    for _ in range(3):
        query = dns.message.make_query("aLLoWeD.test", "A", options=[cookie])
        dns.query.udp(query, "127.0.0.1", port=lab.port, timeout=10)
        lab.now += 400
    assert lab.upstream.names() == {"allowed.test"}
    assert "aLLoWeD.test" not in lab.upstream.spelled


def test_bytes_that_are_no_query_are_refused_and_recorded(dns_lab):
    lab: DnsLab = dns_lab()
    good = dns.message.make_query("allowed.test", "A", use_edns=0).to_wire()
    two = dns.message.make_query("allowed.test", "A")
    two.question.append(dns.message.make_query("evil.example", "A").question[0])
    for data in (good + b"\0", two.to_wire(), good[:20], good.replace(b"\0\1\0\1", b"\0\1\0\3")):
        answer = dns.message.from_wire(lab.send(data))
        assert answer.rcode() == dns.rcode.FORMERR
    assert set(lab.reasons()) == {"malformed"}
    assert {record.action for record in lab.journal.records} == {"dns.query"}
    assert lab.addresses("localhost") == ["127.0.0.1"]


def test_a_flood_is_told_once_a_second_and_not_looked_at(dns_lab):
    lab: DnsLab = dns_lab(queries_per_s_max=4, burst_s=1.0)
    codes = [lab.rcode(f"x{number}.evil.example") for number in range(30)]
    assert codes == ["NXDOMAIN"] * 4 + ["SERVFAIL"] * 26
    assert lab.reasons().count("limit_exceeded") == 1
    assert len(lab.journal.records) == 5
    lab.now += 1
    assert lab.rcode("y.evil.example") == "NXDOMAIN"


def test_more_queries_at_once_than_allowed_are_not_looked_at(dns_lab):
    lab: DnsLab = dns_lab(in_flight_max=1, timeout_s=3)
    lab.upstream.say("allowed.test", "A", "silent")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waiting:
        waiting.connect(("127.0.0.1", lab.port))
        waiting.send(dns.message.make_query("allowed.test", "A").to_wire())
        assert lab.rcode("evil.example") == "SERVFAIL"
        assert lab.reasons() == ["allowed", "limit_exceeded"]
        # The one that waits ends by itself, before the lab does.
        waiting.settimeout(30)
        assert dns.message.from_wire(waiting.recv(4_096)).rcode() == dns.rcode.SERVFAIL


def test_what_cannot_be_recorded_is_not_answered(dns_lab):
    lab: DnsLab = dns_lab()
    lab.journal.broken = True
    assert lab.rcode("allowed.test") == "SERVFAIL"
    assert lab.upstream.seen == []


def test_a_resolver_that_fails_answers_later_and_records_it(dns_lab, monkeypatch):
    lab: DnsLab = dns_lab()
    lab.upstream.say("allowed.test", "A", [f"allowed.test. 60 IN A {PUBLIC}"])

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(type(lab.resolver), "lookup", broken)
    assert lab.rcode("allowed.test") == "SERVFAIL"
    assert lab.reasons()[-1] == "interceptor_failed"


# what upstream does ----------------------------------------------------------------------


@pytest.mark.parametrize("deed", ["silent", "SERVFAIL", "REFUSED", "garbage"])
def test_an_upstream_that_does_not_answer_is_a_failure_that_is_recorded(dns_lab, deed):
    lab: DnsLab = dns_lab(timeout_s=0.1)
    lab.upstream.say("allowed.test", "A", deed)
    assert lab.rcode("allowed.test") == "SERVFAIL"
    assert lab.reasons() == ["allowed", "upstream_failed"]
    assert len(lab.upstream.seen) == 2  # asked twice, and not kept
    lab.upstream.say("allowed.test", "A", [f"allowed.test. 60 IN A {PUBLIC}"])
    assert lab.addresses("allowed.test") == [PUBLIC]


@pytest.mark.parametrize("deed", ["truncated", "case"])
def test_an_answer_that_is_cut_or_has_another_case_is_asked_for_over_tcp(dns_lab, deed):
    lab: DnsLab = dns_lab()
    lab.upstream.say("allowed.test", "A", deed)
    assert lab.addresses("allowed.test") == [PUBLIC]
    # On a busy machine an answer may come late, and is asked for again.
    *first, last = [over for over, _, _ in lab.upstream.seen]
    assert set(first) == {"udp"}
    assert last == "tcp"


def test_forged_answers_alone_are_no_answer(dns_lab):
    lab: DnsLab = dns_lab(timeout_s=0.1)
    lab.upstream.say("allowed.test", "A", "lies")
    assert lab.rcode("allowed.test") == "SERVFAIL"
    assert lab.reasons() == ["allowed", "upstream_failed"]


def test_forged_answers_that_guess_the_id_wrong_are_waited_past(dns_lab):
    lab: DnsLab = dns_lab()
    lab.upstream.say("allowed.test", "A", "forged")
    assert lab.addresses("allowed.test") == [PUBLIC]


def test_each_query_upstream_is_spelled_by_chance(dns_lab):
    lab: DnsLab = dns_lab()
    for _ in range(6):
        lab.ask("long-name-of-many-letters.sub.test")
        lab.now += 400
    assert len(set(lab.upstream.spelled)) > 1


# sockets ---------------------------------------------------------------------------------


def test_a_wildcard_socket_answers_from_the_address_it_was_asked_at(dns_lab):
    lab: DnsLab = dns_lab()
    wildcard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    wildcard.bind(("0.0.0.0", 0))
    port = wildcard.getsockname()[1]
    lab.call(lambda: lab.listeners.serve_udp(wildcard))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.connect(("127.0.0.5", port))  # a connected socket takes nothing from elsewhere
        query = dns.message.make_query("localhost", "A")
        client.send(query.to_wire())
        assert query.is_response(dns.message.from_wire(client.recv(1_000)))


def test_many_queries_come_over_one_connection_and_silence_ends_it(dns_lab):
    lab: DnsLab = dns_lab(idle_s_max=0.2)
    query = dns.message.make_query("localhost", "A")
    with socket.create_connection(("127.0.0.1", lab.port), 10) as client:
        for _ in range(3):
            dns.query.send_tcp(client, query)
            answer, _ = dns.query.receive_tcp(client)
            assert query.is_response(answer)
        assert client.recv(1) == b""


def test_more_connections_than_allowed_and_frames_that_are_too_long_are_closed(dns_lab):
    lab: DnsLab = dns_lab(connections_max=1)
    with socket.create_connection(("127.0.0.1", lab.port), 10) as first:
        dns.query.send_tcp(first, dns.message.make_query("localhost", "A"))
        dns.query.receive_tcp(first)
        with socket.create_connection(("127.0.0.1", lab.port), 10) as second:
            assert second.recv(1) == b""
        first.sendall(b"\xff\xff" + b"\0" * 1_025)
        answer, _ = dns.query.receive_tcp(first)
        assert answer.rcode() == dns.rcode.FORMERR
        assert first.recv(1) == b""
    assert lab.reasons() == ["malformed"]
