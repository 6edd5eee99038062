"""An explanation comes to the same verdict as the engine, and says what was near."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.policy_tools.policies import policy_of, snapshot_of

from aesp_proxy.cli.policy import policy as policy_group
from aesp_proxy.cli.policy.attempt import facts_of_words
from aesp_proxy.decide.engine import ENGINE, decide
from aesp_proxy.decide.explain import explain_event
from aesp_proxy.decide.near_misses import near_misses
from aesp_proxy.errors import ConfigError, InputError
from aesp_proxy.normalize.described import described

HOSTS = ("a.example.com", "b.example.com", "example.com", "*.example.com", "c.test", "*")
PATHS = ("/srv/a", "/srv/**", "/etc/passwd", "/**")
TOOLS = ("read", "files/read", "rm", "*")
CONDITIONS = (
    "true", "'dev' in request.user.roles", "request.user.mfa_verified", "request.port == 443",
    "request.resource.path.startsWith('/srv')", "tool.name == 'rm'", "request.path == '/x'",
)  # fmt: skip

lists = {
    "hosts": st.lists(st.sampled_from(HOSTS), max_size=3, unique=True),
    "paths": st.lists(st.sampled_from(PATHS), max_size=3, unique=True),
    "tools": st.lists(st.sampled_from(TOOLS), max_size=3, unique=True),
}
rules = st.lists(
    st.tuples(st.sampled_from(CONDITIONS), st.sampled_from(("ALLOW", "DENY", "ASK", "AUDIT"))),
    max_size=4,
)


@st.composite
def policies(draw):
    """Policies of every guard, each there or not, and a few rules."""
    guards = {}
    if draw(st.booleans()):
        guards["egress_allowlist"] = {
            "allow": draw(lists["hosts"]),
            "block": draw(lists["hosts"].filter(lambda hosts: "*" not in hosts)),
            "default_action": draw(st.sampled_from(("allow", "block", "log"))),
        }
    if draw(st.booleans()):
        guards["forbidden_path"] = {"patterns": draw(lists["paths"])}
    if draw(st.booleans()):
        guards["path_allowlist"] = {"file_access_allow": draw(lists["paths"])}
    if draw(st.booleans()):
        guards["mcp_tool"] = {
            "allow": draw(lists["tools"]),
            "block": draw(lists["tools"]),
            "require_confirmation": draw(lists["tools"]),
        }
    stated = [
        {
            "policy_id": f"r{number}",
            "applies_to": ["*"],
            "rule": {"condition": condition, "effect": effect},
        }
        for number, (condition, effect) in enumerate(draw(rules))
    ]
    top = {"guards": guards, "settings": {"fail_fast": draw(st.booleans())}, "rules": stated}
    return "\n".join(f"{key}: {json.dumps(value)}" for key, value in top.items())


attempts = st.sampled_from(
    [
        ["action=http.get", "host=a.example.com", "path=/x"],
        ["action=http.get", "host=example.com", "user.roles=dev", "user.mfa_verified=true"],
        ["action=tcp.connect", "host=c.test", "port=22"],
        ["action=file.open", "resource.path=/srv/a"],
        ["action=file.write", "resource.path=/etc/passwd"],
        ["action=tool.call", "tool.name=rm", "tool.server=files"],
        ["action=custom"],
    ]
)


@given(policies(), attempts)
def test_an_explanation_ends_where_the_decision_does(text, words):
    snapshot = snapshot_of(policy_of(text))
    event, context = described(facts_of_words(words), time_ns=10**18)
    explained = explain_event(event, snapshot, context)
    assert explained.decision == decide(event, snapshot, context)
    assert explained.decider == explained.decision.guard
    if not snapshot.settings.fail_fast and explained.decider != ENGINE:
        matched = {trace.policy_id for trace in explained.rules if trace.matched}
        assert matched == set(explained.decision.rules)


def explained(text, *words):
    policy = policy_of(text)
    snapshot = snapshot_of(policy)
    event, context = described(facts_of_words(words), time_ns=10**18)
    found = explain_event(event, snapshot, context)
    near = near_misses(event, context, policy, snapshot.rules, found.rules, found.decision)
    return found, near


EGRESS = """
guards:
  egress_allowlist:
    allow: [api.example.com, "*.apps.test", "db.test:5432"]
"""


@pytest.mark.parametrize(
    ("host", "port", "lacks"),
    [
        ("api.exampel.com", 443, "differs by the label exampel for example"),
        ("www.example.com", 443, "differs by the label www for api"),
        ("api.example.com", 8443, "does not speak of port 8443"),
        ("v1.api.example.com", 443, "sub-domain"),
        ("apps.test", 443, "apex"),
        ("db.test", 443, "does not speak of port 443"),
    ],
)
def test_an_entry_that_lacks_one_thing_is_told(host, port, lacks):
    _, near = explained(EGRESS, "action=tcp.connect", f"host={host}", f"port={port}")
    assert [each for each in near if lacks in each.lacks]


def test_a_host_that_is_far_from_every_entry_has_no_near_miss():
    _, near = explained(EGRESS, "action=tcp.connect", "host=elsewhere.invalid.net")
    assert near == ()


RULE = """
guards: {egress_allowlist: {allow: []}}
rules:
  - policy_id: dev
    applies_to: ["egress:*.partner.com"]
    rule: {condition: "'dev' in request.user.roles && request.user.mfa_verified", effect: ALLOW}
"""


def test_a_rule_that_lacked_one_conjunct_is_told_with_it():
    _, near = explained(RULE, "action=http.get", "host=x.partner.com", "user.roles=dev")
    assert [(each.what, each.lacks) for each in near] == [
        (
            "rule dev (ALLOW)",
            "only request.user.mfa_verified (request.user.mfa_verified is not known)",
        )
    ]


def test_a_rule_that_lacked_two_is_not():
    _, near = explained(RULE, "action=http.get", "host=x.partner.com")
    assert near == ()


def test_a_rule_that_would_allow_somewhere_else_is_told():
    _, near = explained(
        RULE, "action=http.get", "host=x.other.com", "user.roles=dev", "user.mfa_verified=true"
    )
    assert "egress:*.partner.com" in near[0].lacks


def test_a_refusal_that_a_rule_lifts_says_so():
    found, _ = explained(
        RULE, "action=http.get", "host=x.partner.com", "user.roles=dev", "user.mfa_verified=true"
    )
    assert found.decision.verdict.value == "allow"
    assert "lifted by the rule dev" in found.why[0]


def test_a_tunnel_that_is_opened_for_its_requests_says_so():
    found, _ = explained(RULE, "action=tcp.connect", "host=x.partner.com")
    assert (found.decision.verdict.value, found.decider) == ("allow", "rule:dev")
    assert "each request in it is decided by itself" in found.why[-1]


FILES = """
guards:
  path_allowlist: {file_access_allow: [/srv/data/a.csv], file_write_allow: [/srv/out/**]}
"""


@pytest.mark.parametrize(
    ("path", "lacks"),
    [
        ("/srv/data/A.csv", "case only"),
        ("/srv/data/b.csv", "last name"),
        ("/srv/out/x", "other operations"),
    ],
)
def test_a_path_that_lacks_one_thing_is_told(path, lacks):
    _, near = explained(FILES, "action=file.open", f"resource.path={path}")
    assert [each for each in near if lacks in each.lacks]


@pytest.mark.parametrize(
    "word", ["host", "=x", "nonsense=1", "port=x", "user.mfa_verified=yes", "user=1", "host.x=1"]
)
def test_a_word_that_states_no_fact_is_refused(word):
    with pytest.raises(InputError):
        facts_of_words([word])


def test_words_are_typed_by_the_facts_they_state():
    facts = facts_of_words(
        ["host=h", "port=1", "user.roles=a,b", "headers.x.y=z", "session.spend=2"]
    )
    assert facts == {
        "request": {"host": "h", "port": 1, "user": {"roles": ["a", "b"]}, "headers": {"x.y": "z"}},
        "session": {"spend": 2.0},
    }


@pytest.fixture
def policy_file(tmp_path):
    place = tmp_path / "p.yaml"
    place.write_text(
        "version: '1.2.0'\nname: t\n"
        + RULE.replace("guards: {", "guards: {secret_leak: {enabled: false}, ")
    )
    return place


def run(*words):
    return CliRunner().invoke(policy_group, ["explain", *map(str, words)])


def test_a_refusal_is_explained_and_no_error(policy_file):
    result = run("--policy", policy_file, "action=http.get", "host=x.partner.com")
    assert result.exit_code == 0
    assert "✗ deny  host_not_allowed" in result.output
    assert "dev (ALLOW)" in result.output


def test_json_says_the_same(policy_file):
    result = run("--policy", policy_file, "--format", "json", "action=http.get", "host=x.test")
    told = json.loads(result.stdout)
    assert (told["verdict"], told["decidedBy"]) == ("deny", "egress_allowlist")
    assert told["rulesSilent"] == 1
    assert told["guards"][0]["guard"] == "egress_allowlist"


def test_facts_may_come_as_yaml_and_an_attempt_as_an_event(policy_file):
    facts = "request: {action: http.get, host: x.test}"
    assert run("--policy", policy_file, "--request", facts).exit_code == 0
    event = json.dumps({"eventType": "network_egress", "data": {"host": "x.test", "port": 443}})
    result = run("--policy", policy_file, "--event", event)
    assert result.exit_code == 0 or isinstance(result.exception, InputError)


@pytest.mark.parametrize(
    "words",
    [["--request", "request: {action: nonsense}"], ["--request", "- 1"], ["--event", "{"]],
)
def test_what_is_no_attempt_is_wrong_use(policy_file, words):
    assert isinstance(run("--policy", policy_file, *words).exception, InputError)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--scope", "team=a", "action=custom"],
        ["--policy", "p", "--root", "r", "action=custom"],
    ],
)
def test_no_attempt_a_scope_of_nothing_and_two_policies_are_wrong_use(words):
    assert run(*words).exit_code == 2


def test_without_a_policy_the_built_in_one_is_explained():
    result = run("action=file.open", "resource.path=/w/.env")
    assert "built-in baseline.yaml" in result.output
    assert "path_forbidden" in result.output


def test_a_policy_that_is_not_there_is_a_policy_error():
    assert isinstance(run("--policy", "/nowhere.yaml", "action=custom").exception, ConfigError)


def test_values_cannot_drive_the_terminal_and_content_is_not_shown(policy_file):
    result = run(
        "--policy", policy_file, "action=tool.call", "tool.name=a\x1b[31m", "tool.arguments=hush"
    )
    assert "\x1b" not in result.output
    assert "hush" not in result.output
