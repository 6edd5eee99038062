"""Records of decisions: which policy and which rules decided, and which rules failed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aesp_proxy.model.decision import Decision, Reason, Severity, Verdict
from aesp_proxy.model.event import CustomEvent
from aesp_proxy.model.principal import Principal
from aesp_proxy.record.compose import decision_record

EVENT = CustomEvent(
    event_id="e",
    time_ns=1,
    principal=Principal(principal_id="", agent_id="", agent_type="", session_id=""),
    kind="x",
)
DECISION = Decision(
    verdict=Verdict.DENY,
    reason=Reason.RULE_DENIED,
    guard="rule:r.one",
    severity=Severity.ERROR,
    message="m",
    policy_name="p",
)


@pytest.mark.parametrize(
    ("rules", "errors", "applied", "metadata"),
    [
        ((), (), ("p",), ()),
        (("r.one",), (), ("p", "r.one"), ()),
        (
            ("r.one", "r.two"),
            ("r.one", "r.two"),
            ("p", "r.one", "r.two"),
            (("rule_errors", "r.one,r.two"),),
        ),
    ],
)
def test_a_record_names_the_policy_and_the_rules_that_matched(
    rules, errors, applied, metadata
) -> None:
    record = decision_record(EVENT, replace(DECISION, rules=rules, rule_errors=errors), time_ns=2)
    assert record.applied_policies == applied
    assert record.metadata == metadata


def test_without_a_policy_there_is_no_name_of_one() -> None:
    record = decision_record(EVENT, replace(DECISION, policy_name=""), time_ns=2)
    assert record.applied_policies == ()


def test_a_record_stays_small_however_many_rules_match() -> None:
    rules = tuple(f"r{number}" * 1000 for number in range(1000))
    record = decision_record(EVENT, replace(DECISION, rules=rules, rule_errors=rules), time_ns=2)
    assert record.applied_policies[-1] == "and 968 more"
    assert len("".join(record.applied_policies)) + len(record.metadata[0][1]) < 40_000
