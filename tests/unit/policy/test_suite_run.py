"""A case is decided as an attempt is, its body included, and compared by what is stated."""

from __future__ import annotations

import pytest

from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.decide.policy.suite import Expect
from aesp_proxy.decide.policy.suite_run import Attempt, decide_attempt, mismatches
from aesp_proxy.decide.snapshot import Snapshot, build_snapshot
from aesp_proxy.model.decision import Decision, Reason, Severity, Verdict
from aesp_proxy.normalize.described import described

POLICY = """\
version: "1.2.0"
name: a
guards:
  egress_allowlist:
    allow: [a.example]
  secret_leak:
    patterns:
      - {name: bad, pattern: 'BAD-\\d{4}', severity: critical}
      - {name: odd, pattern: 'ODD-\\d{4}', severity: info}
"""


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return build_snapshot(load_policy(POLICY, "p.yaml"), (), fingerprint_key=b"k" * 32, serial=1)


def decided(snapshot: Snapshot, body: bytes | None, host: str = "a.example") -> Decision:
    facts = {"request": {"action": "http.post", "host": host}}
    event, context = described(facts, time_ns=0)
    return decide_attempt(Attempt(event=event, context=context, body=body), snapshot)


def test_a_secret_in_a_body_refuses_what_the_head_lets_pass(snapshot: Snapshot) -> None:
    assert decided(snapshot, None).verdict is Verdict.ALLOW
    assert decided(snapshot, b"good").verdict is Verdict.ALLOW
    found = decided(snapshot, b"BAD-1234")
    assert (found.verdict, found.reason) == (Verdict.DENY, Reason.SECRET_FOUND)
    assert [finding.location for finding in found.findings] == ["body"]


def test_a_weak_finding_in_a_body_is_noted(snapshot: Snapshot) -> None:
    found = decided(snapshot, b"ODD-1234")
    assert found.verdict is Verdict.AUDIT
    assert [finding.rule for finding in found.findings] == ["odd"]


def test_the_body_of_a_refused_request_is_not_asked_about(snapshot: Snapshot) -> None:
    refused = decided(snapshot, b"BAD-1234", host="b.example")
    assert (refused.reason, refused.findings) == (Reason.HOST_NOT_ALLOWED, ())


DECISION = Decision(
    verdict=Verdict.DENY,
    reason=Reason.RULE_DENIED,
    guard="rule:r",
    severity=Severity.WARNING,
    message="",
    rules=("r", "s"),
)


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ({}, ()),
        ({"reason": Reason.RULE_DENIED, "rule": "s", "guard": "rule:r"}, ()),
        ({"verdict": Verdict.ALLOW}, ("verdict: expected allow, got deny",)),
        ({"reason": Reason.ALLOWED}, ("reason: expected allowed, got rule_denied",)),
        ({"rule": "t"}, ("rule: expected t, got r, s",)),
        ({"guard": "engine"}, ("guard: expected engine, got rule:r",)),
        ({"finding": "f"}, ("finding: expected f, got none",)),
    ],
)
def test_only_what_is_stated_is_compared(stated: dict[str, object], told: tuple[str, ...]) -> None:
    expect = Expect(**{"where": "", "verdict": Verdict.DENY, **stated})  # type: ignore[arg-type]
    assert mismatches(expect, DECISION) == told
