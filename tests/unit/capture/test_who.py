"""Who is meant by the names that an operator writes."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from aesp_proxy.errors import ConfigError
from aesp_proxy.intercept.capture import who
from aesp_proxy.intercept.capture.ruleset import Selection
from aesp_proxy.intercept.capture.who import Named, cgroup_root, found

NOWHERE = Path("/nonexistent")


@pytest.fixture
def people(monkeypatch):
    """Three users, of which two are of the group agents, one by its own entry."""
    users = [
        SimpleNamespace(pw_name="root", pw_uid=0, pw_gid=0),
        SimpleNamespace(pw_name="ann", pw_uid=1001, pw_gid=500),
        SimpleNamespace(pw_name="bob", pw_uid=1002, pw_gid=100),
        SimpleNamespace(pw_name="eve", pw_uid=1003, pw_gid=100),
    ]
    groups = [SimpleNamespace(gr_name="agents", gr_gid=500, gr_mem=["bob", "gone", "root"]),
              SimpleNamespace(gr_name="users", gr_gid=100, gr_mem=[])]  # fmt: skip

    def by(entries, field):
        def find(value):
            for each in entries:
                if getattr(each, field) == value:
                    return each
            raise KeyError(value)

        return find

    monkeypatch.setattr(
        who,
        "pwd",
        SimpleNamespace(
            getpwnam=by(users, "pw_name"), getpwuid=by(users, "pw_uid"), getpwall=lambda: users
        ),
    )
    monkeypatch.setattr(
        who, "grp", SimpleNamespace(getgrnam=by(groups, "gr_name"), getgrgid=by(groups, "gr_gid"))
    )


def test_users_are_found_by_name_and_by_id(people):
    named = Named(users=("eve", "4242", "1004"))
    assert found(named, proxy_uid=0, subuid=NOWHERE).uids == ((1003, 1004), (4242, 4242))


def test_a_group_is_its_members_too_as_they_may_leave_it(people):
    told = found(Named(groups=("agents",)), proxy_uid=0, subuid=NOWHERE)
    assert told == Selection(uids=((1001, 1002),), gids=(500,))


def test_ids_that_a_user_may_take_are_captured_with_it(people, tmp_path):
    subuid = tmp_path / "subuid"
    subuid.write_text(
        "ann:100000:65536\n1002:200000:10\neve:300000:5\nann:x:1\nann:5\n\nbob:400000:0\n"
    )
    told = found(Named(users=("ann", "bob")), proxy_uid=0, subuid=subuid)
    assert told.uids == ((1001, 1002), (100_000, 165_535), (200_000, 200_009))


@pytest.mark.parametrize(
    ("named", "proxy_uid", "words"),
    [
        (Named(users=("nobody-here",)), 0, "capture.users: nobody-here: no such user"),
        (Named(users=("99999999999",)), 0, "no such user"),
        (Named(users=("-1",)), 0, "no such user"),
        (Named(groups=("none",)), 0, "capture.groups: none: no such group"),
        (Named(users=("root",)), 0, "root cannot be captured"),
        (Named(users=("0",)), 0, "root cannot be captured"),
        (Named(groups=("0",)), 0, "root cannot be captured"),
        (Named(users=("eve",)), 1003, "the proxy's own user"),
        (Named(groups=("agents",)), 1002, "group agents: the proxy's own user"),
        (Named(cgroups=("/",)), 0, "not the path of a cgroup"),
        (Named(cgroups=("a/../b",)), 0, "not the path of a cgroup"),
        (Named(cgroups=("a//b",)), 0, "not the path of a cgroup"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_who_cannot_be_captured_is_an_error_with_its_name(people, named, proxy_uid, words):
    with pytest.raises(ConfigError) as raised:
        found(named, proxy_uid=proxy_uid, subuid=NOWHERE)
    assert words in str(raised.value)


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """A directory that stands for the mount of cgroup version 2."""
    mounts, own = tmp_path / "mounts", tmp_path / "own"
    root = tmp_path / "cgroup"
    (root / "agents.slice/one").mkdir(parents=True)
    mounts.write_text(f"30 23 0:26 / {root} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n")
    own.write_text("1:name=systemd:/x\n0::/system.slice/aesp-proxy.service\n")
    monkeypatch.setattr(who, "_MOUNTS", mounts)
    monkeypatch.setattr(who, "_OWN_CGROUP", own)
    return root


def test_a_cgroup_is_known_by_the_number_of_its_directory(tree):
    (told,) = found(Named(cgroups=("/agents.slice/one",)), proxy_uid=0).cgroups
    assert told == ("agents.slice/one", os.stat(tree / "agents.slice/one").st_ino)  # noqa: PTH116


def test_a_cgroup_that_is_not_there_or_holds_the_proxy_is_an_error(tree):
    with pytest.raises(ConfigError, match="no such cgroup"):
        found(Named(cgroups=("agents.slice/two",)), proxy_uid=0)
    for path in ("system.slice", "system.slice/aesp-proxy.service"):
        with pytest.raises(ConfigError, match="the proxy itself runs in it"):
            found(Named(cgroups=(path,)), proxy_uid=0)


def test_without_cgroup_version_2_no_cgroup_is_captured(tree, tmp_path):
    (tmp_path / "mounts").write_text("30 23 0:26 / /sys/fs/cgroup rw - cgroup cgroup rw\n")
    with pytest.raises(ConfigError, match="version 2 is not mounted"):
        found(Named(cgroups=("agents.slice",)), proxy_uid=0)
    assert cgroup_root("x") is None
