"""Repositories as they stand about: not checked out, bare, linked, empty, with pointers."""

from __future__ import annotations

from pathlib import Path

import pytest
from scan_lab import Call, Repository, token

JSON = ("--format", "json")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4d7a" * 16 + "\nsize 12\n"


@pytest.fixture
def with_submodule(repository: Repository, tmp_path: Path) -> Repository:
    """Give a repository with a file, and a submodule with another."""
    inner = Repository(tmp_path / "inner")
    inner.path.mkdir()
    inner.git("init", "--quiet", "--initial-branch=main")
    inner.write("deep", token(1))
    inner.commit()
    repository.write("top", token(2))
    repository.git(
        "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner.path), "sub"
    )
    repository.commit()
    return repository


def _beside(repository: Repository, *arguments: str) -> Repository:
    other = Repository(repository.path.parent / "other")
    repository.git(*arguments, str(other.path))
    return other


@pytest.mark.parametrize(
    "how", [("clone", "--quiet", "."), ("worktree", "add", "--quiet")], ids=str
)
def test_a_submodule_that_is_not_checked_out_is_said(
    scan: Call, with_submodule: Repository, how: tuple[str, ...]
):
    assert {leak["File"] for leak in scan(".", *JSON).leaks} == {"sub/deep", "top"}
    other = _beside(with_submodule, *how)
    done = scan(str(other.path), *JSON)
    assert [leak["File"] for leak in done.leaks] == [str(other.path / "top")]
    assert f"left out: {other.path}/sub: a submodule that is not checked out" in done.stderr
    other.write("sub/left", token(3))
    assert len(scan(str(other.path), *JSON).leaks) == 2


def test_a_bare_repository_is_read_by_its_history(scan: Call, with_submodule: Repository):
    other = _beside(with_submodule, "clone", "--quiet", "--bare", ".")
    assert [leak["File"] for leak in scan("--history", str(other.path), *JSON).leaks] == ["top"]
    assert scan(str(other.path)).returncode == 1  # its objects, unpacked


def test_a_linked_work_tree_has_the_history_of_its_repository(
    scan: Call, with_submodule: Repository
):
    other = _beside(with_submodule, "worktree", "add", "--quiet")
    other.write("new", token(4))
    other.git("add", "new")
    assert [leak["File"] for leak in scan("--history", str(other.path), *JSON).leaks] == ["top"]
    assert [leak["File"] for leak in scan("--staged", str(other.path), *JSON).leaks] == ["new"]


def test_a_pointer_of_lfs_is_said(scan: Call, repository: Repository):
    repository.write("movie", POINTER)
    repository.write("text", POINTER + token(1) * 30)
    done = scan(".")
    assert "left out: movie: a pointer of Git LFS: what it stands for is not here" in done.stderr
    assert "left out: text" not in done.stderr


@pytest.mark.parametrize(
    "options",
    ["--oneline", "--no-patch", "--format=%H", "--color=always", "-U9", "--stat", "--relative=x"],
)
def test_options_of_git_log_hide_nothing(scan: Call, repository: Repository, options: str):
    repository.write("a", f"{token(1)}\n")
    commit = repository.commit()
    (leak,) = scan("--history", "--log-opts", options, *JSON).leaks
    assert (leak["Commit"], leak["File"]) == (commit, "a")


@pytest.mark.parametrize(
    "options",
    [
        "--name-only", "--name-st", "-R", "-w", "-b", "-Ix", "-z", "--raw", "--check", "--graph",
        "--output=x", "--outp=x", "--word-diff", "--ignore-all-space", "--line-prefix=x",
    ],
)  # fmt: skip
def test_those_that_would_are_refused(scan: Call, repository: Repository, options: str):
    repository.write("a", f"{token(1)}\n")
    repository.commit()
    done = scan("--history", "--log-opts", options)
    assert done.returncode == 5
    assert "would change what is read" in done.stderr
    assert not (repository.path / "x").exists()


def test_paths_may_follow_options_of_git_log(scan: Call, repository: Repository):
    repository.write("a", f"{token(1)}\n")
    repository.write("-w", f"{token(2)}\n")
    repository.commit()
    (leak,) = scan("--history", "--log-opts", "--all -- -w", *JSON).leaks
    assert leak["File"] == "-w"
