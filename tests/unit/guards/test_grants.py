"""Grants: each lifts one kind of refusal of what it names, while it lasts, and no other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aesp_proxy.decide.answer import Answer
from aesp_proxy.decide.engine import address_decision, decide
from aesp_proxy.decide.grants import Grants
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Reason, Severity, Verdict
from aesp_proxy.model.grant import Grant, GrantKind
from aesp_proxy.model.host import parse_host

POLICY = """\
egress_allowlist:
  allow: [good.example]
  block: [bad.example, "*.evil.example", 9.9.9.9]
forbidden_path:
  patterns: ["/secret/**", "**/.env"]
mcp_tool:
  allow: [read]
  block: [rm, ask_and_block]
  require_confirmation: [ask, ask_and_block]
  max_args_size: 10
"""
KINDS = {"egress": GrantKind.EGRESS, "path": GrantKind.PATH, "tool": GrantKind.TOOL}


def grant(kind: str, pattern: str, from_ns: int = 0, until_ns: int = 10**18) -> Grant:
    return Grant(
        grant_id="EX-1",
        kind=KINDS[kind],
        pattern=pattern,
        from_ns=from_ns,
        until_ns=until_ns,
        source="ex.yaml:9",
    )


@pytest.fixture
def decided(snapshot_of):
    """Decide an event under the policy and some grants."""

    def run(event, *grants: Grant, policy: str = POLICY):
        return decide(event, replace(snapshot_of(policy), grants=Grants(grants)))

    return run


@pytest.mark.parametrize(
    ("host", "port", "pattern", "passes"),
    [
        ("new.example", 443, "new.example", True),
        ("new.example", 80, "new.example", True),
        ("new.example", 8443, "new.example", False),
        ("new.example", 8443, "new.example:8443", True),
        ("good.example", 22, "good.example:22", True),
        ("bad.example", 443, "bad.example", True),
        ("a.evil.example", 443, "*.evil.example", True),
        ("new.example", 443, "*", True),
        ("new.example", 443, "other.example", False),
        ("8.8.8.8", 443, "8.8.8.8", False),
        ("9.9.9.9", 443, "9.9.9.0/24", False),
        ("127.0.0.1", 443, "127.0.0.0/8", False),
    ],
)
def test_a_host_is_lifted_by_its_name_and_port(
    host, port, pattern, passes, events, decided
) -> None:
    for event in (
        events.network(host, port),
        events.connect(host, port),
        events.request(host, port),
    ):
        assert decided(event, grant("egress", pattern)).verdict.passes is passes
        assert not decided(event, grant("tool", "new.example"), grant("path", "/**")).verdict.passes


@pytest.mark.parametrize(
    ("given", "resolved", "pattern", "passes"),
    [
        ("/secret/a", "/secret/a", "/secret/a", True),
        ("/secret/a", "/secret/a", "/secret/**", True),
        ("/secret/a", "/secret/b", "/secret/a", False),
        ("/w/link", "/secret/a", "/secret/a", False),
        ("/secret/a", "/w/x", "/secret/a", False),
        ("/secret/A", "/secret/A", "/secret/a", False),
        ("/secret/a", "/secret/a", "/w/**", False),
    ],
)
def test_a_path_is_lifted_under_both_of_its_names(
    given, resolved, pattern, passes, events, decided
) -> None:
    file = events.file(given, resolved)
    patch = replace(events.patch(given), resolved=resolved)
    for event in (file, patch):
        assert decided(event).reason is Reason.PATH_FORBIDDEN
        assert decided(event, grant("path", pattern)).verdict.passes is passes


@pytest.mark.parametrize(
    ("name", "server", "arguments", "pattern", "reason"),
    [
        ("write", "", b"{}", "write", Reason.ALLOWED),
        ("write", "s", b"{}", "s/write", Reason.ALLOWED),
        ("write", "t", b"{}", "s/write", Reason.TOOL_NOT_ALLOWED),
        ("WRITE", "", b"{}", "write", Reason.TOOL_NOT_ALLOWED),
        ("rm", "", b"{}", "rm", Reason.ALLOWED),
        ("rm", "", b"{}", "read", Reason.TOOL_BLOCKED),
        ("rm", "", b"x" * 11, "rm", Reason.TOOL_ARGUMENTS_TOO_LARGE),
        ("write", "", b"x" * 11, "write", Reason.TOOL_ARGUMENTS_TOO_LARGE),
        ("ask", "", b"{}", "ask", Reason.TOOL_NEEDS_CONFIRMATION),
        ("ask_and_block", "", b"{}", "ask_and_block", Reason.TOOL_NEEDS_CONFIRMATION),
        ("", "", b"{}", "*", Reason.TOOL_NOT_ALLOWED),
    ],
)
def test_a_tool_is_lifted_and_neither_its_size_nor_its_confirmation(
    name, server, arguments, pattern, reason, events, decided
) -> None:
    decision = decided(events.tool(name, server, arguments), grant("tool", pattern))
    assert decision.reason is reason
    assert decision.verdict.passes is (reason is Reason.ALLOWED)


@pytest.mark.parametrize(
    ("time_ns", "passes"), [(99, False), (100, True), (199, True), (200, False), (201, False)]
)
def test_a_grant_holds_from_its_begin_up_to_its_end(time_ns, passes, events, decided) -> None:
    event = replace(events.network("new.example"), time_ns=time_ns)
    assert decided(event, grant("egress", "new.example", 100, 200)).verdict.passes is passes
    empty = grant("egress", "new.example", 100, 100)
    assert not decided(replace(event, time_ns=100), empty).verdict.passes


def test_one_in_force_is_found_among_those_that_are_not(events, decided) -> None:
    past, now = grant("egress", "*", 0, 1), grant("egress", "new.example", 1, 2)
    assert decided(events.network("new.example"), past, now).verdict.passes


def test_what_was_lifted_says_by_what_and_until_when(events, decided) -> None:
    until = 1_767_225_600 * 10**9
    decision = decided(
        events.network("bad.example"), grant("egress", "bad.example", until_ns=until)
    )
    assert decision.verdict is Verdict.AUDIT
    assert decision.reason is Reason.ALLOWED
    assert decision.guard == "egress_allowlist"
    assert decision.message == "lifted by exception EX-1 until 2026-01-01T00:00:00Z"
    assert decision.source == "ex.yaml:9"


def test_the_other_guards_stand(events, decided) -> None:
    key = b"TESTKEY-0123456789abcdef"
    everything = (grant("egress", "*:*"), grant("path", "/**"), grant("tool", "*"))
    for event in (
        events.file("/secret/a", content=key),
        events.patch("/secret/a", b"+" + key),
        events.network("new.example", url="https://new.example/?q=" + key.decode()),
        events.tool("read", arguments=key[:10]),
    ):
        found = decided(event, *everything, policy=POLICY.replace("size: 10", "size: 9"))
        assert not found.verdict.passes
        assert found.reason in (Reason.SECRET_FOUND, Reason.TOOL_ARGUMENTS_TOO_LARGE)


@pytest.mark.parametrize(
    "reason",
    sorted(
        set(Reason)
        - {Reason.HOST_NOT_ALLOWED, Reason.HOST_BLOCKED, Reason.PATH_NOT_ALLOWED}
        - {Reason.PATH_FORBIDDEN, Reason.TOOL_NOT_ALLOWED, Reason.TOOL_BLOCKED}
    ),
)
def test_no_other_reason_is_lifted(reason, events) -> None:
    refusal = Answer(verdict=Verdict.DENY, reason=reason, severity=Severity.ERROR, message="")
    grants = Grants((grant("egress", "*:*"), grant("path", "/**"), grant("tool", "*")))
    for event in (events.network("a.example"), events.file("/a"), events.tool("a")):
        assert grants.lifted(refusal, event) is None


def test_what_a_lifted_host_resolves_to_still_needs_address_rules(snapshot_of, events) -> None:
    grants = Grants((grant("egress", "*"),))
    snapshot = replace(snapshot_of(POLICY), grants=grants)
    host = parse_host("new.example")
    assert decide(events.network("new.example"), snapshot).verdict.passes
    for address, reason in (
        ("10.0.0.1", Reason.ADDRESS_FORBIDDEN),
        ("169.254.169.254", Reason.ADDRESS_FORBIDDEN),
        ("9.9.9.9", Reason.HOST_BLOCKED),
    ):
        found = parse_host(address).address
        assert found is not None
        decision = address_decision(host, 443, [found], snapshot)
        assert decision is not None
        assert (decision.verdict, decision.reason) == (Verdict.DENY, reason)
    public = parse_host("8.8.8.8").address
    assert public is not None
    assert address_decision(host, 443, [public], snapshot) is None


@pytest.mark.parametrize(
    "bad",
    [
        grant("egress", "https://a"),
        grant("path", "relative"),
        grant("tool", "a b"),
        grant("tool", ""),
        grant("egress", "a.example", 0, 10**30),
    ],
)
def test_a_grant_that_cannot_be_read_is_an_error_with_its_place(bad) -> None:
    with pytest.raises(ConfigError) as error:
        Grants((bad,))
    assert error.value.where.startswith("ex.yaml:9")
