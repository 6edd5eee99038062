"""The filter, evaluated here instruction by instruction, on both architectures."""

from __future__ import annotations

import errno
import socket
import struct
from pathlib import Path

import pytest
from bpf import evaluate

from aesp_proxy.launch.isolation import seccomp
from aesp_proxy.launch.isolation.seccomp import ALLOW, ARCHITECTURES, ERRNO, KILL

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
ANY_CALL = 999


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request) -> str:
    return request.param


def judge(machine: str, number: int, *arguments: int, audit: int | None = None, **walls) -> int:
    architecture = ARCHITECTURES[machine]
    given = {"own_network": True, "own_processes": True} | walls
    code = seccomp.assemble(seccomp.program(architecture, **given))
    words = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    used = architecture.audit if audit is None else audit
    return evaluate(code, struct.pack("=IIQ6Q", number, used, 0, *words))


def call(machine: str, numbers: tuple[int | None, int | None], *arguments: int, **walls) -> int:
    number = numbers[ARCHITECTURES[machine].column]
    assert number is not None
    return judge(machine, number, *arguments, **walls)


@pytest.mark.parametrize("name", seccomp.REFUSED)
def test_dangerous_calls_are_refused(machine, name):
    if seccomp.REFUSED[name][ARCHITECTURES[machine].column] is not None:
        assert call(machine, seccomp.REFUSED[name]) == ERRNO | errno.EPERM


@pytest.mark.parametrize("name", seccomp.ABSENT)
def test_calls_with_older_names_are_absent(machine, name):
    assert call(machine, seccomp.ABSENT[name]) == ERRNO | errno.ENOSYS


@pytest.mark.parametrize("name", seccomp.REFUSED_AMONG_OTHERS)
def test_reaching_into_processes_needs_processes_of_ones_own(machine, name):
    numbers = seccomp.REFUSED_AMONG_OTHERS[name]
    assert call(machine, numbers) == ALLOW
    assert call(machine, numbers, own_processes=False) == ERRNO | errno.EPERM


def test_every_other_call_is_allowed(machine):
    tables = seccomp.REFUSED | seccomp.ABSENT
    column = ARCHITECTURES[machine].column
    judged = {numbers[column] for numbers in tables.values()}
    judged |= {each[column] for each in (seccomp._SOCKET, seccomp._SOCKETPAIR)}
    refused = {number for number in range(600) if judge(machine, number) != ALLOW}
    assert refused == judged - {None}


def test_another_architecture_is_killed(machine):
    other = {"x86_64": 0x40000003, "aarch64": 0x40000028}[machine]
    assert judge(machine, ANY_CALL, audit=other) == KILL


def test_calls_of_x32_are_absent():
    assert judge("x86_64", 0x40000000 | 41, socket.AF_UNIX) == ERRNO | errno.ENOSYS
    assert judge("x86_64", 0xFFFFFFFF) == ERRNO | errno.ENOSYS


STREAM, DGRAM, RAW, SEQPACKET = 1, 2, 3, 5
FLAGS = 0o2004000  # SOCK_CLOEXEC and SOCK_NONBLOCK
REFUSED_PROTOCOL = ERRNO | errno.EPROTONOSUPPORT
REFUSED_FAMILY = ERRNO | errno.EAFNOSUPPORT


@pytest.mark.parametrize(
    ("family", "kind", "protocol", "answer"),
    [
        (2, STREAM, 0, ALLOW),
        (10, STREAM | FLAGS, 6, ALLOW),
        (2, DGRAM, 17, ALLOW),
        (10, DGRAM | FLAGS, 0, ALLOW),
        (2, STREAM, 262, REFUSED_PROTOCOL),
        (2, STREAM, 132, REFUSED_PROTOCOL),
        (2, DGRAM, 1, REFUSED_PROTOCOL),
        (10, DGRAM, 58, REFUSED_PROTOCOL),
        (2, RAW, 1, ERRNO | errno.EPERM),
        (2, RAW | FLAGS, 255, ERRNO | errno.EPERM),
        (2, 10, 0x300, ERRNO | errno.EPERM),
        (2, SEQPACKET, 132, ERRNO | errno.EPERM),
        (1, STREAM, 0, REFUSED_FAMILY),
        (1, DGRAM | FLAGS, 0, REFUSED_FAMILY),
        (16, RAW, 0, ALLOW),
        (16, RAW, 9, REFUSED_PROTOCOL),
        (16, DGRAM, 12, REFUSED_PROTOCOL),
        (17, RAW, 0x300, REFUSED_FAMILY),
        (38, SEQPACKET, 0, REFUSED_FAMILY),
        (40, STREAM, 0, REFUSED_FAMILY),
        (44, RAW, 0, REFUSED_FAMILY),
    ],
)
def test_sockets(machine, family, kind, protocol, answer):
    assert call(machine, seccomp._SOCKET, family, kind, protocol) == answer
    # What stands in the upper half of a register, the kernel does not read either.
    high = 7 << 32
    assert call(machine, seccomp._SOCKET, high | family, high | kind, high | protocol) == answer


def test_without_a_network_of_ones_own_there_are_no_datagrams(machine):
    judged = [
        call(machine, seccomp._SOCKET, 2, DGRAM, 0, own_network=False),
        call(machine, seccomp._SOCKET, 2, STREAM, 17, own_network=False),
        call(machine, seccomp._SOCKET, 2, STREAM, 6, own_network=False),
    ]
    assert judged == [ERRNO | errno.EPERM, REFUSED_PROTOCOL, ALLOW]


@pytest.mark.parametrize(
    ("family", "kind", "answer"),
    [
        (1, STREAM | FLAGS, ALLOW),
        (1, SEQPACKET, ALLOW),
        (1, DGRAM, ERRNO | errno.EPERM),
        (1, DGRAM | FLAGS, ERRNO | errno.EPERM),
        (1, RAW, ERRNO | errno.EPERM),
        (30, STREAM, REFUSED_FAMILY),
    ],
)
def test_pairs_of_sockets(machine, family, kind, answer):
    assert call(machine, seccomp._SOCKETPAIR, family, kind) == answer


@pytest.mark.parametrize("flag", [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000,
                                  0x20000000, 0x40000000])  # fmt: skip
def test_clone_makes_no_namespace(machine, flag):
    assert call(machine, seccomp._CLONE, flag | 17) == ERRNO | errno.EPERM


def test_clone_makes_threads_and_processes(machine):
    threads, process = 0x3D0F00, 0x1200011
    assert {call(machine, seccomp._CLONE, each) for each in (threads, process)} == {ALLOW}


@pytest.mark.parametrize("command", [0x5412, 0x541C, 0xFFFFFFFF00005412])
def test_nothing_is_typed_into_a_terminal(machine, command):
    assert call(machine, seccomp.IOCTL, 0, command) == ERRNO | errno.EPERM
    assert call(machine, seccomp.IOCTL, 0, 0x5413) == ALLOW


@pytest.mark.parametrize("name", [*seccomp.REFUSED, *seccomp.ABSENT, *seccomp.REFUSED_AMONG_OTHERS])
def test_the_numbers_are_those_of_the_kernels_headers(machine, name):
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"{header} is not installed")
    defined = {}
    for row in header.read_text().splitlines():
        match row.split():
            case ["#define", symbol, number] if number.isdigit():
                defined[symbol.removeprefix("__NR3264_").removeprefix("__NR_")] = int(number)
    tables = seccomp.REFUSED | seccomp.ABSENT | seccomp.REFUSED_AMONG_OTHERS
    number = tables[name][ARCHITECTURES[machine].column]
    if name in defined:
        assert number == defined[name]
    else:
        # Not there at all, or newer than these headers.
        assert number is None or number > max(defined.values()) or name == "nfsservctl"


@pytest.mark.parametrize("name", ["socket", "socketpair", "clone", "ioctl"])
def test_the_numbers_of_judged_calls_too(machine, name):
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"{header} is not installed")
    judged = {"ioctl": seccomp.IOCTL}.get(name) or getattr(seccomp, f"_{name.upper()}")
    number = judged[ARCHITECTURES[machine].column]
    assert f"#define __NR_{name} {number}\n" in header.read_text()
