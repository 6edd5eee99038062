"""An opening that was decided once is quick again, and only as long as nothing has changed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from file_lab import FILES_POLICY, TOKEN, Recorded, file_gate, file_judge, files_snapshot
from fuse_kernel import Kernel, RefusedError

from aesp_proxy.intercept.fuse.operations import content


class Opened:
    """A file that was opened twice, and so is known."""

    def __init__(self, root: Path) -> None:
        self.root, self.path = root, root / "sub" / "good"
        self.journal = Recorded()
        self.gate = file_gate(journal=self.journal, reading_refuses=True)
        self.kernel = Kernel(root, self.gate)
        self.node = self.kernel.walk("sub/good")
        for _ in range(2):
            self.read()

    def read(self) -> bytes:
        handle = self.kernel.open(self.node)
        found = self.kernel.read(self.node, handle)
        self.kernel.close(self.node, handle)
        return found


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    (tmp_path / "t" / "sub").mkdir(parents=True)
    (tmp_path / "t" / "sub" / "good").write_text("good\n")
    made = Opened(tmp_path / "t")
    yield made
    made.kernel.end()


def test_a_known_opening_asks_nobody_and_is_recorded_once(opened, monkeypatch):
    told = len(opened.journal.records)
    monkeypatch.setattr(content, "opened", None)  # the long way is not taken
    assert [opened.read() for _ in range(50)] == [b"good\n"] * 50
    assert len(opened.journal.records) == told
    assert not opened.kernel.view._tree.handles


def _secret_of_the_same_size_and_time(opened: Opened) -> None:
    found = opened.path.stat()
    opened.path.write_text(TOKEN[: found.st_size])
    opened.path.write_text(f"{TOKEN}\n")
    os.utime(opened.path, ns=(found.st_atime_ns, found.st_mtime_ns))


def _replaced_by_a_rename(opened: Opened) -> None:
    (opened.root / "new").write_text(f"{TOKEN}\n")
    (opened.root / "new").rename(opened.path)


def _link_to_forbidden(opened: Opened) -> None:
    (opened.root / ".env").write_text("X")
    opened.path.unlink()
    opened.path.symlink_to("../.env")


def _other_name(opened: Opened) -> None:
    os.link(opened.path, opened.root / ".env")
    assert opened.kernel.lookup(1, ".env") is None


def _policy(opened: Opened) -> None:
    forbids = FILES_POLICY.replace('"**/.env"', '"**/.env", "**/good"')
    opened.gate.swap(file_judge(files_snapshot(forbids)))


def _pipe(opened: Opened) -> None:
    opened.path.unlink()
    os.mkfifo(opened.path)


def _renamed_directory(opened: Opened) -> None:
    (opened.root / "sub").rename(opened.root / "sub2")
    (opened.root / "sub").mkdir()
    opened.path.write_text("another\n")


CHANGES: dict[str, tuple[Callable[[Opened], None], int]] = {
    "its content, with its old times": (_secret_of_the_same_size_and_time, errno.EPERM),
    "another file in its place": (_replaced_by_a_rename, errno.ESTALE),
    "a link in its place": (_link_to_forbidden, errno.ELOOP),
    "a forbidden name besides": (_other_name, errno.EACCES),
    "the policy": (_policy, errno.EACCES),
    "a pipe in its place": (_pipe, errno.ESTALE),
    "it is gone": (lambda opened: opened.path.unlink(), errno.ESTALE),
}


@pytest.mark.parametrize(("change", "number"), CHANGES.values(), ids=CHANGES)
def test_what_others_change_underneath_is_decided_anew(opened, change, number):
    change(opened)
    with pytest.raises(RefusedError) as error:
        opened.read()
    assert error.value.errno == number


def test_a_change_that_is_allowed_is_scanned_again_and_seen(opened):
    opened.path.write_text("other\n")
    assert opened.read() == b"other\n"
    assert opened.read() == b"other\n"
    opened.path.write_text(f"{TOKEN}\n")
    with pytest.raises(RefusedError):
        opened.read()


def test_what_the_agent_itself_writes_or_moves_is_known_no_more(opened):
    kernel = opened.kernel
    handle = kernel.open(opened.node, os.O_WRONLY)
    kernel.write(opened.node, handle, b"mine\n")
    # Written, and not closed yet: read is what was written.
    assert opened.read() == b"mine\n"
    assert kernel.close(opened.node, handle) == 0
    assert opened.read() == b"mine\n"
    kernel.rename((kernel.walk("sub"), "good"), (1, "moved"))
    assert opened.read() == b"mine\n"
    kernel.rename((1, "sub"), (1, "sub2"))
    assert opened.read() == b"mine\n"
    names = {each.target_path for each in opened.journal.records}
    assert str(opened.root / "moved") in names


RULE = """\
rules:
  - policy_id: by.day
    version: 1.0.0
    description: Read by day.
    applies_to: ["file:/**"]
    rule: {actions: [file.open], condition: "request.time.getHours('UTC') < 25", effect: ALLOW}
"""


def test_a_policy_whose_answers_may_end_is_asked_each_time(opened, monkeypatch):
    opened.gate.swap(file_judge(files_snapshot(FILES_POLICY + RULE)))
    assert not opened.gate.is_lasting
    taken = []
    real = content.opened
    monkeypatch.setattr(content, "opened", lambda *given: taken.append(given) or real(*given))
    for _ in range(3):
        opened.read()
    assert len(taken) == 3
