"""A name may be asked for where some connection to it may pass, and not otherwise."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from aesp_proxy.decide.engine import address_decision, decide
from aesp_proxy.decide.grants import Grants
from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.decide.policy.witness_event import stated
from aesp_proxy.decide.replay import Replayed, replayed
from aesp_proxy.decide.snapshot import Snapshot, build_snapshot
from aesp_proxy.model.context import NO_CONTEXT
from aesp_proxy.model.event import DnsQuery
from aesp_proxy.model.grant import Grant, GrantKind
from aesp_proxy.model.host import parse_host
from aesp_proxy.model.principal import Principal
from aesp_proxy.normalize.described import described
from aesp_proxy.record.compose import decision_record

WHO = Principal(principal_id="u", agent_id="a", agent_type="", session_id="s")
GUARD = """
guards:
  egress_allowlist:
    enabled: true
    allow: {allow}
    block: {block}
    default_action: {default}
  secret_leak: {{enabled: false}}
"""


def snapshot_of(text: str, version: str = "1.2.0") -> Snapshot:
    policy = load_policy(f'version: "{version}"\nname: test\n{text}', "p.yaml")
    return build_snapshot(policy, (), fingerprint_key=b"k" * 32, serial=1)


def query(name: str) -> DnsQuery:
    return DnsQuery(event_id="", time_ns=1, principal=WHO, host=parse_host(name), record_type="A")


def reason(snapshot: Snapshot, name: str) -> str:
    return decide(query(name), snapshot).reason.value


def lists(allow: list[str], block: list[str], default: str = "block") -> Snapshot:
    return snapshot_of(GUARD.format(allow=allow, block=block, default=default))


@pytest.mark.parametrize(
    ("allow", "block", "default", "expected"),
    [
        (["a.test"], [], "block", "allowed"),
        (["a.test:8443"], [], "block", "allowed"),
        (["*.test"], [], "block", "allowed"),
        (["b.test"], [], "block", "host_not_allowed"),
        (["10.0.0.0/8"], [], "block", "host_not_allowed"),
        ([], [], "allow", "allowed"),
        (["a.test"], ["a.test"], "block", "host_blocked"),
        (["a.test"], ["*.test:*"], "block", "host_blocked"),
        ([], ["a.test"], "allow", "host_blocked"),
        (["a.test"], ["a.test:80"], "block", "allowed"),
        (["a.test"], ["a.test:80", "a.test:443"], "block", "host_not_allowed"),
        (["a.test:8443"], ["a.test:8443"], "block", "host_not_allowed"),
        (["a.test:*"], ["a.test:80", "a.test:443"], "block", "allowed"),
        ([], ["a.test:80", "a.test:443"], "allow", "host_not_allowed"),
    ],
)
def test_lists_answer_for_a_name_on_any_port(allow, block, default, expected):
    assert reason(lists(allow, block, default), "a.test") == expected


RULE = """
rules:
  - policy_id: "r"
    applies_to: {applies}
    rule: {{condition: '{condition}', effect: {effect}, actions: {actions}}}
"""


def ruled(
    effect: str,
    applies: list[str],
    condition: str = "true",
    actions: tuple[str, ...] = (),
    allow: tuple[str, ...] = (),
) -> Snapshot:
    rule = RULE.format(applies=applies, condition=condition, effect=effect, actions=list(actions))
    if not actions:
        rule = rule.replace(", actions: []", "")
    return snapshot_of(GUARD.format(allow=list(allow), block=[], default="block") + rule)


@pytest.mark.parametrize(
    ("applies", "condition", "actions", "expected"),
    [
        (["egress:a.test"], "true", [], "allowed"),
        (["egress:a.test:8443"], "true", [], "allowed"),
        (["egress:*.test"], 'request.method == "GET"', [], "allowed"),
        (["egress:a.test"], "true", ["http.get"], "allowed"),
        (["egress:a.test"], "true", ["tcp.connect"], "allowed"),
        (["egress:a.test"], "true", ["dns.query"], "allowed"),
        (["egress:b.test"], "true", [], "host_not_allowed"),
    ],
)
def test_a_rule_that_may_allow_a_connection_lets_its_name_be_asked_for(
    applies, condition, actions, expected
):
    assert reason(ruled("ALLOW", applies, condition, actions), "a.test") == expected


@pytest.mark.parametrize(
    ("applies", "condition", "actions", "expected"),
    [
        (["egress:a.test"], "true", [], "rule_denied"),
        (["*"], 'request.host.endsWith(".test")', [], "rule_denied"),
        (["egress:a.test"], "true", ["dns.query"], "rule_denied"),
        (["egress:a.test:8443"], "true", [], "allowed"),
        (["egress:a.test"], "true", ["http.post"], "allowed"),
        (["egress:a.test"], 'request.method == "POST"', [], "allowed"),
    ],
)
def test_a_rule_that_denies_a_name_on_every_port_denies_asking_for_it(
    applies, condition, actions, expected
):
    snapshot = ruled("DENY", applies, condition, actions, allow=("a.test",))
    assert reason(snapshot, "a.test") == expected


def test_a_policy_without_the_guard_answers_for_no_name():
    snapshot = snapshot_of(
        "guards: {forbidden_path: {enabled: true}, secret_leak: {enabled: false}}\n"
    )
    assert reason(snapshot, "a.test") == "no_guard"


def test_an_address_may_be_told_where_a_rule_of_any_port_names_it():
    snapshot = lists(["a.test", "10.0.0.5:8443"], ["10.0.0.6", "93.184.215.14:80"])
    host = parse_host("a.test")

    def told(address: str) -> str:
        found = address_decision(host, None, [ip_address(address)], snapshot)
        return "allowed" if found is None else found.reason.value

    assert told("10.0.0.5") == "allowed"
    assert told("10.0.0.6") == "host_blocked"
    assert told("10.0.0.7") == "address_forbidden"
    assert told("93.184.215.14") == "allowed"


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("bad.example", "bad.example", "allowed"),
        ("new.example:8443", "new.example", "allowed"),
        ("*.new.example", "a.new.example", "allowed"),
        ("new.example", "other.example", "host_not_allowed"),
    ],
)
def test_an_exception_for_a_host_lets_its_name_be_asked_for(pattern, name, expected):
    grant = Grant(grant_id="EX-1", kind=GrantKind.EGRESS, pattern=pattern, from_ns=0,
                  until_ns=10, source="ex.yaml:9")  # fmt: skip
    snapshot = replace(lists([], ["bad.example"]), grants=Grants((grant,)))
    assert reason(snapshot, name) == expected


def test_what_was_asked_can_be_told_described_and_replayed():
    asked = query("a.test")
    decided = decide(asked, lists(["a.test"], []))
    record = decision_record(asked, decided, time_ns=asked.time_ns)
    assert (record.action, record.resource) == ("dns.query", "dns:a.test?type=A")
    again = replayed(record)
    assert isinstance(again, Replayed)
    assert again.events == (asked,)
    facts = stated(asked, NO_CONTEXT)
    assert (facts["request.action"], facts["request.host"]) == ("dns.query", "a.test")
    made, _ = described({"request": {"action": "dns.query", "host": "a.test"}}, time_ns=1)
    assert isinstance(made, DnsQuery)
