"""A difference is told with an event that both policies have decided, or as what it is."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.policy_tools.policies import HEAD, policy_of, snapshot_of
from tests.unit.policy_tools.test_explain import policies

from aesp_proxy.cli.policy import policy as policy_group
from aesp_proxy.decide.engine import decide
from aesp_proxy.decide.policy.difference import Direction
from aesp_proxy.decide.policy.difference_values import differences
from aesp_proxy.errors import ConfigError

WEAKER, STRICTER, OTHER = Direction.WEAKER, Direction.STRICTER, Direction.OTHER
TEXT, UNPROVED = Direction.TEXT, Direction.UNPROVED


def changes(before, after):
    return differences(policy_of(before, "a.yaml"), policy_of(after, "b.yaml"))


def egress(*, allow=(), block=(), default="block"):
    section = {"allow": list(allow), "block": list(block), "default_action": default}
    return f"guards: {{egress_allowlist: {json.dumps(section)}}}"


def only(before, after):
    (change,) = changes(before, after)
    return change


def test_the_same_meaning_has_no_changes():
    one = egress(allow=["a.test", "b.test"])
    other = f"# a comment\n{egress(allow=['b.test', 'a.test'])}"
    assert changes(one, other) == ()


@pytest.mark.parametrize(
    ("before", "after", "direction", "what"),
    [
        (egress(), egress(allow=["a.test"]), WEAKER, "added"),
        (egress(allow=["a.test"]), egress(), STRICTER, "removed"),
        (egress(allow=["*.test"]), egress(allow=["*.test", "a.test"]), TEXT, "added"),
        (egress(allow=["*.test", "a.test"]), egress(allow=["*.test"]), TEXT, "removed"),
        (egress(), egress(block=["a.test"]), OTHER, "added"),
        (egress(default="allow"), egress(block=["a.test"], default="allow"), STRICTER, "added"),
        (egress(), egress(default="allow"), WEAKER, "changed"),
        (egress(default="allow"), egress(default="log"), OTHER, "changed"),
        (
            egress(block=["a.test"]),
            egress(block=["a.test"], allow=["a.test"]),
            UNPROVED,
            "added",
        ),
    ],
)
def test_an_entry_is_told_by_what_it_does(before, after, direction, what):
    change = only(before, after)
    assert (change.direction, change.what) == (direction, what)
    assert (change.witness is None) == (direction in (TEXT, UNPROVED))


def test_an_entry_says_which_other_says_it_already():
    assert "*.test" in only(egress(allow=["*.test"]), egress(allow=["*.test", "a.test"])).why


RULES = """
guards: {{egress_allowlist: {{allow: [a.test, b.test]}}}}
rules:
  - policy_id: r
    applies_to: ["egress:*"]
    rule: {{condition: "{condition}", effect: {effect}}}
"""
NO_RULES = "guards: {egress_allowlist: {allow: [a.test, b.test]}}"


@pytest.mark.parametrize(
    ("condition", "effect", "direction"),
    [
        ("request.host == 'a.test'", "DENY", STRICTER),
        ("request.host == 'c.test'", "DENY", UNPROVED),  # it was refused before, by a list
        ("'dev' in request.user.roles", "ALLOW", WEAKER),
        ("request.time.getHours() >= 22", "ASK", STRICTER),
        ("request.path.startsWith('/x')", "AUDIT", OTHER),
        ("false", "DENY", UNPROVED),
    ],
)
def test_a_rule_is_witnessed_by_facts_that_its_condition_holds_for(condition, effect, direction):
    with_rule = RULES.format(condition=condition, effect=effect)
    added, removed = only(NO_RULES, with_rule), only(with_rule, NO_RULES)
    assert added.direction is direction
    turned = {WEAKER: STRICTER, STRICTER: WEAKER}
    assert removed.direction is turned.get(direction, direction)


def test_a_rule_is_not_told_by_what_another_change_does():
    before = RULES.format(condition="request.path == '/x'", effect="DENY")
    after = egress(allow=["a.test", "b.test", "new.test"])
    rule = next(each for each in changes(before, after) if each.key == "rules.r")
    assert rule.before is not None
    assert rule.before.guard == "rule:r"
    assert rule.witness.facts["request.host"] in ("a.test", "b.test")


def test_a_condition_that_lets_pass_here_and_refuses_there_is_told_as_both():
    before = RULES.format(condition="request.port == 443", effect="DENY")
    after = RULES.format(condition="request.port == 80", effect="DENY")
    weaker, stricter = changes(before, after)
    assert (weaker.direction, weaker.witness.event.port) == (WEAKER, 443)
    assert (stricter.direction, stricter.witness.event.port) == (STRICTER, 80)


def guard(name, **keys):
    return f"guards: {{{name}: {json.dumps(keys)}}}"


@pytest.mark.parametrize(
    ("before", "after", "direction"),
    [
        (guard("mcp_tool", allow=["read"]), guard("mcp_tool", allow=["read", "rm"]), WEAKER),
        (
            guard("mcp_tool", allow=["read"]),
            guard("mcp_tool", allow=["read"], max_args_size=100),
            STRICTER,
        ),
        (
            guard("mcp_tool", allow=["read"]),
            guard("mcp_tool", allow=["read"], require_confirmation=["read"]),
            STRICTER,
        ),
        (
            guard("path_allowlist", file_access_allow=["/srv/**"]),
            guard("path_allowlist", file_access_allow=["/srv/a"]),
            STRICTER,
        ),
        (
            guard("forbidden_path", patterns=["/etc/**"]),
            guard("forbidden_path", patterns=["/etc/**"], exceptions=["/etc/hosts"]),
            WEAKER,
        ),
    ],
)
def test_a_value_is_told_by_what_it_does(before, after, direction):
    assert direction in {change.direction for change in changes(before, after)}


PATCH = "guards: {{forbidden_path: {{patterns: []}}, patch_integrity: {{{keys}}}}}"


@pytest.mark.parametrize(
    ("before", "after", "direction"),
    [
        ("max_additions: 10", "max_additions: 5", STRICTER),
        ("max_deletions: 10", "max_deletions: 20", WEAKER),
        ("require_balance: false", "require_balance: true", STRICTER),
        ("forbidden_patterns: []", "forbidden_patterns: ['eval\\(']", STRICTER),
    ],
)
def test_limits_of_patches_are_witnessed_by_patches(before, after, direction):
    change = only(PATCH.format(keys=before), PATCH.format(keys=after))
    assert change.direction is direction
    assert "patch" in change.witness.facts


def test_a_guard_that_is_switched_off_is_told():
    text = guard("mcp_tool", allow=["read"])
    found = {change.key: change for change in changes(text, "guards: {}")}
    assert found["guards.mcp_tool"].direction is STRICTER


def test_kinds_of_secret_are_told_by_name_and_a_threshold_by_a_finding():
    secret = "guards: {{secret_leak: {{severity_threshold: {word}, patterns: {patterns}}}}}"
    pattern = "[{name: mine, pattern: 'hush-[0-9]{8}'}]"
    found = changes(
        secret.format(word="error", patterns="[]"),
        secret.format(word="critical", patterns=pattern),
    )
    told = {change.key.rpartition(".")[2]: change for change in found}
    assert told["severity_threshold"].direction is WEAKER
    assert told["mine"].direction is STRICTER
    assert "hush" not in str(told["mine"].item)


def test_a_pack_that_is_looked_for_is_stricter_and_one_that_is_not_weaker():
    packs = "guards: {{secret_leak: {{packs: {names}}}}}"
    found = changes(packs.format(names="[personal]"), packs.format(names="[health]"))
    told = {change.item: change.direction for change in found}
    assert told == {"personal": WEAKER, "health": STRICTER}


@settings(max_examples=20, deadline=None)
@given(policies(), policies(), st.booleans())
def test_every_witness_is_decided_differently(one, other, turned):
    before, after = policy_of(one, "a.yaml"), policy_of(other, "b.yaml")
    old, new = snapshot_of(before), snapshot_of(after)
    for change in differences(after, before) if turned else differences(before, after):
        if change.witness is None:
            assert change.direction not in (WEAKER, STRICTER)
            continue
        event, context = change.witness.event, change.witness.context
        first, second = decide(event, old, context), decide(event, new, context)
        if turned:
            first, second = second, first
        assert (first.verdict, second.verdict) == (change.before.verdict, change.after.verdict)
        if change.direction is WEAKER:
            assert second.verdict.passes
            assert not first.verdict.passes


@pytest.fixture
def two_files(tmp_path):
    def write(name, text):
        place = tmp_path / name
        place.write_text(HEAD + text)
        return str(place)

    return write


def run(*words):
    return CliRunner().invoke(policy_group, ["diff", *words], standalone_mode=False)


def test_exit_codes_tell_whether_anything_changes(two_files):
    one = two_files("a.yaml", egress(allow=["a.test"]))
    same = two_files("b.yaml", f"# other\n{egress(allow=['a.test'])}")
    covered = two_files("c.yaml", egress(allow=["*.test", "a.test"]))
    assert run(one, same).return_value == 0
    result = run(one, covered)
    assert result.return_value == 1
    assert "weaker" in result.output
    assert "action=tcp.connect host=witness.test" in result.output


def test_json_holds_witnesses_and_decisions(two_files):
    one, other = two_files("a.yaml", egress()), two_files("b.yaml", egress(allow=["a.test"]))
    told = json.loads(run(one, other, "--format", "json").stdout)
    assert told["weaker"] is True
    assert told["changes"][0]["witness"]["request.host"] == "a.test"
    assert told["changes"][0]["after"]["verdict"] == "allow"


@pytest.mark.parametrize(
    "words", [[], ["a"], ["a", "b", "c"], ["--root", "r"], ["a", "b", "--root", "r"]]
)
def test_anything_but_two_policies_is_wrong_use(words):
    result = run(*words)
    assert type(result.exception).__name__ == "UsageError"


def test_a_policy_that_is_not_there_is_a_policy_error():
    assert isinstance(run("/nowhere/a.yaml", "/nowhere/b.yaml").exception, ConfigError)
