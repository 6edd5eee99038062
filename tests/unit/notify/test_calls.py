"""The table of held calls: numbers as the headers have them, and the filter made of it."""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import pytest
from bpf import evaluate

from aesp_proxy.intercept.notify import calls
from aesp_proxy.intercept.notify.calls import ABSENT, CALLS, NOT_HELD, Kind
from aesp_proxy.launch.isolation import holding, seccomp
from aesp_proxy.launch.isolation.seccomp import ALLOW, ARCHITECTURES, ERRNO, HOLD, KILL

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request) -> str:
    return request.param


def judge(machine: str, number: int, *arguments: int, audit: int | None = None) -> int:
    architecture = ARCHITECTURES[machine]
    code = seccomp.assemble(holding.program(architecture))
    words = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    used = architecture.audit if audit is None else audit
    return evaluate(code, struct.pack("=IIQ6Q", number, used, 0, *words))


def numbers(machine: str) -> set[int]:
    return set(calls.by_number(ARCHITECTURES[machine].column))


def test_what_is_in_the_table_is_held_and_nothing_else_is(machine):
    held = {number for number in range(700) if judge(machine, number) == HOLD}
    assert held == numbers(machine)


def test_what_is_new_is_absent(machine):
    column = ARCHITECTURES[machine].column
    absent = {number for number in range(700) if judge(machine, number) == ERRNO | errno.ENOSYS}
    assert absent == {each[column] for each in ABSENT.values()} - {None}


def test_another_architecture_is_killed_and_x32_is_absent(machine):
    assert judge(machine, 2, audit=0x40000003) == KILL
    assert judge("x86_64", 0x40000000 | 2) == ERRNO | errno.ENOSYS


@pytest.mark.parametrize("request_", calls.BTRFS_SNAPSHOTS)
def test_no_tree_gets_other_names_by_a_snapshot(machine, request_):
    number = seccomp.IOCTL[ARCHITECTURES[machine].column]
    assert judge(machine, number, 3, request_) == ERRNO | errno.EPERM
    assert judge(machine, number, 3, request_ + 1) == ALLOW


def test_an_error_is_stricter_than_holding():
    # seccomp(2): of the answers of all filters the kernel takes the lowest, signed.
    def signed(action: int) -> int:
        return action - (1 << 32) if action & (1 << 31) else action

    assert signed(KILL) < signed(ERRNO) < signed(HOLD) < signed(ALLOW)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_places_of_arguments_are_places(call):
    places = [call.path, call.at, call.path2, call.at2, call.flags, *call.extra]
    used = [each for each in places if each is not None]
    assert len(set(used)) == len(used)
    assert max(used) < 6
    assert isinstance(call.kind, Kind)


def test_a_call_is_held_or_it_is_said_why_not():
    held = {call.name for call in CALLS}
    assert held.isdisjoint(NOT_HELD)
    assert held.isdisjoint(ABSENT)
    assert all(NOT_HELD.values())


@pytest.mark.skipif(
    not all(each.exists() for each in HEADERS.values()), reason="no kernel headers here"
)
def test_numbers_are_those_of_the_headers(machine):
    told = {}
    for line in HEADERS[machine].read_text().splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "#define" and words[2].isdigit():
            name = words[1].removeprefix("__NR3264_").removeprefix("__NR_")
            told[name] = int(words[2])
    column = ARCHITECTURES[machine].column
    rows = [(call.name, call.numbers) for call in CALLS] + list(ABSENT.items())
    known = {name: each[column] for name, each in rows if each[column] is not None}
    # Headers may be older than the newest calls.
    assert {name: told[name] for name in known if name in told} == {
        name: number for name, number in known.items() if name in told
    }
    assert len(known.keys() & told.keys()) > 15
