"""Coverage tells what no case has tried: outcomes of rules and conjuncts, entries of lists."""

from __future__ import annotations

from aesp_proxy.decide.policy.coverage import coverage
from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.decide.policy.policy import Effect, Policy
from aesp_proxy.decide.trace import ConjunctTrace, RuleTrace

POLICY = """\
version: "1.2.0"
name: a
guards:
  egress_allowlist:
    allow:
      - a.example
      - b.example
rules:
  - policy_id: r
    rule: {condition: "request.port > 1 && request.host == 'a.example'", effect: DENY}
  - policy_id: off
    enabled: false
    rule: {condition: "request.port > 1", effect: DENY}
"""


def policy() -> Policy:
    return load_policy(POLICY, "p.yaml")


def case(*values: bool | None, applies: bool = True) -> list[RuleTrace]:
    conjuncts = tuple(
        ConjunctTrace(text=f"c{number}", value=value, error="" if value is not None else "unknown")
        for number, value in enumerate(values)
    )
    return [trace(conjuncts, matched=applies and all(values), applies=applies)]


def trace(
    conjuncts: tuple[ConjunctTrace, ...], *, matched: bool, applies: bool = True
) -> RuleTrace:
    return RuleTrace(
        policy_id="r",
        source="p.yaml:9",
        effect=Effect.DENY,
        applies=applies,
        conjuncts=conjuncts,
        value=matched,
        matched=matched,
    )


def test_a_rule_is_covered_when_it_matched_and_when_it_did_not() -> None:
    one = coverage(policy(), [case(True, True)], ())
    assert (one.rules, one.rules_covered, one.rules_percent) == (1, 0, 0.0)
    assert [gap.what for gap in one.rule_gaps] == ["rule r: matched by every case"]
    assert one.rule_gaps[0].source == "p.yaml:9"
    other = coverage(policy(), [case(False, None)], ())
    assert [gap.what for gap in other.rule_gaps] == ["rule r: matched by no case"]
    both = coverage(policy(), [case(True, True), case(False, None)], ())
    assert (both.rules_covered, both.rule_gaps) == (1, ())


def test_a_conjunct_that_erred_was_seen_neither_way() -> None:
    found = coverage(policy(), [case(True, True), case(False, None)], ())
    assert (found.conjuncts, found.conjuncts_covered, found.conjuncts_percent) == (2, 1, 50.0)
    assert [gap.what for gap in found.conjunct_gaps] == ["rule r: c1 was never false"]


def test_a_case_that_a_rule_does_not_apply_to_says_nothing_of_its_conjuncts() -> None:
    found = coverage(policy(), [case(True, False, applies=False)], ())
    assert found.conjuncts_covered == 0
    assert found.conjunct_gaps[0].what == "rule r: c0 was never true nor false"


def test_a_condition_that_is_a_constant_has_no_other_outcome() -> None:
    constant = trace((ConjunctTrace(text="true", value=True, error=""),), matched=True)
    assert coverage(policy(), [[constant]], ()).conjuncts == 0


def test_a_rule_that_is_off_need_not_be_tried() -> None:
    assert coverage(policy(), [], ()).rules == 1


def test_an_entry_is_covered_when_it_has_decided_a_case() -> None:
    found = coverage(policy(), [], ("p.yaml:6",))
    assert (found.entries, found.entries_covered) == (2, 1)
    assert found.entry_gaps[0].what == "egress_allowlist.allow: b.example has decided no case"


def test_where_there_is_nothing_all_of_it_is_covered() -> None:
    nothing = coverage(load_policy('version: "1.2.0"\nname: a\n', "p.yaml"), [], ())
    assert (nothing.rules_percent, nothing.conjuncts_percent) == (100.0, 100.0)
