"""Egress: block beats allow, ports are named or web, addresses need address rules."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from aesp_proxy.decide.engine import address_decision, decide
from aesp_proxy.model.decision import Reason, Severity, Verdict
from aesp_proxy.model.host import parse_host

POLICY = """\
egress_allowlist:
  allow:
    - api.example.com
    - "*.corp.example:8443"
    - any.example:*
    - "*.ok.example"
    - 10.0.0.0/8
    - 192.168.7.7:5432
    - 203.0.113.9
    - 8.8.4.4
  block:
    - bad.ok.example
    - 8.8.4.0/24
    - 198.51.100.0/24
"""


@pytest.mark.parametrize("kind", ["request", "connect", "network"])
@pytest.mark.parametrize(
    ("host", "port", "verdict", "reason"),
    [
        ("api.example.com", 443, "allow", "allowed"),
        ("API.example.com.", 80, "allow", "allowed"),
        ("api.example.com", 8443, "deny", "host_not_allowed"),
        ("x.api.example.com", 443, "deny", "host_not_allowed"),
        ("api.example.com.evil.org", 443, "deny", "host_not_allowed"),
        ("evilapi.example.com", 443, "deny", "host_not_allowed"),
        ("a.corp.example", 8443, "allow", "allowed"),
        ("a.corp.example", 443, "deny", "host_not_allowed"),
        ("corp.example", 8443, "deny", "host_not_allowed"),
        ("any.example", 22, "allow", "allowed"),
        ("good.ok.example", 443, "allow", "allowed"),
        ("bad.ok.example", 443, "deny", "host_blocked"),
        ("bad.ok.example", 22, "deny", "host_blocked"),
        ("8.8.8.8", 443, "deny", "address_forbidden"),
        ("8.8.4.4", 443, "deny", "host_blocked"),
        ("10.1.2.3", 443, "allow", "allowed"),
        ("[::ffff:10.1.2.3]", 443, "allow", "allowed"),
        ("10.1.2.3", 22, "deny", "address_forbidden"),
        ("192.168.7.7", 5432, "allow", "allowed"),
        ("192.168.7.7", 443, "deny", "address_forbidden"),
        ("203.0.113.9", 80, "allow", "allowed"),
        ("127.0.0.1", 443, "deny", "address_forbidden"),
        ("0x7f.1", 443, "deny", "address_forbidden"),
        ("2130706433", 443, "deny", "address_forbidden"),
        ("[::1]", 443, "deny", "address_forbidden"),
        ("169.254.169.254", 80, "deny", "address_forbidden"),
        ("[64:ff9b::a9fe:a9fe]", 80, "deny", "address_forbidden"),
        ("[64:ff9b::8.8.4.4]", 443, "deny", "host_blocked"),
        ("[2002:7f00:1::]", 443, "deny", "address_forbidden"),
    ],
)
def test_egress_is_decided_by_host_and_port(
    kind, host, port, verdict, reason, events, snapshot_of
) -> None:
    decision = decide(getattr(events, kind)(host, port), snapshot_of(POLICY))
    assert (decision.verdict.value, decision.reason.value) == (verdict, reason)
    assert decision.guard == "egress_allowlist"
    assert decision.policy_name == "test"
    assert len(decision.policy_hash) == 64


@pytest.mark.parametrize("host", ["evil.example", "8.8.8.8", "10.0.0.1", "localhost"])
@pytest.mark.parametrize(
    "section",
    [
        "egress_allowlist: {}",
        "egress_allowlist: {allow: []}",
        "egress_allowlist: {allow: [], default_action: block}",
        "egress_allowlist: {enabled: true, block: [a.example]}",
        "egress_allowlist: {enabled: false}",
        "egress_allowlist: {enabled: false, default_action: allow}",
        "mcp_tool: {default_action: allow}",
        "",
    ],
)
def test_an_empty_or_absent_list_allows_nothing(section, host, events, snapshot_of) -> None:
    decision = decide(events.request(host), snapshot_of(section))
    assert decision.verdict is Verdict.DENY


@pytest.mark.parametrize(("action", "verdict"), [("allow", Verdict.ALLOW), ("log", Verdict.AUDIT)])
def test_the_default_speaks_for_names_on_the_web_ports_only(
    action, verdict, events, snapshot_of
) -> None:
    snapshot = snapshot_of(f"egress_allowlist: {{default_action: {action}, block: [bad.example]}}")
    assert decide(events.request("any.example"), snapshot).verdict is verdict
    assert decide(events.request("any.example", 80), snapshot).verdict is verdict
    assert decide(events.connect("any.example", 22), snapshot).verdict is Verdict.DENY
    assert decide(events.request("bad.example"), snapshot).reason is Reason.HOST_BLOCKED
    assert decide(events.request("8.8.8.8"), snapshot).reason is Reason.ADDRESS_FORBIDDEN
    assert decide(events.request("127.0.0.1"), snapshot).reason is Reason.ADDRESS_FORBIDDEN


def test_a_star_in_allow_does_not_allow_raw_addresses(events, snapshot_of) -> None:
    snapshot = snapshot_of("egress_allowlist: {allow: ['*:*']}")
    assert decide(events.connect("any.example", 22), snapshot).verdict is Verdict.ALLOW
    assert decide(events.connect("8.8.8.8", 443), snapshot).reason is Reason.ADDRESS_FORBIDDEN


def test_a_star_in_block_blocks_raw_addresses_too(events, snapshot_of) -> None:
    snapshot = snapshot_of("egress_allowlist: {allow: [8.8.8.8], block: ['*']}")
    assert decide(events.connect("8.8.8.8", 443), snapshot).reason is Reason.HOST_BLOCKED


def test_a_decision_names_the_line_and_what_to_ask_for(events, snapshot_of) -> None:
    snapshot = snapshot_of(POLICY)
    allowed = decide(events.request("good.ok.example"), snapshot)
    assert (allowed.source, allowed.message) == ("p.yaml:9", "allowed by *.ok.example")
    refused = decide(events.request("new.example", 9000), snapshot)
    assert refused.source == "p.yaml:4"
    assert refused.message == "new.example:9000 is on no allow list"
    assert refused.remediation == (
        "Do not retry: the answer stays the same until the policy changes.",
        (
            "Ask the owner of p.yaml to add new.example:9000 under guards.egress_allowlist.allow"
            " (line 5)."
        ),
    )
    port = decide(events.request("api.example.com", 8443), snapshot)
    assert port.message == (
        "port 8443 of api.example.com is not allowed; api.example.com allows 80 and 443"
    )
    assert port.source == "p.yaml:6"
    blocked = decide(events.request("bad.ok.example"), snapshot)
    assert blocked.source == "p.yaml:15"
    metadata = decide(events.request("169.254.169.254", 80), snapshot)
    assert metadata.severity is Severity.CRITICAL
    assert metadata.message == "169.254.169.254 is a metadata address; no address rule names it"


@pytest.mark.parametrize(
    ("addresses", "reason"),
    [
        (["93.184.215.14"], None),
        (["93.184.215.14", "2606:4700::1"], None),
        (["10.9.9.9"], None),
        (["127.0.0.1"], Reason.ADDRESS_FORBIDDEN),
        (["93.184.215.14", "127.0.0.1"], Reason.ADDRESS_FORBIDDEN),
        (["192.168.7.7"], Reason.ADDRESS_FORBIDDEN),
        (["169.254.169.254"], Reason.ADDRESS_FORBIDDEN),
        (["::ffff:169.254.169.254"], Reason.ADDRESS_FORBIDDEN),
        (["64:ff9b::7f00:1"], Reason.ADDRESS_FORBIDDEN),
        (["fe80::1"], Reason.ADDRESS_FORBIDDEN),
        (["0.0.0.0"], Reason.ADDRESS_FORBIDDEN),
        (["198.51.100.7"], Reason.HOST_BLOCKED),
        (["8.8.4.8"], Reason.HOST_BLOCKED),
        (["64:ff9b::8.8.4.8"], Reason.HOST_BLOCKED),
        ([], Reason.ADDRESS_FORBIDDEN),
    ],
)
def test_what_an_allowed_name_resolves_to_is_checked_again(addresses, reason, snapshot_of) -> None:
    decision = address_decision(
        parse_host("api.example.com"), 443, [ip_address(a) for a in addresses], snapshot_of(POLICY)
    )
    assert (None if decision is None else decision.reason) is reason
    if decision is not None:
        assert decision.verdict is Verdict.DENY


def test_a_forbidden_resolved_address_is_told_with_its_name(snapshot_of) -> None:
    decision = address_decision(
        parse_host("api.example.com"), 443, [ip_address("172.16.0.1")], snapshot_of(POLICY)
    )
    assert decision is not None
    assert decision.message == (
        "api.example.com resolves to 172.16.0.1, which is a private address;"
        " no address rule names it"
    )


def test_without_an_egress_guard_no_address_may_be_dialled(snapshot_of) -> None:
    decision = address_decision(
        parse_host("a.example"), 443, [ip_address("8.8.8.8")], snapshot_of("mcp_tool: {}")
    )
    assert decision is not None
    assert decision.reason is Reason.NO_GUARD


def test_thousands_of_hosts_do_not_slow_a_decision_down(events, snapshot_of) -> None:
    entries = "".join(f"    - h{n}.example\n    - '*.w{n}.example'\n" for n in range(1000))
    snapshot = snapshot_of(f"egress_allowlist:\n  allow:\n{entries}")
    assert decide(events.request("h999.example"), snapshot).verdict is Verdict.ALLOW
    assert decide(events.request("a.b.w999.example"), snapshot).verdict is Verdict.ALLOW
    assert decide(events.request("h1000.example"), snapshot).verdict is Verdict.DENY


@pytest.mark.parametrize(
    ("host", "port", "reason"),
    [
        ("a.corp.example", 8443, "allowed"),
        ("any.example", 22, "allowed"),
        ("any.example", 443, "host_not_allowed"),
        ("any.example", 80, "host_not_allowed"),
        ("api.example.com", 443, "host_not_allowed"),
        ("api.example.com", 22, "host_not_allowed"),
        ("bad.ok.example", 22, "host_blocked"),
        ("192.168.7.7", 5432, "allowed"),
        ("10.1.2.3", 443, "host_not_allowed"),
        ("10.1.2.3", 22, "address_forbidden"),
        ("8.8.8.8", 22, "address_forbidden"),
    ],
)
def test_unread_bytes_pass_only_where_an_entry_says_a_port_that_is_no_web_port(
    host, port, reason, events, snapshot_of
) -> None:
    event = replace(events.connect(host, port), raw=True)
    assert decide(event, snapshot_of(POLICY)).reason.value == reason


@pytest.mark.parametrize("port", [80, 443, 22])
def test_unread_bytes_never_pass_by_default(port, events, snapshot_of) -> None:
    policy = "egress_allowlist: {default_action: allow}\n"
    assert decide(events.connect("a.example", 443), snapshot_of(policy)).verdict.passes
    event = replace(events.connect("a.example", port), raw=True)
    assert not decide(event, snapshot_of(policy)).verdict.passes


def test_sealed_tls_passes_where_requests_would(events, snapshot_of) -> None:
    for host, reason in (("api.example.com", "allowed"), ("bad.ok.example", "host_blocked")):
        event = replace(events.connect(host, 443), sealed=True)
        assert decide(event, snapshot_of(POLICY)).reason.value == reason
