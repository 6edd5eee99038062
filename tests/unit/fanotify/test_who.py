"""Who opens, and what for: by what cannot lie, and by doubt where it could."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from aesp_proxy.intercept.capture.ruleset import Cgroup, Selection
from aesp_proxy.intercept.fanotify.handles import places_below, plain_numbers
from aesp_proxy.intercept.fanotify.who import (
    Gone,
    Intent,
    Watched,
    read_intent,
    read_selection,
    selection_word,
)

ON_X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86-64")


@ON_X86
@pytest.mark.parametrize(
    ("line", "intent"),
    [
        (b"257 0xffffff9c 0x7f 0x80000 0x0 0x0 0x0 0x7ff 0x7ff", Intent.READ),
        (b"257 0xffffff9c 0x7f 0x80001 0x0 0x0 0x0 0x7ff 0x7ff", Intent.WRITE),
        (b"257 0xffffff9c 0x7f 0x80242 0x0 0x0 0x0 0x7ff 0x7ff", Intent.BOTH),
        (b"257 0xffffff9c 0x7f 0x200 0x0 0x0 0x0 0x7ff 0x7ff", Intent.BOTH),
        (b"2 0x7f 0x1 0x0 0x0 0x0 0x0 0x7ff 0x7ff", Intent.WRITE),
        (b"85 0x7f 0x1a4 0x0 0x0 0x0 0x0 0x7ff 0x7ff", Intent.WRITE),
        (b"59 0x7f 0x1a4 0x0 0x0 0x0 0x0 0x7ff 0x7ff", Intent.EXECUTE),
        (b"437 0xff 0x7f 0x7f 0x18 0x0 0x0 0x7ff 0x7ff", Intent.UNKNOWN),
        (b"426 0x3 0x1 0x0 0x0 0x0 0x0 0x7ff 0x7ff", Intent.UNKNOWN),
        (b"running\n", Intent.UNKNOWN),
        (b"-1 0x7ff 0x7ff", Intent.UNKNOWN),
        (b"", Intent.UNKNOWN),
        (b"257 x x x x x x x x", Intent.UNKNOWN),
    ],
)
def test_what_a_file_is_opened_for_is_in_the_call_or_in_doubt(line, intent):
    assert read_intent(line) is intent


def test_who_is_named_is_told_from_others_by_user_group_and_cgroup():
    me = os.geteuid()
    assert Watched(Selection(uids=((me, me),))).actor(os.getpid()).uid == me
    assert Watched(Selection(uids=((me + 1, me + 9),))).actor(os.getpid()) is None
    assert Watched(Selection(gids=(os.getegid(),))).actor(os.getpid()) is not None
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = next((line for line in lines if line.startswith("0::")), "0::/")
    name = own.strip()[3:]
    if name != "/":
        assert Watched(Selection(cgroups=(Cgroup(name, 1),))).actor(os.getpid()) is not None
    assert Watched(Selection(cgroups=(Cgroup("no/such", 1),))).actor(os.getpid()) is None


def test_a_process_that_is_gone_is_nobody_and_one_that_is_not_to_be_seen_is_watched():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    watched = Watched(Selection(uids=((4242, 4242),)))
    with pytest.raises(Gone):
        watched.actor(ended.pid)
    assert watched.actor(0) is not None


def test_a_process_that_has_ended_is_known_by_what_it_opened_or_who_owns_what_it_made():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    watched = Watched(Selection(uids=((os.geteuid(), os.geteuid()),)))
    assert watched.actor(child.pid) is not None
    child.communicate(b"\n")
    assert watched.actor_of_past(child.pid, None).uid == os.geteuid()
    assert watched.actor_of_past(child.pid + 100_000_000, os.geteuid() + 1) is None
    assert watched.actor_of_past(child.pid + 100_000_000, os.geteuid()) is not None
    assert watched.actor_of_past(child.pid + 100_000_000, None) is not None


def test_a_selection_crosses_to_another_process_whole():
    chosen = Selection(uids=((1, 2), (5, 5)), gids=(7,), cgroups=(Cgroup("a/b", 9),))
    assert read_selection(selection_word(chosen)) == chosen


MOUNTS = """\
21 1 8:1 / / rw - ext4 /dev/a rw
22 21 0:5 / /proc rw - proc proc rw
23 21 8:2 / /home rw - ext4 /dev/b rw
24 23 0:9 / /home/a\\040b/cache rw - tmpfs none rw
25 23 0:7 / /home/a\\040b/fuse rw - autofs none rw
"""


@pytest.mark.parametrize(
    ("trees", "places"),
    [
        (["/home"], ["/home", "/home/a b/cache"]),
        (["/home/a b"], ["/home", "/home/a b/cache"]),
        (["/home/c"], ["/home"]),
        (["/srv"], ["/"]),
        (["/home/c", "/srv"], ["/home", "/"]),
        (["/homes"], ["/"]),
    ],
    ids=str,
)
def test_the_file_systems_of_a_tree_are_those_it_lies_on_and_those_mounted_in_it(trees, places):
    assert places_below(trees, MOUNTS) == places


HOST = "2 1 8:1 / / rw - ext4 x rw\n3 2 8:2 / /home rw - ext4 y rw\n"


@pytest.mark.parametrize(
    ("own", "numbers"),
    [
        ("9 1 8:1 / / ro - ext4 x rw", {9, 2}),
        ("9 1 8:1 /srv /srv ro - ext4 x rw", {9, 2}),
        ("9 1 8:1 /srv /other ro - ext4 x rw", {9}),
        ("9 1 8:1 / /srv ro - ext4 x rw", {9}),
        ("9 1 8:2 /a /home/a ro - ext4 y rw", {9, 3}),
        ("9 1 8:3 / / ro - ext4 z rw", {9}),
    ],
)
def test_a_path_by_a_mount_of_the_host_is_ours_where_both_show_it_in_one_place(own, numbers):
    assert plain_numbers(own, HOST) == numbers
