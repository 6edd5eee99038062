"""The laws of levels, for random policies: stricter only, idempotent, associative, deny wins."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from policy_documents import DOCUMENTS

from aesp_proxy.decide.policy.compile import LevelInput, join_levels
from aesp_proxy.decide.policy.effective import policy_of
from aesp_proxy.decide.policy.levels import strictly_joined
from aesp_proxy.decide.policy.lists import meaning
from aesp_proxy.decide.policy.merge import joined
from aesp_proxy.decide.policy.prove import prove
from aesp_proxy.decide.policy.stated import read_stated
from aesp_proxy.errors import ConfigError

MANY = settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)


def tree_of(text, where="top.yaml"):
    try:
        return joined(None, read_stated(text, where))[0]
    except ConfigError:  # a removal that leaves something allowed
        assume(False)
        raise


def below(tree, text, where="low.yaml"):
    return strictly_joined(tree, read_stated(text, where))


@MANY
@given(DOCUMENTS, DOCUMENTS)
def test_what_a_level_makes_is_never_weaker_by_the_second_opinion(top, low):
    tree = tree_of(top)
    made = below(tree, low)
    proof = prove(policy_of(tree, "top.yaml"), policy_of(made.tree, "low.yaml"))
    assert proof.doubts == ()
    assert proof.events > 0


@MANY
@given(DOCUMENTS, DOCUMENTS)
def test_the_same_level_a_second_time_changes_nothing(top, low):
    tree = tree_of(top)
    once = below(tree, low)
    assume(not once.weakenings)
    twice = below(once.tree, low)
    assert policy_of(twice.tree, "x").hash == policy_of(once.tree, "x").hash


@MANY
@given(DOCUMENTS, DOCUMENTS, DOCUMENTS)
def test_levels_joined_in_steps_are_levels_joined_at_once(top, middle, low):
    try:
        files = [read_stated(text, name) for text, name in ((top, "t"), (middle, "m"), (low, "l"))]
        levels = [
            LevelInput(level=level, overridable=False, files=(file,))
            for level, file in zip(("global", "region", "team"), files, strict=True)
        ]
        at_once = join_levels(levels)[-1].tree
        upper = join_levels(levels[:2])[-1].tree
    except ConfigError:
        assume(False)
        raise
    in_steps = strictly_joined(upper, files[2]).tree
    assert meaning(at_once) == meaning(in_steps)
    first, last = policy_of(join_levels(levels[:1])[-1].tree, "t"), policy_of(at_once, "l")
    assert prove(first, last).doubts == ()


@MANY
@given(DOCUMENTS, st.sampled_from(["a.example", "*.example", "10.0.0.0/8", "*"]))
def test_what_a_level_blocks_no_level_above_or_below_lets_pass(top, host):
    tree = tree_of(top)
    block = f'{{"version": "1.2.0", "guards": {{"egress_allowlist": {{"block": ["{host}"]}}}}}}'
    made = below(tree, block)
    allow = (
        f'{{"version": "1.2.0", "guards": {{"egress_allowlist": {{"allow": ["{host}"],'
        f' "remove_block": ["{host}"]}}}}}}'
    )
    again = below(made.tree, allow)
    egress = policy_of(again.tree, "x").egress
    if egress is not None:
        assert host in [rule.text for rule in egress.block]


TOP = {
    "egress_allowlist": {"allow": ["*.a.example"], "block": ["x.a.example"]},
    "forbidden_path": {"patterns": ["/w/**"], "exceptions": ["/w/open"]},
    "mcp_tool": {"allow": ["read_*"], "block": ["rm"], "max_args_size": 5},
    "secret_leak": {"patterns": [{"name": "one", "pattern": "abc1"}]},
    "patch_integrity": {"max_additions": 5, "forbidden_patterns": ["abc"]},
}


@pytest.mark.parametrize(
    ("section", "key", "value", "told"),
    [
        ("egress_allowlist", "allow", ["*.a.example", "b.example"], "b.example:443"),
        ("egress_allowlist", "allow", ["*.a.example:*"], "witness.a.example:4443"),
        ("egress_allowlist", "block", [], "x.a.example:443"),
        ("egress_allowlist", "default_action", "log", "witness.example:443"),
        ("forbidden_path", "patterns", [], "'/w"),
        ("forbidden_path", "exceptions", ["/w/*"], "'/w/witness'"),
        ("mcp_tool", "allow", ["*"], "a call of the tool"),
        ("mcp_tool", "block", [], "a call of the tool 'rm'"),
        ("mcp_tool", "max_args_size", 6, "6 bytes of arguments"),
        ("secret_leak", "enabled", False, "a secret in a request"),
        ("secret_leak", "severity_threshold", "critical", "a finding of severity error"),
        ("secret_leak", "patterns", [], "a secret of the kind 'one'"),
        ("secret_leak", "skip_paths", ["/x"], "a secret in the file '/x'"),
        ("patch_integrity", "max_additions", 6, "adds 6 lines"),
        ("patch_integrity", "max_deletions", 501, "deletes 501 lines"),
        ("patch_integrity", "forbidden_patterns", [], "matches 'abc'"),
        ("patch_integrity", "enabled", False, "adds 6 lines"),
    ],
)
def test_the_second_opinion_finds_what_is_weaker(section, key, value, told):
    above = {"version": "1.2.0", "guards": TOP | {"mcp_tool": {**TOP["mcp_tool"], "allow": ["*"]}}}
    if key == "allow":
        above["guards"] = TOP
    low = {**above, "guards": above["guards"] | {section: {**above["guards"][section], key: value}}}
    proof = prove(*(policy_of(tree_of(json.dumps(form)), "p") for form in (above, low)))
    assert any(told in str(doubt) for doubt in proof.doubts), proof.doubts
