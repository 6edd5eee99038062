"""Paths lead where the kernel leads, link by link; what is on the way is noted."""

from __future__ import annotations

import os

import pytest
from fuzz_targets import load_target
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aesp_proxy.intercept.notify.processes import Processes
from aesp_proxy.intercept.notify.resolve import Found, Place, Resolver

fuzz = load_target("fuzz_notify")
NAMES = ("a", "b", "c", "d", "f", "l", "p", "up", "root", "abs", "loop", "far", "gone", "deep",
         "slash", "file", "x", "none", "..", ".", "")  # fmt: skip
PATHS = st.lists(st.sampled_from(NAMES), max_size=8).map(lambda names: "/".join(names).encode())


@given(PATHS)
@settings(max_examples=150, deadline=None)
@example(b"a/deep")
@example(b"d/far")
@example(b"d/gone")
@example(b"file/")
@example(b"loop/x")
@example(b"../../d/slash/..")
def test_a_path_leads_where_the_kernel_leads(path):
    fuzz.fuzz_one(b"\2" + path)


@given(st.binary(max_size=120))
@settings(max_examples=100, deadline=None)
def test_nothing_else_comes_of_any_bytes(data):
    fuzz.fuzz_one(data)


@pytest.fixture
def resolver(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").write_text("x")
    (tmp_path / "l").symlink_to("a")
    (tmp_path / "m").symlink_to("l/g")
    (tmp_path / "a" / "g").symlink_to("f")
    (tmp_path / "n").symlink_to("a/new")
    root = os.open("/", os.O_PATH)
    yield Resolver(root, Processes(os.getpid()))
    os.close(root)


def test_every_link_on_the_way_is_noted(resolver, tmp_path):
    found = resolver.find(fuzz.Asker(), -100, os.fsencode(tmp_path / "m"))
    found.close()
    assert found.path == str(tmp_path / "a" / "f")
    assert found.named == str(tmp_path / "m")
    assert found.links == tuple(str(tmp_path / each) for each in ("m", "l", "a/g"))


def test_what_is_renamed_since_is_still_what_is_held(resolver, tmp_path):
    found = resolver.find(fuzz.Asker(), -100, os.fsencode(tmp_path / "a" / "f"))
    (tmp_path / "a" / "f").rename(tmp_path / "other")
    (tmp_path / "a" / "f").write_text("another")
    with open(found.handle) as file:  # noqa: PTH123 - of a descriptor
        assert file.read() == "x"
    found.close()


def test_a_link_to_nothing_is_a_place_to_make_it(resolver, tmp_path):
    asker = fuzz.Asker()
    place = resolver.place(asker, -100, os.fsencode(tmp_path / "n"))
    beyond = resolver.beyond(asker, place)
    assert isinstance(beyond, Place)
    assert (beyond.path, beyond.name) == (str(tmp_path / "a" / "new"), b"new")
    assert beyond.links == (str(tmp_path / "n"),)
    beyond.close()
    (tmp_path / "a" / "new").write_text("made")
    there = resolver.beyond(asker, place)
    assert isinstance(there, Found)
    there.close()
    place.close()


def test_a_removed_file_has_no_name(resolver, tmp_path):
    held = os.open(tmp_path / "a" / "f", os.O_RDONLY)
    (tmp_path / "a" / "f").unlink()
    found = resolver.object(fuzz.Asker(), held)
    assert not found.has_name
    found.close()
    os.close(held)


def test_files_of_other_processes_are_not_reached(resolver):
    for name in ("environ", "mem", "fd/0", "cwd", "root/etc"):
        with pytest.raises(PermissionError):
            resolver.find(fuzz.Asker(), -100, f"/proc/{os.getppid()}/{name}".encode())
    resolver.find(fuzz.Asker(), -100, f"/proc/{os.getppid()}/stat".encode()).close()
    own = resolver.find(fuzz.Asker(), -100, b"/proc/self/environ")
    assert own.path == f"/proc/{os.getpid()}/environ"
    own.close()
