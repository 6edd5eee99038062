"""A stage without its mount: what is hidden, what reads as a change, what publishing does."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import time
from pathlib import Path

import pytest

from aesp_proxy.errors import ConfigError, RecordError, UnavailableError
from aesp_proxy.intercept.stage import publish as publishing
from aesp_proxy.intercept.stage.changes import Change, Kind, changes_of
from aesp_proxy.intercept.stage.publish import conflicts_of, publish
from aesp_proxy.intercept.stage.stage import Phase, Stage, make_stage, read_stage, read_stages
from aesp_proxy.intercept.stage.survey import Survey, hide_other_names, survey


def forbids(path: str) -> bool:
    return Path(path).name == ".env" or ".ssh" in path


def surveyed(tree: Path) -> Survey:
    found = survey(tree, forbids, entries_max=1_000)
    hide_other_names([found])
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "src" / "deep").mkdir(parents=True)
    (tree / ".ssh").mkdir()
    (tree / ".env").write_text("TOKEN=1")
    (tree / ".ssh" / "id").write_text("key")
    (tree / "src" / "main.py").write_text("print(1)\n")
    (tree / "src" / "deep" / "old.py").write_text("old\n")
    return tree


@pytest.fixture
def stage(tree: Path, tmp_path: Path) -> Stage:
    made = make_stage(
        tmp_path / "state" / "stage",
        [surveyed(tree)],
        session_id="s",
        command="agent",
        began_ns=time.time_ns() + 10**9,
    )
    return made.moved_to(Phase.ENDED)


def white_out(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))


def opaque(path: Path) -> None:
    os.setxattr(path, "user.overlay.opaque", b"y")


def listed(tree: Path) -> dict[str, str]:
    return {
        str(path.relative_to(tree)): path.read_text()
        for path in sorted(tree.rglob("*"))
        if path.is_file()
    }


# --- what is hidden -----------------------------------------------------------------


def test_forbidden_names_and_directories_are_hidden_and_nothing_else(tree):
    assert surveyed(tree).hidden == {".env", ".ssh"}


def test_other_names_of_a_forbidden_file_are_hidden_too(tree, tmp_path):
    os.link(tree / ".env", tree / "src" / "innocent.txt")
    os.link(tree / ".ssh" / "id", tree / "src" / "deep" / "also.txt")
    other = tmp_path / "other"
    other.mkdir()
    os.link(tree / ".env", other / "elsewhere")
    found = [survey(each, forbids, entries_max=100) for each in (tree, other)]
    hide_other_names(found)
    assert found[0].hidden == {".env", ".ssh", "src/innocent.txt", "src/deep/also.txt"}
    assert found[1].hidden == {"elsewhere"}


def test_names_that_are_no_text_and_links_in_a_circle_are_walked(tree):
    odd = os.fsencode(tree) + b"/\xff\xfe"
    Path(os.fsdecode(odd)).mkdir()
    Path(os.fsdecode(odd), ".env").write_text("x")
    (tree / "loop").symlink_to(tree)
    assert surveyed(tree).hidden == {".env", ".ssh", "\udcff\udcfe/.env"}


def test_a_tree_of_too_many_names_is_refused(tree):
    with pytest.raises(ConfigError, match="more than 3 names"):
        survey(tree, forbids, entries_max=3)


def test_hidden_names_are_whiteouts_below_directories_that_look_like_those_below(tree, stage):
    (tree / "src").chmod(0o750)
    (tree / "src" / ".env").write_text("x")
    made = make_stage(stage.folder.parent, [surveyed(tree)], session_id="", command="", began_ns=0)
    upper = made.trees[0].upper
    for name in (".env", ".ssh", "src/.env"):
        status = (upper / name).lstat()
        assert stat.S_ISCHR(status.st_mode)
        assert status.st_rdev == 0
    assert stat.S_IMODE((upper / "src").stat().st_mode) == 0o750


def test_a_stage_in_its_own_tree_is_refused(tree):
    with pytest.raises(ConfigError, match="lies in the tree"):
        make_stage(tree / "state", [surveyed(tree)], session_id="", command="", began_ns=0)


def test_the_only_stage_needs_no_name_and_of_several_they_are_told(stage, tree):
    folder = stage.folder.parent
    assert read_stage(folder, "").id == stage.id
    other = make_stage(
        folder, [surveyed(tree)], session_id="", command="", began_ns=0, policy="/p.yaml"
    )
    assert read_stage(folder, other.id).policy == "/p.yaml"
    with pytest.raises(ConfigError, match=f"which of 2 stages: {other.id}, {stage.id}"):
        read_stage(folder, "")
    for each in (stage, other):
        each.drop()
    with pytest.raises(ConfigError, match="no stage is kept"):
        read_stage(folder, "")


# --- what reads as a change -----------------------------------------------------------


def changes(stage: Stage) -> list[tuple[str, str]]:
    return [(change.kind.value, change.name) for change in changes_of(stage.trees[0])]


def test_nothing_done_is_no_change(stage):
    assert changes(stage) == []


def test_new_written_removed_and_remade_names_are_told_apart(tree, stage):
    upper = stage.trees[0].upper
    (upper / "src").mkdir()
    (upper / "src" / "main.py").write_text("print(2)\n")
    (upper / "src" / "new.py").write_text("new\n")
    (upper / "src" / "deep").mkdir()
    opaque(upper / "src" / "deep")
    (upper / "src" / "deep" / "other.py").write_text("other\n")
    (upper / "made").mkdir()
    (upper / "made" / "link").symlink_to("../src")
    assert changes(stage) == [
        ("mkdir", "made"),
        ("create", "made/link"),
        ("delete", "src/deep/old.py"),
        ("create", "src/deep/other.py"),
        ("write", "src/main.py"),
        ("create", "src/new.py"),
    ]


def test_a_copy_that_is_the_same_is_no_change_and_a_new_mode_is(tree, stage):
    upper = stage.trees[0].upper
    (upper / "src").mkdir()
    copy = upper / "src" / "main.py"
    copy.write_text("print(1)\n")
    copy.chmod((tree / "src" / "main.py").stat().st_mode & 0o777)
    assert changes(stage) == []
    copy.chmod(0o755)
    assert changes(stage) == [("mode", "src/main.py")]


def test_a_whiteout_is_a_deletion_only_where_the_name_was_to_be_seen(stage):
    upper = stage.trees[0].upper
    white_out(upper / "src")
    assert list(changes_of(stage.trees[0])) == [
        Change(kind=Kind.DELETE, name="src", is_directory=True)
    ]


def test_a_pipe_is_special(stage):
    os.mkfifo(stage.trees[0].upper / "pipe")
    assert changes(stage) == [("special", "pipe")]


# --- publishing -------------------------------------------------------------------------


def fill(stage: Stage) -> None:
    upper = stage.trees[0].upper
    (upper / "src").mkdir()
    (upper / "src" / "main.py").write_text("print(2)\n")
    (upper / "src" / "run").write_text("#!/bin/sh\n")
    (upper / "src" / "run").chmod(0o755)
    white_out(upper / "src" / "deep")
    (upper / "made" / "deeper").mkdir(parents=True)
    (upper / "made" / "deeper" / "file").write_text("x")
    (upper / "made" / "link").symlink_to("/etc/passwd")


PUBLISHED = {
    ".env": "TOKEN=1",
    ".ssh/id": "key",
    "made/deeper/file": "x",
    "src/main.py": "print(2)\n",
    "src/run": "#!/bin/sh\n",
}


def without_link(found: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in found.items() if name != "made/link"}


def test_a_published_stage_is_in_the_tree_and_gone(tree, stage):
    fill(stage)
    publish(stage)
    assert without_link(listed(tree)) == PUBLISHED
    assert (tree / "made" / "link").readlink() == Path("/etc/passwd")
    assert stat.S_IMODE((tree / "src" / "run").stat().st_mode) == 0o755
    assert not stage.folder.exists()
    assert [path.name for path in tree.iterdir() if "stage" in path.name] == []


def test_a_stage_whose_command_may_run_is_not_published(stage):
    with pytest.raises(ConfigError, match="may still run"):
        publish(stage.moved_to(Phase.OPEN))


def test_a_failure_while_it_is_prepared_changes_nothing(tree, stage, monkeypatch):
    fill(stage)
    before = listed(tree)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publishing.shutil, "copyfileobj", full)
    with pytest.raises(UnavailableError, match="No space left"):
        publish(stage)
    assert listed(tree) == before
    assert read_stage(stage.folder.parent, stage.id).phase is Phase.ENDED


class Killed(BaseException):
    pass


CALLS = ["rename", "unlink", "mkdir", "chmod", "fsync", "rmtree"]


@pytest.mark.parametrize("call", [*CALLS, "_sync_file_system"])
@pytest.mark.parametrize("after", range(4))
def test_a_publication_cut_off_anywhere_is_carried_through_by_the_next(
    call, after, tree, stage, monkeypatch
):
    fill(stage)
    owner = publishing.shutil if call == "rmtree" else publishing.os
    if call == "_sync_file_system":
        owner = publishing
        monkeypatch.setattr(publishing, "_ONE_BY_ONE_MAX", 0)
    real = getattr(owner, call)
    count = 0

    def dying(*words, **more):
        nonlocal count
        count += 1
        if count > after:
            raise Killed
        return real(*words, **more)

    with monkeypatch.context() as patched:
        patched.setattr(owner, call, dying)
        with contextlib.suppress(Killed):
            publish(stage)
    left = list(read_stages(stage.folder.parent))
    if left and left[0].phase is Phase.ENDED:
        # It died before the point of no return: the tree is as it was.
        assert listed(tree).keys() >= {"src/deep/old.py", "src/main.py"}
        assert (tree / "src" / "main.py").read_text() == "print(1)\n"
    for each in left:
        publish(each)
    assert without_link(listed(tree)) == PUBLISHED
    assert [path.name for path in tree.iterdir() if "stage" in path.name] == []


def test_what_cannot_be_synced_at_once_is_not_published(tree, stage, monkeypatch):
    fill(stage)
    monkeypatch.setattr(publishing, "_ONE_BY_ONE_MAX", 0)

    def failing(_: int) -> int:
        ctypes.set_errno(errno.EIO)
        return -1

    monkeypatch.setattr(publishing._LIBC, "syncfs", failing)
    before = listed(tree)
    with pytest.raises(UnavailableError, match="Input/output error"):
        publish(stage)
    assert listed(tree) == before


def test_what_the_host_changed_meanwhile_is_a_conflict(tree, stage):
    fill(stage)
    assert conflicts_of(stage) == []
    stage = read_stage(stage.folder.parent, stage.id)
    late = make_stage(stage.folder.parent, [surveyed(tree)], session_id="", command="", began_ns=0)
    fill(late)
    assert {each.name for each in conflicts_of(late)} == {"src/main.py", "src/deep"}


def test_a_link_that_took_the_place_of_a_directory_is_not_followed(tree, stage, tmp_path):
    fill(stage)
    outside = tmp_path / "outside"
    outside.mkdir()
    (tree / "src").rename(tree / "moved")
    (tree / "src").symlink_to(outside)
    publish(stage)
    assert list(outside.iterdir()) == []
    assert (tree / "moved" / "main.py").read_text() == "print(1)\n"


def test_a_broken_stage_is_told(stage):
    (stage.folder / "stage.json").write_text("{}")
    with pytest.raises(RecordError, match="this is no stage"):
        read_stage(stage.folder.parent, stage.id)


def test_no_stage_of_that_name_is_told(stage):
    with pytest.raises(ConfigError, match="there is no stage"):
        read_stage(stage.folder.parent, "../x")
