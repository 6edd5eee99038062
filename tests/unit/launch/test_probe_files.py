"""What doctor says of files of agents that run already."""

from __future__ import annotations

import os

import pytest

from aesp_proxy.errors import UnavailableError
from aesp_proxy.launch.probe import files
from aesp_proxy.launch.probe.finding import Level


@pytest.mark.parametrize(("named", "level"), [(True, Level.MISSING), (False, Level.UNUSED)])
def test_without_the_privilege_it_is_missing_only_where_somebody_is_watched(
    monkeypatch, named, level
):
    def refused():
        raise UnavailableError("not permitted")

    monkeypatch.setattr(files, "make_groups", refused)
    watch, observe = files.file_findings((), named=named)
    assert (watch.level, watch.found) == (level, "not permitted")
    assert "CAP_SYS_ADMIN" in watch.remedy
    assert "nothing is stopped" in observe.meaning


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes groups")
def test_as_root_it_can_be_asked_and_trees_are_looked_at(tmp_path):
    found = {each.name: each for each in files.file_findings((str(tmp_path),), named=True)}
    if found["watch (fanotify)"].level is not Level.OK:
        pytest.skip(found["watch (fanotify)"].found)
    assert found["observe (inotify)"].level in (Level.OK, Level.UNUSED)
    assert not any(name.startswith("file system") for name in found)
