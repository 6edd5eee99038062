"""Secrets: found wherever content leaves, weighed by severity, allowed home and nowhere else."""

from __future__ import annotations

import pytest

from aesp_proxy.decide.engine import content_decision, decide
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Finding, Reason, Severity, Verdict
from aesp_proxy.model.host import parse_host

ACCESS = """\
egress_allowlist: {allow: [api.example.com, other.example.com, api.example.com:8443]}
forbidden_path: {patterns: []}
mcp_tool: {default_action: allow}
"""
KEY = "TESTKEY-" + "a1b2c3d4e5f6g7h8"
HINT = "TESTHINT-" + "a1b2c3d4"


def test_a_secret_is_found_wherever_content_leaves(events, snapshot_of) -> None:
    snapshot = snapshot_of(ACCESS)
    secret = KEY.encode()
    leaks = {
        "url": events.request("api.example.com", target=f"/?k={KEY}"),
        "header:x-k": events.request("api.example.com", headers=((b"x-k", secret),)),
        "content": events.file("/w/a", content=b"x " + secret),
        "patch": events.patch("/w/a", b"+" + secret),
        "arguments": events.tool("t", arguments=b'{"k":"' + secret + b'"}'),
    }
    for location, event in leaks.items():
        decision = decide(event, snapshot)
        assert (decision.verdict, decision.reason) == (Verdict.DENY, Reason.SECRET_FOUND)
        assert decision.guard == "secret_leak"
        assert decision.severity is Severity.CRITICAL
        assert [finding.location for finding in decision.findings] == [location]
        assert KEY not in repr(decision)


def test_a_secret_in_an_announced_url_is_found(events, snapshot_of) -> None:
    event = events.network("api.example.com", url=f"https://api.example.com/?k={KEY}")
    assert decide(event, snapshot_of(ACCESS)).reason is Reason.SECRET_FOUND


def test_a_secret_over_lines_of_a_patch_is_found_without_the_signs(events, snapshot_of) -> None:
    snapshot = snapshot_of(
        ACCESS + "secret_leak: {patterns: [{name: two, pattern: 'BEGIN\\nBODY'}]}"
    )
    decision = decide(events.patch("/w/a", b"@@\n+BEGIN\n+BODY\n"), snapshot)
    assert [(f.rule, f.location) for f in decision.findings] == [("two", "patch:added")]


def test_clean_content_is_not_answered_for(events, snapshot_of) -> None:
    snapshot = snapshot_of(ACCESS)
    assert decide(events.request("api.example.com"), snapshot).guard == "egress_allowlist"
    assert decide(events.file("/w/a", content=b"hello"), snapshot).guard == "forbidden_path"


def test_a_finding_below_the_threshold_is_noted_and_passes(events, snapshot_of) -> None:
    decision = decide(events.request("api.example.com", target=f"/{HINT}"), snapshot_of(ACCESS))
    assert (decision.verdict, decision.reason) == (Verdict.AUDIT, Reason.SECRET_FOUND)
    assert [finding.rule for finding in decision.findings] == ["test-hint"]


def test_a_lower_threshold_refuses_it(events, snapshot_of) -> None:
    snapshot = snapshot_of(ACCESS + "secret_leak: {severity_threshold: warning}")
    assert snapshot.severity_threshold is Severity.WARNING
    decision = decide(events.request("api.example.com", target=f"/{HINT}"), snapshot)
    assert decision.verdict is Verdict.DENY


def test_a_note_lets_nothing_pass_that_no_access_guard_allows(events, snapshot_of) -> None:
    decision = decide(events.request("api.example.com", target=f"/{HINT}"), snapshot_of(""))
    assert (decision.verdict, decision.reason) == (Verdict.DENY, Reason.NO_GUARD)
    assert [finding.rule for finding in decision.findings] == ["test-hint"]


def test_a_refused_host_still_tells_what_would_have_leaked(events, snapshot_of) -> None:
    decision = decide(events.request("evil.example", target=f"/{KEY}"), snapshot_of(ACCESS))
    assert decision.reason is Reason.HOST_NOT_ALLOWED
    assert [finding.rule for finding in decision.findings] == ["test-key"]


def test_it_is_on_when_nothing_is_said_and_off_only_when_said(events, snapshot_of) -> None:
    assert snapshot_of(ACCESS).scanner is not None
    off = snapshot_of(ACCESS + "secret_leak: {enabled: false}")
    assert off.scanner is None
    event = events.request("api.example.com", target=f"/{KEY}")
    assert decide(event, off).verdict is Verdict.ALLOW


def test_a_pattern_of_the_policy_is_a_rule_like_any_other(events, snapshot_of) -> None:
    snapshot = snapshot_of(
        ACCESS + "secret_leak: {patterns: [{name: corp, pattern: 'CORP-[A-Z]{8}'}]}"
    )
    decision = decide(events.file("/w/a", content=b"CORP-ABCDEFGH"), snapshot)
    assert [finding.rule for finding in decision.findings] == ["corp"]
    assert decision.severity is Severity.CRITICAL


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("{name: test-key, pattern: abcdef}", "has the name of a built-in rule"),
        ("{name: bad, pattern: '('}", "p.yaml:7:"),
        ("{name: bad, pattern: 'a*'}", "p.yaml:7:"),
        ("{name: bad, pattern: '(?=a)b'}", "p.yaml:7:"),
    ],
)
def test_a_bad_pattern_of_the_policy_is_refused_with_its_place(entry, why, snapshot_of) -> None:
    with pytest.raises(ConfigError) as caught:
        snapshot_of(ACCESS + f"secret_leak: {{patterns: [{entry}]}}")
    assert why in str(caught.value)
    assert str(caught.value).startswith("p.yaml:7:")


def test_skipped_paths_must_match_as_given_and_as_resolved(events, snapshot_of) -> None:
    snapshot = snapshot_of(ACCESS + "secret_leak: {skip_paths: ['**/fixtures/**']}")
    secret = KEY.encode()
    passing = events.file("/w/fixtures/a", content=secret)
    assert decide(passing, snapshot).verdict is Verdict.ALLOW
    linked = events.file("/w/a", "/w/fixtures/a", content=secret)
    assert decide(linked, snapshot).verdict is Verdict.DENY
    assert decide(events.file("/w/fixtures/a", "/w/a", secret), snapshot).verdict is Verdict.DENY


HOME = ACCESS + (
    "secret_leak: {credentials: [{rule: 'test-*', hosts: [api.example.com], headers: [X-Api-Key]}]}"
)


@pytest.mark.parametrize(
    ("host", "fields", "verdict"),
    [
        ("api.example.com", {"headers": ((b"x-api-key", KEY.encode()),)}, Verdict.ALLOW),
        ("other.example.com", {"headers": ((b"x-api-key", KEY.encode()),)}, Verdict.DENY),
        ("api.example.com", {"headers": ((b"x-other", KEY.encode()),)}, Verdict.DENY),
        ("api.example.com", {"target": f"/?x-api-key={KEY}"}, Verdict.DENY),
        (
            "api.example.com",
            {"headers": ((b"x-api-key", KEY.encode()),), "scheme": "http"},
            Verdict.DENY,
        ),
        (
            "api.example.com",
            {"headers": ((b"x-api-key", KEY.encode()), (b"x-b", KEY.encode()))},
            Verdict.DENY,
        ),
        (
            "api.example.com",
            {"headers": ((b"x-api-key", KEY.encode()),), "port": 8443},
            Verdict.DENY,
        ),
    ],
)
def test_a_credential_goes_home_in_its_header_over_tls_and_nowhere_else(
    host, fields, verdict, events, snapshot_of
) -> None:
    decision = decide(events.request(host, **fields), snapshot_of(HOME))
    assert decision.verdict is verdict
    assert decision.findings


def test_a_credential_of_no_known_rule_is_refused_at_load(snapshot_of) -> None:
    with pytest.raises(ConfigError, match=r"^p\.yaml:7:38: no secret rule is named 'nobody'$"):
        snapshot_of(
            ACCESS
            + "secret_leak: {credentials: [{rule: nobody, hosts: [a.example], headers: [x]}]}"
        )


ACTIONS = ACCESS + (
    "secret_leak: {actions: [{rule: 'test-*', action: redact, hosts: [api.example.com]},"
    " {rule: test-key, action: record, hosts: [other.example.com]},"
    " {rule: 'registered:*', action: record, severity: warning}]}"
)


def finding(rule: str, severity: Severity = Severity.CRITICAL) -> Finding:
    return Finding(
        rule=rule, severity=severity, location="body", offset=0, masked="", fingerprint="f"
    )


@pytest.mark.parametrize(
    ("rule", "host", "redacts", "verdict"),
    [
        ("test-key", "api.example.com", True, Verdict.REDACT),
        ("test-key", "api.example.com", False, Verdict.DENY),
        ("test-key", "other.example.com", True, Verdict.AUDIT),
        ("test-key", "third.example.com", True, Verdict.DENY),
        ("aws-key", "api.example.com", True, Verdict.DENY),
        ("registered:X", "api.example.com", True, Verdict.DENY),
        ("too-many-findings", "api.example.com", True, Verdict.DENY),
    ],
)
def test_an_action_says_what_becomes_of_a_finding_by_rule_and_host(
    snapshot_of, rule, host, redacts, verdict
) -> None:
    place = (parse_host(host), 443)
    decision = content_decision((finding(rule),), snapshot_of(ACTIONS), place, redacts=redacts)
    assert decision.verdict is verdict


def test_of_several_findings_the_strictest_answer_wins(snapshot_of) -> None:
    place = (parse_host("api.example.com"), 443)
    both = (finding("test-key"), finding("aws-key", Severity.ERROR))
    decision = content_decision(both, snapshot_of(ACTIONS), place, redacts=True)
    assert decision.verdict is Verdict.DENY
    assert "aws-key" in decision.message


def test_everything_is_redacted_where_the_policy_says_so_but_not_a_scan_that_was_cut(
    snapshot_of,
) -> None:
    snapshot = snapshot_of(ACCESS + "secret_leak: {redact: true}")
    decision = content_decision((finding("any"),), snapshot, redacts=True)
    assert (decision.verdict, decision.reason) == (Verdict.REDACT, Reason.SECRET_FOUND)
    cut = content_decision((finding("too-many-findings"),), snapshot, redacts=True)
    assert cut.verdict is Verdict.DENY


def test_a_head_is_not_redacted_but_refused_and_the_message_says_so(events, snapshot_of) -> None:
    event = events.request("api.example.com", target=f"/?k={KEY}")
    decision = decide(event, snapshot_of(ACTIONS))
    assert decision.verdict is Verdict.DENY
    assert "cannot be masked there" in decision.message


def test_an_action_of_no_known_rule_is_refused_at_load(snapshot_of) -> None:
    with pytest.raises(ConfigError, match="no secret rule is named 'nobody'"):
        snapshot_of(ACCESS + "secret_leak: {actions: [{rule: nobody, action: redact}]}")


CLOSED = b"7z\xbc\xaf\x27\x1c an archive that is not opened"


@pytest.mark.parametrize(
    ("key", "verdict", "reason"),
    [
        ("", Verdict.DENY, Reason.UNSCANNABLE),
        ("secret_leak: {unscannable: block}", Verdict.DENY, Reason.UNSCANNABLE),
        ("secret_leak: {unscannable: record}", Verdict.AUDIT, Reason.SECRET_FOUND),
    ],
)
def test_what_cannot_be_looked_through_is_refused_unless_the_policy_records_it(
    events, snapshot_of, key: str, verdict: Verdict, reason: Reason
) -> None:
    decision = decide(events.file("/w/a.7z", content=CLOSED), snapshot_of(ACCESS + key))
    assert (decision.verdict, decision.reason) == (verdict, reason)
    assert [(each.rule, each.via) for each in decision.findings] == [
        ("unscannable", "an archive in it (7z) cannot be opened")
    ]


def test_what_cannot_be_looked_through_never_hides_a_secret(events, snapshot_of) -> None:
    snapshot = snapshot_of(ACCESS + "secret_leak: {unscannable: record}")
    decision = decide(events.file("/w/a", content=CLOSED + KEY.encode()), snapshot)
    assert (decision.verdict, decision.reason) == (Verdict.DENY, Reason.SECRET_FOUND)


def test_a_key_cut_over_the_labels_of_a_name_is_found(events, snapshot_of) -> None:
    name = "testkey-a1b2.c3d4e5f6.g7h8.example.com"
    rule = "secret_leak: {patterns: [{name: low, pattern: 'testkey-[a-z0-9]{16}'}]}"
    snapshot = snapshot_of("egress_allowlist: {allow: ['*.example.com']}\n" + rule)
    decision = decide(events.connect(name), snapshot)
    assert [(each.rule, each.location) for each in decision.findings] == [("low", "host")]
