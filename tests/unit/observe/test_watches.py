"""What is seen of a tree by inotify alone: all that stays, and a gap that is told."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from aesp_proxy.errors import ConfigError
from aesp_proxy.intercept.observe import watches as module
from aesp_proxy.intercept.observe.watches import Seen, Watches, What


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    (made / "sub").mkdir(parents=True)
    (made / "sub" / "old").write_text("old")
    return made


@pytest.fixture
def watch() -> Iterator[Callable[..., Watches]]:
    with ExitStack() as stack:

        def begin(tree: str, apart: tuple[str, ...] = ()) -> Watches:
            watches = Watches((tree,), apart, entries_max=100_000)
            stack.callback(watches.close)
            return watches

        yield begin


def drained(watches: Watches, *, quiet_s: float = 0.2) -> list[Seen]:
    seen = []
    while select.select([watches.fileno()], [], [], quiet_s)[0]:
        seen += watches.read()
    return seen


def told(seen: list[Seen], what: What, base: Path) -> list[str]:
    return [str(Path(each.path).relative_to(base)) for each in seen if each.what is what]


WRITER = """\
import os, sys
for number in range(200):
    folder = f"{sys.argv[1]}/{number % 20}/a/{number}/b"
    os.makedirs(folder)
    with open(folder + "/file", "w") as file:
        file.write("x")
"""


def test_two_hundred_files_in_just_made_nested_directories_are_all_seen_once(watch, tree):
    watches = watch(str(tree), ())
    writer = subprocess.Popen([sys.executable, "-I", "-c", WRITER, str(tree)])
    seen = []
    while writer.poll() is None:
        if select.select([watches.fileno()], [], [], 0.01)[0]:
            seen += watches.read()
    seen += drained(watches)
    created = told(seen, What.CREATED, tree)
    files = {f"{number % 20}/a/{number}/b/file" for number in range(200)}
    assert files <= set(created)
    assert len(created) == len(set(created))


def test_each_change_is_told_by_its_names(watch, tree):
    watches = watch(str(tree), ())
    (tree / "new").write_text("x")
    (tree / "new").rename(tree / "sub" / "moved")
    (tree / "sub").rename(tree / "other")
    (tree / "other" / "moved").chmod(0o600)
    (tree / "other" / "moved").unlink()
    (tree / "other" / "old").read_text()
    assert drained(watches) == [
        Seen(What.CREATED, f"{tree}/new"),
        Seen(What.OPENED, f"{tree}/new"),
        Seen(What.WRITTEN, f"{tree}/new"),
        Seen(What.RENAMED, f"{tree}/new", to=f"{tree}/sub/moved"),
        Seen(What.RENAMED, f"{tree}/sub", to=f"{tree}/other", is_directory=True),
        Seen(What.CHANGED, f"{tree}/other/moved"),
        Seen(What.DELETED, f"{tree}/other/moved"),
        Seen(What.OPENED, f"{tree}/other/old"),
    ]


def test_what_leaves_the_tree_is_told_as_gone_and_not_followed(watch, tree, tmp_path):
    watches = watch(str(tree), ())
    (tree / "sub").rename(tmp_path / "outside")
    assert told(drained(watches), What.DELETED, tree) == ["sub"]
    (tmp_path / "outside" / "secret").write_text("x")
    assert drained(watches) == []
    (tmp_path / "outside").rename(tree / "back")
    assert set(told(drained(watches), What.CREATED, tree)) == {"back", "back/old", "back/secret"}


def test_what_is_apart_is_not_watched(watch, tree):
    watches = watch(str(tree), (str(tree / "sub"),))
    (tree / "sub" / "record").write_text("x")
    assert drained(watches) == []


def test_a_queue_that_was_full_is_told_and_what_changed_meanwhile_is_found_by_looking(watch, tree):
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    watches = watch(str(tree), ())
    for number in range(most // 3 + 10):
        (tree / "a").write_text(str(number))
        (tree / "a").unlink()
        if number % 64 == 0:
            (tree / "b").write_text(str(number))
    (tree / "late").write_text("x")
    (tree / "sub" / "made").mkdir()
    (tree / "sub" / "made" / "file").write_text("x")
    seen = drained(watches)
    assert sum(each.what is What.GAP for each in seen) == 1
    after = seen[[each.what for each in seen].index(What.GAP) :]
    assert {"late", "sub/made", "sub/made/file"} <= {
        *told(after, What.WRITTEN, tree),
        *told(after, What.CREATED, tree),
    }


def test_more_names_than_are_looked_through_are_refused_at_the_start(tree):
    with pytest.raises(ConfigError, match="more than 1 names"):
        Watches((str(tree),), (), entries_max=1)


def test_a_directory_closed_to_us_is_passed_over(watch, tree, monkeypatch):
    def closed(_: str) -> object:
        raise PermissionError

    monkeypatch.setattr(module.os, "scandir", closed)
    watches = watch(str(tree), ())
    assert os.get_inheritable(watches.fileno()) is False
    watches.close()
