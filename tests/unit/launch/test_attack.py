"""The attacks of ``doctor``: their words, their canaries, and how they are judged."""

from __future__ import annotations

import base64
import gzip
import socket
import ssl
import struct
import tomllib
from pathlib import Path

import pytest

from aesp_proxy.launch.attack import agent
from aesp_proxy.launch.attack.canary import Canaries, answer_to, is_whole
from aesp_proxy.launch.attack.catalogue import CAPTURED, CATALOGUE, UNWALLED
from aesp_proxy.launch.attack.direct import question
from aesp_proxy.launch.attack.judge import Outcome, Said, Sighting, judge, seen_by
from aesp_proxy.launch.attack.plan import Plan

CASES = Path(__file__).parents[2] / "bypass"
BY_ID = {attack.id: attack for attack in CATALOGUE}
TOKEN = "ghp_" + "aB3" * 12


def test_every_attack_has_the_row_and_the_words_of_a_case():
    cases = [tomllib.loads(path.read_text("utf-8")) for path in CASES.glob("*.toml")]
    known = {(case["row"], case["attack"]) for case in cases}
    every = (*CATALOGUE, *CAPTURED)
    assert {(each.row, each.name) for each in every if not each.passes} <= known


def test_every_attack_is_one_that_the_attacker_can_make_and_the_other_way_round():
    assert len(BY_ID) == len(CATALOGUE)
    assert set(agent.ATTEMPTS) == set(BY_ID) | {each.id for each in CAPTURED}
    assert set(BY_ID) & {each.id for each in CAPTURED} == set()
    assert set(BY_ID) > UNWALLED


def sighting(body, head=b"POST / HTTP/1.1\r\n\r\n"):
    return [Sighting(place="the origin", data=head + body)]


@pytest.mark.parametrize(
    "body",
    [
        TOKEN.encode(),
        base64.b64encode(TOKEN.encode()),
        TOKEN.encode().hex().encode(),
        "".join(f"%{ord(c):02x}" for c in TOKEN).encode(),
        b'{"a": "' + "".join(f"\\u{ord(c):04x}" for c in TOKEN).encode() + b'"}',
        gzip.compress(TOKEN.encode(), mtime=0),
        b"".join(b"1\r\n%c\r\n" % c for c in TOKEN.encode()) + b"0\r\n\r\n",
        b"1\r\na\r\n0\r\nX-Note: " + TOKEN.encode() + b"\r\n\r\n",
    ],
)
def test_a_token_is_seen_in_every_form_in_which_it_is_sent(body):
    assert seen_by(sighting(body), TOKEN) == "the origin"


def test_what_is_not_there_is_not_seen():
    assert seen_by(sighting(TOKEN[:-1].encode()), TOKEN) == ""
    assert seen_by(sighting(b"\x1f\x8bnot gzip"), TOKEN) == ""
    assert seen_by([], TOKEN) == ""


def outcome(name, said, place="", proofs=None):
    return judge(BY_ID[name], said, place=place, proofs=proofs or {}).outcome


def test_what_a_canary_saw_got_out_whatever_the_attacker_says():
    assert outcome("udp", Said(state="tried", text="refused"), "a port") is Outcome.GOT_OUT
    assert outcome("udp", None, "a port") is Outcome.GOT_OUT


def test_what_the_attacker_boasts_of_is_not_believed():
    assert outcome("udp", Said(state="tried", text="sent")) is Outcome.STOPPED


def test_a_proof_must_hold_what_only_an_outsider_knows():
    proofs = {"netlink": " 4711 "}
    good = Said(state="proof", text="ports 22 4711 80 of the host")
    wrong = Said(state="proof", text="ports 22 47110 of the host")
    assert outcome("netlink", good, proofs=proofs) is Outcome.GOT_OUT
    assert outcome("netlink", wrong, proofs=proofs) is Outcome.STOPPED
    assert outcome("io-uring", Said(state="proof", text="made a ring")) is Outcome.GOT_OUT


def test_what_was_not_tried_is_never_called_stopped():
    assert outcome("udp", None) is Outcome.NOT_TRIED
    assert outcome("udp", Said(state="cannot", text="no")) is Outcome.NOT_TRIED


def test_the_control_passes_only_where_a_canary_saw_it():
    assert outcome("control", Said(state="tried", text="200"), "the origin") is Outcome.PASSED
    assert outcome("control", Said(state="tried", text="200")) is Outcome.NOT_TRIED


def test_a_gap_that_is_known_got_out_all_the_same_and_says_so():
    known = BY_ID["write-policy"]._replace(gap="nothing holds it back yet")
    told = judge(known, None, place="the policy file", proofs={})
    assert told.outcome is Outcome.GOT_OUT
    assert told.detail.endswith("nothing holds it back yet")


def plan(tokens):
    blank = dict.fromkeys(Plan._fields, "")
    return Plan(**{**blank, "tokens": tokens, "tcp6_port": 0, "low": {}})  # type: ignore[arg-type]


def test_an_attacker_that_fails_by_itself_does_not_praise_the_walls():
    def broken(_plan, _token):
        raise ValueError("a slip")

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(agent.ATTEMPTS, "udp", broken)
        assert agent.attempt(plan({"udp": "x"}), "udp")["state"] == "cannot"
    assert agent.attempt(plan({"tcp-ipv6": "x"}), "tcp-ipv6")["state"] == "cannot"


def test_the_resolver_answers_addresses_and_nothing_else():
    answered = answer_to(question("a.example"), "127.83.71.1")
    assert answered.endswith(socket.inet_aton("127.83.71.1"))
    assert struct.unpack_from(">H", answered, 6) == (1,)
    assert struct.unpack_from(">H", answer_to(question("a.example", 16), "::1"), 6) == (0,)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"GET / HTTP/1.1\r\n", False),
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\na", False),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab", True),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", False),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", True),
    ],
)
def test_a_canary_waits_for_a_whole_request(data, expected):
    assert is_whole(data) is expected


def test_canaries_remember_what_reaches_them_by_every_way(tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with Canaries(tmp_path, context, f"test-{tmp_path.name}-{id(context)}") as canaries:
        with socket.create_connection(("127.0.0.1", canaries.tcp_ports[0])) as sock:
            sock.sendall(b"by TCP")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"by UDP", ("127.0.0.1", canaries.udp_port))
        for path in (canaries.unix_path, "\0" + canaries.abstract):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(path)
                sock.sendall(b"by unix")
        canaries.settle()
        seen = sorted((each.place, each.data) for each in canaries.sightings())
    assert seen == [
        ("a TCP port of loopback", b"by TCP"),
        ("a UDP port of loopback", b"by UDP"),
        ("a unix socket", b"by unix"),
        ("an abstract socket", b"by unix"),
    ]


def test_a_canary_waits_for_the_first_byte_as_long_as_the_round_takes(tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    name = f"test-{tmp_path.name}-{id(context)}"
    with Canaries(tmp_path, context, name) as canaries, pytest.MonkeyPatch.context() as patch:
        patch.setattr("aesp_proxy.launch.attack.canary._TICK_S", 0.001)
        with socket.create_connection(("127.0.0.1", canaries.tcp_ports[0])) as silent:
            # Many ticks: another connection is served from its first byte to its end meanwhile.
            with socket.create_connection(("127.0.0.1", canaries.tcp_ports[1])) as other:
                other.sendall(b"GET / HTTP/1.1\r\n\r\n")
                while other.recv(100):
                    continue
            silent.sendall(b"at last")
            canaries.settle()
        assert b"at last" in [each.data for each in canaries.sightings()]
