"""Witnesses are events for which what is asked holds, and can be tried by anybody."""

from __future__ import annotations

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.policy_tools.policies import rule_item

from aesp_proxy.decide.policy.cel.atoms import alternatives
from aesp_proxy.decide.policy.policy import Effect
from aesp_proxy.decide.policy.regex_sample import regex_sample
from aesp_proxy.decide.policy.witness import facts_for, witness_of_rules
from aesp_proxy.decide.policy.witness_event import PLAIN_TIME_NS, event_for, stated
from aesp_proxy.decide.rule import compile_rule
from aesp_proxy.decide.rules import Rules
from aesp_proxy.model.context import Level
from aesp_proxy.normalize.described import described

CONDITIONS = (
    ("true", ("egress:*.internal.example.com",), ("http.post",)),
    ("request.time.getHours('Europe/Berlin') < 8", (), ()),
    ("request.time.getDayOfWeek() == 0 && request.time.getHours() >= 22", (), ()),
    ("request.time > timestamp('2027-01-01T00:00:00Z')", (), ()),
    ("'dev' in request.user.roles && 'ops' in request.user.roles", (), ()),
    ("request.user.mfa_verified && request.user.security_clearance >= 'secret'", (), ()),
    ("request.source_ip in ['10.1.0.0/16'] && request.port != 443", (), ()),
    ("request.headers['x-a'] == 'b' && request.headers['x-c'].startsWith('d')", (), ()),
    ("request.path.matches('^/v[0-9]+/admin(/|$)') && request.method in ['PUT']", (), ()),
    ("request.path.startsWith('/a/') && request.path.endsWith('.b')", (), ()),
    ("request.resource.estimated_cost > request.user.spending_limit", (), ()),
    ("request.tenant.cost_center in organization.approved_cost_centers", (), ()),
    ("tool.arguments.path.startsWith('/etc') && tool.arguments.mode == 'rw'", ("tool:f/*",), ()),
    ("tool.contract.required_roles.all(r, r in request.user.roles)", (), ("tool.call",)),
    ("request.resource.path.endsWith('.pem')", ("file:/etc/**",), ("file.open",)),
    ("has(session.risk_score) && session.risk_score > 0.8", (), ()),
    ("size(request.path) > 100", (), ()),
    ("host_matches('*.evil.test', request.host) || request.port == 8443", (), ()),
)


@pytest.mark.parametrize(("condition", "applies_to", "actions"), CONDITIONS)
def test_a_witness_is_found_and_matches_the_rule(condition, applies_to, actions):
    item = rule_item(condition, applies_to=applies_to, actions=actions)
    found = witness_of_rules([compile_rule(item)])
    assert found is not None
    matched = Rules((item,)).matches(found.event, found.context, ())
    assert matched.rules == ("r",)
    assert matched.errors == ()


@pytest.mark.parametrize(("condition", "applies_to", "actions"), CONDITIONS)
def test_a_witness_told_as_facts_describes_the_same_attempt(condition, applies_to, actions):
    item = rule_item(condition, applies_to=applies_to, actions=actions)
    found = witness_of_rules([compile_rule(item)])
    assert found is not None
    event, context = described(nested(found.facts), time_ns=PLAIN_TIME_NS)
    assert Rules((item,)).matches(event, context, ()).rules == ("r",)


def nested(facts):
    made = {}
    for name, value in facts.items():
        table = made
        *path, last = name.split(".")
        for part in path:
            table = table.setdefault(part, {})
        table[last] = value
    return made


def test_what_cannot_hold_has_no_witness():
    for condition in ("false", "request.port == 1 && request.port == 2"):
        assert witness_of_rules([compile_rule(rule_item(condition))]) is None


def test_two_rules_are_witnessed_at_once_and_one_without_the_other():
    allow = compile_rule(
        rule_item("'dev' in request.user.roles", effect=Effect.ALLOW, applies_to=("egress:*",))
    )
    deny = compile_rule(rule_item("request.path.startsWith('/admin')", policy_id="d"))
    both = witness_of_rules([allow, deny])
    assert both is not None
    assert both.facts["request.user.roles"] == ["dev"]
    assert both.facts["request.path"].startswith("/admin")
    alone = witness_of_rules([allow], refuted=[deny])
    assert alone is not None
    assert not str(alone.facts.get("request.path", "/")).startswith("/admin")


def test_facts_are_found_for_terms_alone():
    rule = compile_rule(rule_item("request.user.team == 'ml' && request.port == 8443"))
    (conjuncts,) = alternatives(rule.condition.term)
    facts = facts_for(conjuncts, kinds=("request",))
    assert facts is not None
    assert (facts["request.user.team"], facts["request.port"]) == ("ml", 8443)


def test_a_level_and_a_time_are_told_as_suites_write_them():
    event, context = event_for(
        "request", {"request.user.security_clearance": Level.SECRET, "request.time": 10**9}
    )
    facts = stated(event, context)
    assert facts["request.user.security_clearance"] == "secret"
    assert facts["request.time"] == "1970-01-01T00:00:01Z"


@pytest.mark.parametrize(
    "pattern",
    [
        r"AKIA[0-9A-Z]{16}", r"(?i)\bpass(?:word)?\s*[:=]\s*\S{8,}", r"^/v\d+/(a|b)?$", r"[^a-z]x",
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----", r"\x41\x{42}[[:digit:]]", r"(?P<n>a)(?:b|)+?",
        r"rm\s+-rf", r"eval\(", r"[\d_-]{3,5}\.", r"",
    ],
)  # fmt: skip
def test_a_sample_is_found_by_its_expression(pattern):
    sample = regex_sample(pattern)
    assert sample is not None
    assert re2.search(pattern, sample) is not None


@given(st.text(alphabet="ab(){}[]|\\*+?^$.,-0d:<>P", max_size=20))
def test_reading_an_expression_never_raises(pattern):
    regex_sample(pattern)
