"""Which inodes are forbidden, by which name, and what a rename changes of that."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aesp_proxy.errors import ConfigError
from aesp_proxy.intercept.fanotify.forbidden import Forbidden


class Marks:
    """Takes the place of the groups: what was marked, by inode."""

    def __init__(self) -> None:
        self.inodes: list[int] = []

    def forbid(self, descriptor: int) -> None:
        self.inodes.append(os.fstat(descriptor).st_ino)


def hides(path: str) -> bool:
    return "/.env" in path or "/.ssh" in path


def inode(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("sub/.env", ".ssh/id", "a/b/fine", ".git/hooks/pre-commit"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "way").symlink_to("sub/.env")
    return tmp_path


def test_a_survey_marks_what_is_hidden_and_knows_what_others_run(tree):
    marks = Marks()
    forbidden = Forbidden(hides, marks, entries_max=100)
    assert forbidden.survey((str(tree),)) == 11
    wanted = {inode(tree / name): f"{tree}/{name}" for name in ("sub/.env", ".ssh", ".ssh/id")}
    assert forbidden.names == wanted
    assert sorted(marks.inodes) == sorted(number for _, number in wanted)
    hook = tree / ".git/hooks/pre-commit"
    assert forbidden.trusted_name(inode(hook)) == str(hook)
    assert forbidden.trusted_name(inode(tree / "a/b/fine")) == ""
    hook.rename(tree / "elsewhere")
    assert forbidden.trusted_name(inode(tree / "elsewhere")) == ""


def test_more_names_than_are_walked_are_refused(tree):
    with pytest.raises(ConfigError, match="more than 3 names"):
        Forbidden(hides, Marks(), entries_max=3).survey((str(tree),))


def test_a_renamed_directory_is_forbidden_with_all_below_it(tree):
    forbidden = Forbidden(hides, Marks(), entries_max=100)
    (tree / "a").rename(tree / ".ssh2")
    forbidden.moved(f"{tree}/.ssh2", freed=False)
    assert forbidden.names[inode(tree / ".ssh2/b/fine")] == f"{tree}/.ssh2/b/fine"


@pytest.mark.parametrize(("freed", "name"), [(True, "plain"), (False, "sub/.env")])
def test_only_who_is_not_watched_frees_a_file_by_a_rename(tree, freed, name):
    forbidden = Forbidden(hides, Marks(), entries_max=100)
    forbidden.survey((str(tree),))
    (tree / "sub/.env").rename(tree / "plain")
    forbidden.moved(f"{tree}/plain", freed=freed)
    assert forbidden.names[inode(tree / "plain")] == f"{tree}/{name}"


def test_what_is_gone_before_it_is_marked_is_passed_over(tree):
    forbidden = Forbidden(hides, Marks(), entries_max=100)
    forbidden.appeared(f"{tree}/gone/.env")
    assert forbidden.names == {}
