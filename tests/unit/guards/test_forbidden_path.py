"""Paths: the given and the resolved one both count; exceptions cannot be borrowed."""

from __future__ import annotations

import pytest

from aesp_proxy.decide.engine import decide
from aesp_proxy.model.decision import Reason, Verdict

POLICY = """\
forbidden_path:
  patterns:
    - /root/**
    - "**/.env"
    - "**/.env.*"
    - "**/.ssh/**"
  exceptions:
    - "**/.env.example"
"""


@pytest.mark.parametrize(
    ("given", "resolved", "allowed"),
    [
        ("/w/a.py", "/w/a.py", True),
        ("/root", "/root", False),
        ("/root/a", "/root/a", False),
        ("/w/.env", "/w/.env", False),
        ("/w/.ENV", "/w/.ENV", False),
        ("/w/link", "/root/a", False),
        ("/w/.env", "/w/harmless", False),
        ("/w/.env.example", "/w/.env.example", True),
        ("/w/.ENV.EXAMPLE", "/w/.ENV.EXAMPLE", False),
        ("/w/link", "/w/.env.example", True),
        ("/w/.env.example", "/root/a", False),
        ("/w/.env.example", "/w/.env", False),
        ("/w/.env.example", "/w/harmless", False),
        ("/w/.env", "/w/.env.example", False),
        ("/root/a", "/w/.env.example", False),
    ],
)
def test_a_path_is_decided_as_given_and_as_resolved(
    given, resolved, allowed, events, snapshot_of
) -> None:
    decision = decide(events.file(given, resolved), snapshot_of(POLICY))
    assert decision.verdict is (Verdict.ALLOW if allowed else Verdict.DENY)
    assert decision.guard == "forbidden_path"
    if not allowed:
        assert decision.reason is Reason.PATH_FORBIDDEN


def test_a_patch_is_an_access_to_its_file(events, snapshot_of) -> None:
    snapshot = snapshot_of(POLICY)
    assert decide(events.patch("/w/.ssh/config"), snapshot).reason is Reason.PATH_FORBIDDEN
    assert decide(events.patch("/w/a.py"), snapshot).verdict is Verdict.ALLOW


@pytest.mark.parametrize(
    "section", ["", "forbidden_path: {enabled: false}", "egress_allowlist: {default_action: allow}"]
)
def test_without_the_guard_no_path_is_allowed(section, events, snapshot_of) -> None:
    decision = decide(events.file("/w/a.py"), snapshot_of(section))
    assert decision.reason is Reason.NO_GUARD
    assert decision.remediation[-1] == "Ask the owner of p.yaml to switch on guards.forbidden_path."


def test_a_refusal_names_the_pattern_its_line_and_the_link(events, snapshot_of) -> None:
    decision = decide(events.file("/w/notes\x1b[2J", "/home/x/.ssh/id"), snapshot_of(POLICY))
    assert decision.source == "p.yaml:9"
    assert decision.message == (
        "'/w/notes\\x1b[2J' is forbidden by **/.ssh/** (it resolves to /home/x/.ssh/id)"
    )
    assert "p.yaml (line 9)" in decision.remediation[1]


def test_the_built_in_patterns_hold_when_none_are_stated(events, snapshot_of) -> None:
    snapshot = snapshot_of("forbidden_path: {}")
    for path in ("/home/x/.ssh/id_rsa", "/w/.env", "/etc/shadow", "/root/x", "/w/server.pem"):
        assert decide(events.file(path), snapshot).reason is Reason.PATH_FORBIDDEN
    assert decide(events.file("/w/src/main.py"), snapshot).verdict is Verdict.ALLOW
