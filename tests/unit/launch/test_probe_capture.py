"""What ``doctor`` says of capture on this machine, and of what would get past it."""

from __future__ import annotations

import errno

import pytest

from aesp_proxy.intercept.capture.who import Named
from aesp_proxy.intercept.capture.wish import Wish
from aesp_proxy.launch.probe import capture
from aesp_proxy.launch.probe.finding import Finding, Group, Level

WISH = Wish(named=Named(users=("4242",)))


def told(monkeypatch, outcome: tuple[int, int], wish: Wish | None, **state: object):
    def differences(_: object) -> list[str]:
        answer = state.get("differences", [])
        if isinstance(answer, OSError):
            raise answer
        return answer  # type: ignore[return-value]

    monkeypatch.setattr(capture, "tried", lambda: outcome)
    monkeypatch.setattr(capture.tables, "differences", differences)
    found = list(capture.capture_findings(wish, rules=str(state.get("rules", "daemon"))))
    assert {each.group for each in found} == {Group.CAPTURE}
    return {each.name: each for each in found}


def test_this_machine_is_tried_for_real():
    users, cgroups = capture.tried()
    assert isinstance(users, int)
    assert isinstance(cgroups, int)


def test_what_nobody_asks_for_is_not_missing(monkeypatch):
    found = told(monkeypatch, (errno.EPERM, errno.ENOENT), None)
    assert {name: each.level for name, each in found.items()} == {
        "users and groups": Level.UNUSED,
        "cgroups": Level.UNUSED,
    }
    assert "mounted" in found["cgroups"].remedy


def test_what_is_asked_for_and_cannot_be_is_missing(monkeypatch):
    found = told(monkeypatch, (errno.EOPNOTSUPP, errno.EOPNOTSUPP), WISH)
    assert found["users and groups"].level is Level.MISSING
    assert found["cgroups"].level is Level.UNUSED
    assert "nf_tables" in found["users and groups"].remedy


@pytest.mark.parametrize(
    ("differences", "rules", "level", "words"),
    [
        ([], "daemon", Level.OK, "stand"),
        (["the table aesp_proxy is gone"], "daemon", Level.WEAKER, "start `daemon`"),
        (["rule 1 is another"], "service", Level.WEAKER, "aesp-proxy-capture.service"),
        (OSError(errno.EPERM, "not permitted"), "daemon", Level.WEAKER, "as root"),
    ],
    ids=["stand", "gone", "other", "unseen"],
)
def test_whether_the_rules_stand_is_told(monkeypatch, differences, rules, level, words):
    finding = told(monkeypatch, (0, 0), WISH, differences=differences, rules=rules)["packet rules"]
    assert finding.level is level
    assert words in f"{finding.found} {finding.remedy}"


def test_names_that_cannot_be_captured_are_missing(monkeypatch):
    wish = Wish(named=Named(users=("no-user-of-that-name",)))
    assert told(monkeypatch, (0, 0), wish)["packet rules"].level is Level.MISSING


@pytest.mark.parametrize(
    ("hosts", "nscd", "level", "words"),
    [
        ("hosts: files dns", False, Level.OK, ""),
        ("passwd: files\nhosts:  files resolve [!UNAVAIL=return] dns", False, Level.WEAKER,
         "systemd-resolved"),
        ("hosts: files dns", True, Level.WEAKER, "nscd"),
        ("hosts: resolve", True, Level.WEAKER, "systemd-resolved and nscd"),
        (None, False, Level.OK, ""),
    ],
    ids=["network", "resolved", "nscd", "both", "no file"],
)  # fmt: skip
def test_who_is_asked_for_names_is_looked_up(tmp_path, hosts, nscd, level, words):
    if hosts is not None:
        (tmp_path / "nsswitch.conf").write_text(hosts)
    if nscd:
        (tmp_path / "nscd").touch()
    finding: Finding = capture._names(tmp_path / "nsswitch.conf", tmp_path / "nscd")
    assert finding.level is level
    assert words in finding.found


def test_modules_whose_sockets_are_nobodys_are_told(tmp_path):
    aliases = tmp_path / "modules.alias"
    assert capture._kernel_sockets(aliases).level is Level.OK
    aliases.write_text("alias net-pf-3 ax25\nalias net-pf-33 rxrpc\nalias net-pf-43 smc\n")
    finding = capture._kernel_sockets(aliases)
    assert finding.level is Level.WEAKER
    assert "rxrpc, smc" in finding.found
    assert "install smc /bin/false" in finding.remedy
