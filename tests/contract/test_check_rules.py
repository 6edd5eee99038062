"""``check`` names the rules that matched, and those that could not be evaluated."""

from __future__ import annotations

import json
from dataclasses import replace

from aesp_proxy.cli.check import _told
from aesp_proxy.model.decision import Decision, Reason, Severity, Verdict

DECISION = Decision(
    verdict=Verdict.DENY,
    reason=Reason.RULE_FAILED,
    guard="rule:a",
    severity=Severity.ERROR,
    message="m",
)


def test_rules_and_their_errors_are_printed_where_there_are_any() -> None:
    told = json.loads(_told("e", replace(DECISION, rules=("a", "b\x1b"), rule_errors=("a",))))
    assert (told["rules"], told["ruleErrors"]) == (["a", "b\x1b"], ["a"])
    assert not {"rules", "ruleErrors"} & set(json.loads(_told("e", DECISION)))
    assert _told("e", replace(DECISION, rules=("\x1b\u202e",))).isascii()
