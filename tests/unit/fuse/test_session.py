"""A session with a kernel made by hand: what is decided, hidden, held back and published."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_lab import FILES_POLICY, TOKEN, Recorded, file_gate, file_judge, files_snapshot
from fuse_kernel import NOTIFY_EPOCH, NOTIFY_INVALID, Kernel, RefusedError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aesp_proxy.errors import UnavailableError
from aesp_proxy.intercept.fuse import session
from aesp_proxy.intercept.fuse.operations import moves
from aesp_proxy.intercept.fuse.protocol import HEADER, Op

SECRET = TOKEN.encode()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "secret").mkdir()
    (root / "secret" / "key").write_text("KEY")
    (root / ".env").write_text("TOKEN")
    (root / "good").write_text("good\n")
    (root / "sub" / "deep").write_text("deep\n")
    os.link(root / ".env", root / "innocent")
    return root


@pytest.fixture
def kernel(tree: Path) -> Iterator[Kernel]:
    made = Kernel(tree, file_gate(reading_refuses=True))
    yield made
    made.end()


def refused(call, *words) -> int:
    with pytest.raises(RefusedError) as error:
        call(*words)
    return error.value.errno


def test_forbidden_names_are_neither_listed_nor_found(kernel):
    assert kernel.names(1) == ["good", "sub"]
    for name in (".env", "secret", "innocent", ".ENV", ".Env"):
        assert kernel.lookup(1, name) is None


def test_a_hard_link_made_by_the_host_later_is_hidden_once_the_name_was_seen(kernel, tree):
    (tree / "sub" / ".env").write_text("later")
    os.link(tree / "sub" / ".env", tree / "sub" / "other")
    assert kernel.lookup(kernel.walk("sub"), ".env") is None
    assert kernel.lookup(kernel.walk("sub"), "other") is None


def test_a_hard_link_made_by_the_host_later_is_hidden_though_the_name_was_never_seen(kernel, tree):
    os.link(tree / "secret" / "key", tree / "sub" / "other")
    assert kernel.names(kernel.walk("sub")) == ["deep"]
    assert kernel.lookup(kernel.walk("sub"), "other") is None


def test_a_file_that_was_known_before_it_got_a_forbidden_name_is_closed(kernel, tree):
    node = kernel.walk("good")
    os.link(tree / "good", tree / "sub" / ".env")
    assert kernel.lookup(kernel.walk("sub"), ".env") is None
    assert refused(kernel.open, node) == errno.EACCES
    assert refused(kernel.open, node, os.O_WRONLY) == errno.EACCES


def test_a_number_that_was_a_forbidden_files_is_no_reason_to_hide_a_file(kernel, tree):
    number = (tree / "secret" / "key").stat().st_ino
    (tree / "secret" / "key").unlink()
    name = ""
    for count in range(50):
        name = f"new{count}"
        (tree / name).write_text("new")
        if (tree / name).stat().st_ino == number:
            break
    assert kernel.lookup(1, name) is not None
    assert name in kernel.names(1)


def test_a_forbidden_name_that_git_tracks_is_seen_and_gives_nothing_away(kernel, tree):
    (tree / "innocent").unlink()
    for words in (["init", "-q"], ["add", "-f", ".env"]):
        subprocess.run(["git", "-C", str(tree), *words], check=True)
    assert ".env" in kernel.names(1)
    node = kernel.walk(".env")
    link = struct.pack("=Q", node) + b"mine\0"
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
        assert refused(kernel.open, node, flags) == errno.EACCES
    assert refused(kernel.ask, Op.LINK, 1, link) == errno.EACCES
    assert refused(kernel.rename, (1, ".env"), (1, "mine")) == errno.EACCES
    assert refused(kernel.rename, (1, "good"), (1, ".env")) == errno.EACCES
    assert refused(kernel.rename, (1, "good"), (1, ".env"), 2) == errno.EACCES
    assert refused(kernel.ask, Op.UNLINK, 1, b".env\0") == errno.EACCES
    assert (tree / ".env").read_text() == "TOKEN"


@pytest.mark.parametrize("name", [".env", "secret", ".ssh", ".Env"])
def test_forbidden_names_cannot_be_made_in_any_way(kernel, tree, name):
    before = sorted(path.name for path in tree.iterdir())
    raw = name.encode() + b"\0"
    assert refused(kernel.create, 1, name) == errno.EACCES
    assert refused(kernel.ask, Op.MKDIR, 1, struct.pack("=II", 0o755, 0) + raw) == errno.EACCES
    assert refused(kernel.ask, Op.SYMLINK, 1, raw + b"good\0") == errno.EACCES
    assert refused(kernel.ask, Op.LINK, 1, struct.pack("=Q", kernel.walk("good")) + raw)
    assert refused(kernel.rename, (1, "good"), (1, name)) == errno.EACCES
    assert sorted(path.name for path in tree.iterdir()) == before


def test_a_new_file_is_seen_by_others_when_it_is_closed_and_whole(kernel, tree):
    node, handle = kernel.create(1, "new")
    kernel.write(node, handle, b"one")
    assert not (tree / "new").exists()
    assert "new" in kernel.names(1)
    assert kernel.read(node, handle) == b"one"
    assert kernel.close(node, handle) == 0
    assert (tree / "new").read_bytes() == b"one"
    assert (tree / "new").stat().st_mode & 0o777 == 0o644


def test_a_refused_new_file_is_gone_and_cannot_be_renamed_or_linked(kernel, tree):
    assert kernel.put(1, "tmp", SECRET) == errno.EPERM
    assert not (tree / "tmp").exists()
    assert kernel.lookup(1, "tmp") is None
    assert refused(kernel.rename, (1, "tmp"), (1, "good")) == errno.EPERM
    assert (tree / "good").read_text() == "good\n"


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_WRONLY | os.O_TRUNC, os.O_RDWR])
def test_a_refused_change_leaves_the_file_as_it_was(kernel, tree, flags):
    node = kernel.walk("good")
    before = (tree / "good").stat()
    handle = kernel.open(node, flags)
    kernel.write(node, handle, SECRET, 3)
    assert kernel.close(node, handle) == errno.EPERM
    assert (tree / "good").read_text() == "good\n"
    assert (tree / "good").stat().st_mtime_ns == before.st_mtime_ns
    assert refused(kernel.rename, (1, "good"), (1, "better")) == errno.EPERM
    handle = kernel.open(node, os.O_WRONLY | os.O_TRUNC)
    kernel.write(node, handle, b"mended\n")
    assert kernel.close(node, handle) == 0
    kernel.rename((1, "good"), (1, "better"))
    assert (tree / "better").read_text() == "mended\n"


def test_a_close_before_the_first_write_publishes_nothing(kernel, tree):
    """As a shell does: it duplicates the descriptor, closes one, and then writes."""
    node = kernel.walk("good")
    handle = kernel.open(node, os.O_WRONLY | os.O_TRUNC)
    kernel.ask(Op.FLUSH, node, struct.pack("=QIIQ", handle, 0, 0, 0))
    assert (tree / "good").read_text() == "good\n"
    kernel.write(node, handle, SECRET)
    assert kernel.close(node, handle) == errno.EPERM
    assert (tree / "good").read_text() == "good\n"


def test_a_new_file_whose_second_part_is_refused_is_taken_back(kernel, tree):
    node, handle = kernel.create(1, "parts")
    kernel.write(node, handle, b"first ")
    kernel.ask(Op.FLUSH, node, struct.pack("=QIIQ", handle, 0, 0, 0))
    assert (tree / "parts").read_text() == "first "
    kernel.write(node, handle, SECRET, 6)
    assert kernel.close(node, handle) == errno.EPERM
    assert not (tree / "parts").exists()
    assert refused(kernel.rename, (1, "parts"), (1, "good")) == errno.EPERM


def test_what_is_changed_keeps_inode_mode_and_other_names(kernel, tree):
    (tree / "good").chmod(0o640)
    os.link(tree / "good", tree / "twin")
    before = (tree / "good").stat()
    node = kernel.walk("good")
    handle = kernel.open(node, os.O_RDWR)
    kernel.write(node, handle, b"G")
    kernel.write(node, handle, b"more\n", 5)
    assert kernel.close(node, handle) == 0
    after = (tree / "good").stat()
    assert (after.st_ino, after.st_mode, after.st_nlink) == (
        before.st_ino, before.st_mode, before.st_nlink,
    )  # fmt: skip
    assert (tree / "twin").read_text() == "Good\nmore\n"


def test_a_secret_may_not_be_read(kernel, tree):
    (tree / "leaky").write_bytes(SECRET)
    node = kernel.walk("leaky")
    assert refused(kernel.open, node) == errno.EPERM
    (tree / "leaky").write_bytes(b"clean now")
    assert kernel.read(node, kernel.open(node)) == b"clean now"


def test_what_the_host_puts_in_the_place_of_a_file_is_another_one(kernel, tree):
    node = kernel.walk("good")
    (tree / "new").write_text("other")
    (tree / "new").rename(tree / "good")
    assert refused(kernel.open, node) == errno.ESTALE
    assert kernel.walk("good") != node


def test_a_symbolic_link_in_the_place_of_a_directory_is_not_followed(kernel, tree):
    node = kernel.walk("sub")
    (tree / "sub").rename(tree / "away")
    (tree / "sub").symlink_to(tree / "secret")
    assert refused(kernel.lookup, node, "key") in {errno.ENOTDIR, errno.ELOOP, errno.ESTALE}


@pytest.mark.parametrize("flags", [0, 1, 2])
def test_renames_are_decided_by_what_lies_below(kernel, tree, flags):
    (tree / "sub" / ".env").write_text("x")
    (tree / "other").mkdir()
    target = (1, "other") if flags == 2 else (1, "moved")
    assert refused(kernel.rename, (1, "sub"), target, flags) == errno.EACCES
    (tree / "other" / "hooks").mkdir()
    (tree / "other" / "hooks" / "pre-commit").write_text("#!/bin/sh")
    if flags != 2:
        assert refused(kernel.rename, (1, "other"), (1, ".git"), flags) == errno.EACCES


def test_renames_that_are_allowed_happen(kernel, tree):
    kernel.walk("sub/deep")
    kernel.rename((1, "sub"), (1, "moved"))
    assert (tree / "moved" / "deep").read_text() == "deep\n"
    assert kernel.walk("moved/deep")
    kernel.put(1, "one", b"1")
    kernel.rename((1, "one"), (1, "good"), 2)
    assert (tree / "good").read_text() == "1"
    assert refused(kernel.rename, (1, "good"), (1, "one"), 1) == errno.EEXIST


def test_protected_names_are_refused_whatever_the_policy_says(kernel, tree):
    (tree / ".git" / "hooks").mkdir(parents=True)
    hooks = kernel.walk(".git/hooks")
    assert refused(kernel.create, hooks, "pre-commit") == errno.EACCES
    kernel.put(1, "hook", b"#!/bin/sh\n")
    assert refused(kernel.rename, (1, "hook"), (hooks, "pre-commit")) == errno.EACCES
    body = struct.pack("=Q", kernel.walk("hook")) + b"pre-commit\0"
    assert refused(kernel.ask, Op.LINK, hooks, body) == errno.EACCES


def test_a_file_without_a_name_is_looked_at_when_it_gets_one(kernel, tree):
    for data, number in ((b"fine", 0), (SECRET, errno.EPERM)):
        answer = kernel.ask(Op.TMPFILE, 1, struct.pack("=IIII", os.O_RDWR, 0o600, 0, 0))
        node, handle = struct.unpack_from("=Q", answer)[0], struct.unpack_from("=Q", answer, 128)[0]
        kernel.write(node, handle, data)
        body = struct.pack("=Q", node) + b"named\0"
        if number:
            (tree / "named").unlink()
            assert refused(kernel.ask, Op.LINK, 1, body) == number
        else:
            kernel.ask(Op.LINK, 1, body)
        assert (tree / "named").exists() == (not number)
        kernel.ask(Op.RELEASE, node, struct.pack("=QIIQ", handle, 0, 0, 0))


def test_a_new_policy_counts_from_the_next_request(tree):
    gate = file_gate()
    kernel = Kernel(tree, gate)
    try:
        node = kernel.walk("good")
        kernel.open(node)
        policy = FILES_POLICY.replace('"**/.env"', '"**/.env", "**/good"')
        gate.swap(file_judge(files_snapshot(policy)))
        assert refused(kernel.open, node) == errno.EACCES
        assert kernel.lookup(1, "good") is None
        assert "good" not in kernel.names(1)
    finally:
        kernel.end()


def test_what_cannot_be_recorded_does_not_happen(tree):
    journal = Recorded()
    kernel = Kernel(tree, file_gate(journal=journal))
    try:
        journal.full = True
        assert kernel.put(1, "new", b"new") == errno.EIO
        assert refused(kernel.ask, Op.MKDIR, 1, struct.pack("=II", 0o755, 0) + b"d\0") == errno.EIO
        assert refused(kernel.open, kernel.walk("good")) == errno.EIO
        assert not (tree / "new").exists()
    finally:
        kernel.end()


def test_a_new_file_is_recorded_once_with_what_is_in_it(tree):
    journal = Recorded()
    kernel = Kernel(tree, file_gate(journal=journal))
    try:
        assert kernel.put(1, "new", b"four") == 0
        told = [(each.action, each.resource, dict(each.metadata)) for each in journal.records]
        assert told == [("file.create", f"{tree}/new", {"pid": "77", "size": "4"})]
    finally:
        kernel.end()


def test_requests_that_wait_are_served_together_and_others_have_their_turn(tree):
    kernel = Kernel(tree, file_gate())
    try:
        os.set_blocking(kernel.view.device, False)
        for number in range(100):
            head = HEADER.pack(HEADER.size + 5, Op.LOOKUP, 1000 + number, 1, 0, 0, 7, 0, 0)
            kernel.ours.send(head + b"good\0")
        assert kernel.view.drain()
        assert kernel.answered() == 64
        assert kernel.view.drain()
        assert kernel.answered() == 36
        assert kernel.view.drain()
    finally:
        kernel.end()


def test_covers_show_other_files_and_cannot_be_changed(tree, tmp_path):
    public = tmp_path / "public"
    public.mkdir()
    (public / "ca.pem").write_text("CA")
    (tree / "state").mkdir()
    (tree / "state" / "key").write_text("KEY")
    covers = {str(tree / "state"): str(public), str(tree / "good"): str(tree / "good")}
    kernel = Kernel(tree, file_gate(), covers=covers)
    try:
        state = kernel.walk("state")
        assert kernel.names(state) == ["ca.pem"]
        node = kernel.walk("state/ca.pem")
        assert kernel.read(node, kernel.open(node)) == b"CA"
        assert refused(kernel.open, node, os.O_WRONLY) == errno.EACCES
        assert refused(kernel.create, state, "new") == errno.EACCES
        good = kernel.walk("good")
        assert kernel.read(good, kernel.open(good)) == b"good\n"
        assert refused(kernel.open, good, os.O_WRONLY) == errno.EACCES
        assert refused(kernel.rename, (1, "good"), (1, "x")) == errno.EACCES
        assert refused(kernel.rename, (1, "state"), (1, "x")) == errno.EACCES
        assert refused(kernel.ask, Op.UNLINK, 1, b"good\0") == errno.EACCES
    finally:
        kernel.end()


def test_a_reader_of_a_new_file_reads_on_when_its_writer_is_gone(kernel):
    node, handle = kernel.create(1, "new")
    reader = kernel.open(node)
    kernel.write(node, handle, b"whole")
    assert kernel.read(node, reader) == b"whole"
    assert kernel.close(node, handle) == 0
    assert kernel.read(node, reader) == b"whole"
    assert kernel.close(node, reader) == 0


def test_a_reader_of_what_was_refused_reads_no_more(kernel):
    node, handle = kernel.create(1, "new")
    reader = kernel.open(node)
    kernel.write(node, handle, SECRET)
    assert kernel.close(node, handle) == errno.EPERM
    assert refused(kernel.read, node, reader) == errno.EPERM


def test_opening_to_read_and_cut_off_cuts_off(kernel, tree):
    node = kernel.walk("good")
    kernel.close(node, kernel.open(node, os.O_RDONLY | os.O_TRUNC))
    assert (tree / "good").read_bytes() == b""


def test_what_is_written_to_loses_its_privilege(kernel, tree):
    (tree / "good").chmod(0o6755)
    node = kernel.walk("good")
    handle = kernel.open(node, os.O_WRONLY)
    kernel.write(node, handle, b"G")
    kernel.close(node, handle)
    assert (tree / "good").stat().st_mode & 0o7777 == 0o755


def test_who_lists_a_directory_sees_each_name_once_whatever_goes_meanwhile(kernel, tree):
    for number in range(60):
        (tree / "sub" / f"f{number}").touch()
    sub = kernel.walk("sub")
    seen, offset = kernel.part(sub, 0)
    for name in set(seen) - {".", ".."}:
        kernel.ask(Op.UNLINK, sub, name.encode() + b"\0")
    kernel.names(sub)
    while True:
        names, offset = kernel.part(sub, offset)
        if not names:
            break
        seen += names
    assert sorted(seen) == sorted({*(f"f{number}" for number in range(60)), "deep", ".", ".."})


def test_a_directory_with_too_much_below_is_moved_by_programs(kernel, tree, monkeypatch):
    monkeypatch.setattr(moves, "_BELOW_MAX", 3)
    for number in range(4):
        (tree / "sub" / f"f{number}").touch()
    assert refused(kernel.rename, (1, "sub"), (1, "moved")) == errno.EXDEV
    assert (tree / "sub").is_dir()


def test_attributes_are_content_and_of_the_user_only(kernel, tree):
    node = kernel.walk("good")

    def put(name: bytes, value: bytes) -> bytes:
        head = struct.pack("=II", len(value), 0)
        return kernel.ask(Op.SETXATTR, node, head + name + b"\0" + value)

    put(b"user.note", b"fine")
    assert os.getxattr(tree / "good", "user.note") == b"fine"
    assert refused(put, b"user.note", SECRET) == errno.EPERM
    for name in (b"security.capability", b"trusted.overlay.opaque", b"system.posix_acl_access"):
        assert refused(put, name, b"x") == errno.EOPNOTSUPP


def test_another_name_of_a_covered_file_cannot_be_written_either(tree):
    os.link(tree / "good", tree / "twin")
    kernel = Kernel(tree, file_gate(), covers={str(tree / "good"): str(tree / "good")})
    try:
        assert refused(kernel.open, kernel.walk("twin"), os.O_WRONLY) == errno.EACCES
    finally:
        kernel.end()


def test_what_others_change_is_told_to_the_kernel_and_our_own_changes_are_not(kernel, tree):
    node = kernel.walk("good")
    kernel.view.catch_up()
    assert kernel.notices() == []
    (tree / "good").write_text("changed")
    kernel.view.catch_up()
    assert kernel.notices() == [(NOTIFY_INVALID, node)]
    (tree / "other").touch()
    kernel.view.catch_up()
    assert kernel.notices() == [(NOTIFY_INVALID, 1), (NOTIFY_EPOCH, None)]
    (tree / "other").unlink()
    kernel.view.catch_up()
    assert kernel.notices() == []  # the kernel was never told of it
    kernel.put(1, "mine", b"mine")
    kernel.view.catch_up()
    assert NOTIFY_EPOCH not in {kind for kind, _ in kernel.notices()}


def test_a_directory_that_was_removed_or_replaced_ends_the_guard(kernel, tree):
    kernel.view.check_root()
    tree.rename(tree.with_name("away"))
    tree.mkdir()
    with pytest.raises(UnavailableError, match="removed"):
        kernel.view.check_root()


def test_what_fails_in_a_new_way_is_refused_and_the_next_request_served(kernel, monkeypatch):
    def broken(*_: object) -> bytes:
        raise KeyError("new")

    monkeypatch.setitem(session.OPERATIONS, Op.STATFS, broken)
    assert refused(kernel.ask, Op.STATFS, 1) == errno.EIO
    assert kernel.names(1) == ["good", "sub"]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.binary(max_size=200))
def test_nonsense_is_answered_and_the_next_request_served(kernel, data):
    for operation in range(60):
        if operation in (Op.INIT, Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT):
            continue
        size = HEADER.size + len(data)
        head = HEADER.pack(size, operation, 9, 1, 0, 0, 0, 0, 0)
        assert kernel.raw(head + data) is not None
    kernel.raw(data + b"\0")
    assert kernel.names(1) is not None
