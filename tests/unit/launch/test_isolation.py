"""The parts of isolation that need no namespace: bytes, words, texts, reports."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from aesp_proxy.intercept.capture.tables import creation
from aesp_proxy.launch import reaper
from aesp_proxy.launch.child import Child
from aesp_proxy.launch.isolation import descriptors, link, namespaces, netlink, redirect
from aesp_proxy.launch.isolation.layers import (
    EVERYTHING,
    MEANINGS,
    Layer,
    Report,
    read_report,
    remedy,
)
from aesp_proxy.launch.isolation.listeners import (
    EXPLICIT_PORT,
    REDIRECT_PORT,
    WELL_KNOWN_PORTS,
)
from aesp_proxy.launch.isolation.mounts import resolver_text
from aesp_proxy.launch.isolation.wish import WORDS, Wish, read_wish

# --- netlink ------------------------------------------------------------------------


def test_loopback_up_is_what_ip_sends():
    """``ip link set lo up``: RTM_NEWLINK, index 1, IFF_UP of IFF_UP."""
    assert netlink.loopback_up(7).hex() == (
        "20000000" "1000" "0500" "07000000" "00000000" "00000000" "01000000" "01000000" "01000000"
    )  # fmt: skip


@pytest.mark.parametrize(("family", "number"), [(socket.AF_INET, "02"), (socket.AF_INET6, "0a")])
def test_the_route_is_what_ip_sends(family, number):
    """``ip route add local default dev lo``: table and scope of local routes, out by lo."""
    assert netlink.route_everything(family, 3).hex() == (
        "24000000" "1800" "0506" "03000000" "00000000"
        f"{number}000000" "ff03fe02" "00000000" "0800" "0400" "01000000"
    )  # fmt: skip


def unpacked(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        length, kind = struct.unpack_from("=HH", data)
        found[kind & 0x7FFF] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


def expressions(batch: bytes) -> list[tuple[str, dict[int, bytes]]]:
    """Read the rule of a batch: each expression's name and attributes."""
    bodies = []
    while batch:
        length, kind = struct.unpack_from("=IH", batch)
        bodies.append((kind, batch[20:length]))
        batch = batch[(length + 3) & ~3 :]
    assert [kind for kind, _ in bodies] == [0x10, 0xA00, 0xA03, 0xA06, 0x11]
    rule = unpacked(bodies[3][1])
    data, found = rule[4], []
    while data:
        length, _ = struct.unpack_from("=HH", data)
        parts = unpacked(data[4:length])
        found.append((parts[1].rstrip(b"\0").decode(), unpacked(parts[2])))
        data = data[length:]
    return found


@pytest.mark.parametrize(
    ("family", "offset", "loopback"),
    [(socket.AF_INET, 16, b"\x7f"), (socket.AF_INET6, 24, bytes(15) + b"\x01")],
)
def test_the_rule_sends_tcp_that_is_not_loopback_to_the_port(family, offset, loopback):
    rule = expressions(creation(redirect.table(family, 3129))[0])
    names = " ".join(name for name, _ in rule)
    assert names == "meta cmp payload cmp meta cmp payload cmp immediate redir"
    values = [unpacked(parts[3])[1] for name, parts in rule if name == "cmp"]
    operators = [struct.unpack(">I", parts[2])[0] for name, parts in rule if name == "cmp"]
    assert values == [bytes([family]), loopback, bytes([6]), struct.pack(">H", 53)]
    assert operators == [0, 1, 0, 1]
    loads = [struct.unpack(">3I", parts[2] + parts[3] + parts[4])
             for name, parts in rule if name == "payload"]  # fmt: skip
    assert loads == [(1, offset, len(loopback)), (2, 2, 2)]
    assert unpacked(rule[8][1][2])[1] == struct.pack(">H", 3129)


# --- words and reports --------------------------------------------------------------


@pytest.mark.parametrize(
    "wish",
    [
        Wish(),
        Wish(
            layers=EVERYTHING,
            host="::1",
            port=8,
            transparent=True,
            dns=True,
            only_ports=(9, 10),
            why=True,
        ),
        Wish(layers=(Layer.SECCOMP,), dns=True),
    ],
)
def test_a_wish_comes_back_from_its_words(wish):
    words = wish.words()
    assert len(words) == WORDS
    assert read_wish(words) == wish


def test_a_report_comes_back_from_its_line():
    report = Report({Layer.NETWORK: 0, Layer.LANDLOCK: errno.ENOSYS})
    assert read_report(report.line().split()) == report
    with pytest.raises(ValueError, match="walls"):
        read_report(["walls=0"])


def test_every_layer_has_a_meaning_and_what_was_not_tried_does_not_stand():
    assert set(MEANINGS) == set(Layer)
    assert Report({}).missing() == [each for each in Layer if MEANINGS[each].required]
    assert Report(dict.fromkeys(Layer, 0)).missing() == []
    said = Report({Layer.NETWORK: errno.EPERM}).not_enforced([Layer.NETWORK, Layer.SECCOMP])
    assert said[0].endswith("(Operation not permitted)")
    assert said[1].endswith("(not tried)")


@pytest.mark.parametrize(
    ("name", "value", "root", "says"),
    [
        ("kernel/unprivileged_userns_clone", "0", False, "kernel.unprivileged_userns_clone=1"),
        ("kernel/unprivileged_userns_clone", "0", True, "a container"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", False, "userns=0"),
        ("user/max_user_namespaces", "0", True, "user.max_user_namespaces=10000"),
        ("user/max_user_namespaces", "5", False, "a container"),
    ],
)
def test_the_remedy_names_the_switch_that_is_off(tmp_path, name, value, root, says):
    place = tmp_path / name
    place.parent.mkdir()
    place.write_text(value + "\n")
    told = remedy(Report({}), is_root=root, sysctl=str(tmp_path))
    assert says in told
    assert "--allow-degraded" in told


def test_search_domains_and_options_stay_and_servers_do_not():
    before = "# ours\nnameserver 10.0.0.1\nsearch a.example b.example\noptions ndots:5\n\n"
    assert resolver_text(before) == (
        "nameserver 127.0.0.1\nsearch a.example b.example\noptions ndots:5\n"
    )


def test_ports_of_development_servers_are_left_to_them():
    assert not {3000, 5000, 5173, 5432, 6379, 8000, 8080} & set(WELL_KNOWN_PORTS)
    assert not {EXPLICIT_PORT, REDIRECT_PORT} & set(WELL_KNOWN_PORTS)


def test_root_keeps_all_ids_that_it_knows(tmp_path):
    known = [row.split() for row in Path("/proc/self/uid_map").read_text().splitlines()]
    mapped = [row.split() for row in namespaces._identity("uid_map").splitlines()]
    assert mapped == [[inside, inside, count] for inside, _, count in known]


# --- descriptors --------------------------------------------------------------------


def as_standard_input(sock: socket.socket | None) -> str:
    script = "from aesp_proxy.launch.isolation.descriptors import ways_out; print(ways_out())"
    return subprocess.run(
        [sys.executable, "-c", script], stdin=sock, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_what_can_be_connected_anew_is_a_way_out():
    server = socket.create_server(("127.0.0.1", 0))
    with server, socket.create_connection(server.getsockname()) as connected:
        assert as_standard_input(connected) == "[0]"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        assert as_standard_input(datagrams) == "[0]"
    with socket.socket(socket.AF_UNIX) as unconnected:
        assert as_standard_input(unconnected) == "[0]"
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        assert as_standard_input(ours) == "[0]"


def test_pipes_terminals_files_and_pairs_are_none():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert as_standard_input(ours) == "[]"
    assert as_standard_input(None) == "[]"
    assert descriptors._is_way_out(999) is False


def test_messages_tell_who_sends_and_carry_descriptors():
    ours, theirs = link.pair()
    with ours, theirs:
        link.send(theirs, "two words", [theirs.fileno()])
        message = link.receive(ours)
        os.close(message.descriptors[0])
        assert (message.words, message.sender) == (["two", "words"], os.getpid())
        assert len(message.descriptors) == 1
        theirs.close()
        assert link.receive(ours).words == []


# --- the reaper as a script ---------------------------------------------------------


def test_the_reaper_loads_nothing_that_is_slow():
    """Every command waits for it: what it imports is what it needs."""
    source = Path(reaper.__file__).parents[2]
    script = (
        "import runpy, sys\n"
        f"sys.path.append({str(source)!r})\n"
        "sys.argv = ['reaper']\n"
        f"runpy.run_path({reaper.__file__!r}, run_name='loaded')\n"
        "slow = {'pathlib', 'dataclasses', 'inspect', 'shutil', 'subprocess', 'json', 'asyncio'}\n"
        "print(sorted(slow & set(sys.modules)))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"


def test_without_a_wish_nothing_is_around_the_command_and_no_socket_is_made():
    child = Child(["true"], os.environ)
    prepared = child.prepare()
    try:
        assert prepared.listeners == ()
        assert set(prepared.report.outcomes) == set()
    finally:
        child.discard()
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, signal.SIGCONT)
