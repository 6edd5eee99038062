"""Live views inside the walls: which trees, and never none where one is wanted."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from aesp_proxy.intercept.fuse.roots import outermost
from aesp_proxy.launch.isolation import fuse_mount, inside, view
from aesp_proxy.launch.isolation.layers import Layer
from aesp_proxy.launch.isolation.wish import Wish


def test_a_view_that_is_wanted_and_has_no_directory_does_not_stand(tmp_path: Path):
    outcomes = {Layer.MOUNTS: 0}
    assert inside._make_views(Wish(layers=(Layer.FUSE,)), outcomes) == []
    assert outcomes[Layer.FUSE] == errno.ENOENT


def test_without_mounts_of_its_own_there_is_no_view(tmp_path: Path):
    listed = tmp_path / "list"
    view.write(str(listed), [("fuse", str(tmp_path)), ("cover", "/a", "/b")])
    assert view.fuse_trees(str(listed)) == [str(tmp_path)]
    outcomes = {Layer.MOUNTS: errno.EPERM}
    assert inside._make_views(Wish(layers=(Layer.FUSE,), view=str(listed)), outcomes) == []
    assert outcomes[Layer.FUSE] == errno.EPERM


def test_the_root_itself_is_no_view():
    with pytest.raises(OSError, match="root"):
        fuse_mount.make("/")


def test_what_lies_in_another_directory_is_seen_through_that():
    trees = ["/home/u/p", "/home/u", "/home/us", "/srv/x", "/srv/x"]
    assert outermost(trees) == ("/home/u", "/home/us", "/srv/x")
    assert outermost([os.sep, "/home"]) == (os.sep,)
