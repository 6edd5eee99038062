"""Forbidden names that git tracks are seen, so that git does not take them for deleted."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.errors import InputError
from aesp_proxy.intercept.fuse.tracked import Tracked
from aesp_proxy.normalize.git_index import tracked_names

NAMES = ["a", "config/.env", "secret/deep/x.txt", "secret/y", "ü/\udcff"]


def git(tree: Path, *words: str) -> None:
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "HOME": str(tree)}
    subprocess.run(["git", "-C", str(tree), *words], check=True, env={**os.environ, **quiet},
                   capture_output=True)  # fmt: skip


@pytest.fixture(params=["2", "3", "4", "sha256"])
def repository(request, tmp_path: Path) -> Path:
    tree = tmp_path / "w"
    tree.mkdir()
    kind = "sha256" if request.param == "sha256" else "sha1"
    git(tree, "init", "-q", f"--object-format={kind}")
    for name in NAMES:
        place = tree / os.fsdecode(os.fsencode(name))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("x")
    git(tree, "add", "-A")
    (tree / "secret" / "untracked").write_text("x")
    (tree / ".env").write_text("x")
    if request.param == "3":
        git(tree, "update-index", "--skip-worktree", "a")
    if request.param == "4":
        git(tree, "update-index", "--index-version", "4")
    return tree


def test_all_names_of_an_index_are_read_whatever_its_version(repository):
    names = tracked_names((repository / ".git" / "index").read_bytes())
    assert {os.fsdecode(name) for name in names} == set(NAMES)


def test_what_git_tracks_below_hidden_names_is_seen_and_the_rest_is_not(repository):
    tracked = Tracked(str(repository))
    names = [".env", "config/.env", "secret", "secret/deep", "secret/deep/x.txt", "secret/y"]
    seen = [name for name in (*names, "secret/untracked") if tracked.shows(f"{repository}/{name}")]
    assert seen == names[1:]


def test_a_worktree_has_an_index_of_its_own(tmp_path):
    main, other = tmp_path / "main", tmp_path / "other"
    main.mkdir()
    git(main, "init", "-q")
    (main / ".env").write_text("x")
    git(main, "add", "-A")
    git(main, "-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "m")
    git(main, "worktree", "add", "-q", str(other))
    assert Tracked(str(other)).shows(f"{other}/.env")


@given(data=st.binary(max_size=300), head=st.booleans(), version=st.integers(0, 5))
def test_bytes_that_are_no_index_are_refused_or_give_names(data, head, version):
    if head:
        data = b"DIRC" + version.to_bytes(4, "big") + b"\0\0\0\1" + data
    try:
        names = tracked_names(data)
    except InputError:
        return
    assert all(name and not name.startswith(b"/") for name in names)


def test_a_tree_without_a_repository_shows_nothing_hidden(tmp_path):
    (tmp_path / ".git").write_text("gitdir: /nowhere")
    assert not Tracked(str(tmp_path)).shows(f"{tmp_path}/.env")
