"""The other names of forbidden files: found while there is nothing else to do, or on demand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from file_lab import FILES_POLICY, file_gate, file_judge, files_snapshot

from aesp_proxy.errors import UnavailableError
from aesp_proxy.intercept.other_names import Inode, OtherNames

POLICY = FILES_POLICY.replace("exceptions: [", 'exceptions: ["**/packages/**", "**/one/*", ')


@pytest.fixture(scope="module")
def snapshot():
    return files_snapshot(POLICY)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("deep/er/.env", "secret/in/x", "plain", "packages/p/.env", "one/two/.env"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
        os.link(tmp_path / name, tmp_path / f"{name.replace('/', '_')}.link")
    return tmp_path


def inode(path: Path) -> Inode:
    status = path.stat()
    return Inode(status.st_dev, status.st_ino)


def test_a_file_is_known_by_its_forbidden_name_whatever_else_it_is_called(snapshot, tree):
    names = OtherNames(file_gate(snapshot), [str(tree)], entries_max=100)
    assert not names.is_done
    assert names.forbidden(inode(tree / "deep_er_.env.link")) == f"{tree}/deep/er/.env"
    assert names.is_done
    assert names.has(inode(tree / "secret_in_x.link"))
    assert names.has(inode(tree / "one_two_.env.link"))
    assert names.forbidden(inode(tree / "plain.link")) == ""


def test_what_an_exception_covers_whole_is_not_read(snapshot, tree):
    gate = file_gate(snapshot)
    assert gate.hides_nothing_below(f"{tree}/packages")
    assert gate.hides_nothing_below(f"{tree}/packages/p")
    assert not gate.hides_nothing_below(f"{tree}/one")
    assert not gate.hides_nothing_below(str(tree))
    names = OtherNames(gate, [str(tree)], entries_max=100)
    assert names.forbidden(inode(tree / "packages_p_.env.link")) == ""


def test_it_goes_on_step_by_step_and_begins_again_with_another_policy(snapshot, tree):
    gate = file_gate(snapshot)
    tended = []
    names = OtherNames(
        gate, [str(tree)], entries_max=100, apart=[f"{tree}/secret"], tend=lambda: tended.append(1)
    )
    steps = 0
    while not names.is_done:
        names.step()
        steps += 1
    assert 3 < steps < 20
    assert not names.has(inode(tree / "secret_in_x.link"))
    gate.swap(file_judge(files_snapshot(POLICY.replace("**/.env", "**/plain"))))
    assert not names.is_done
    assert names.forbidden(inode(tree / "plain.link")) == f"{tree}/plain"


def test_more_names_than_are_looked_at_are_a_doubt(snapshot, tree):
    names = OtherNames(file_gate(snapshot), [str(tree)], entries_max=3)
    with pytest.raises(UnavailableError, match="more than 3 names"):
        names.forbidden(inode(tree / "plain.link"))
