"""The engine: the strictest wins, and both nets deny when something throws."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.decide.answer import Answer
from aesp_proxy.decide.engine import address_decision, decide
from aesp_proxy.decide.policy.policy import Settings
from aesp_proxy.decide.snapshot import Snapshot
from aesp_proxy.model.decision import Reason, Severity, Verdict
from aesp_proxy.model.event import CustomEvent
from aesp_proxy.model.host import parse_host
from aesp_proxy.model.principal import Principal

EVENT = CustomEvent(
    event_id="e",
    time_ns=0,
    principal=Principal(principal_id="", agent_id="", agent_type="", session_id=""),
    kind="x",
)
SECRET = "the text of a failure may hold the secret"


def bare(*guards: object, fail_fast: bool = False) -> Snapshot:
    return Snapshot(
        policy_name="n",
        policy_version="1.2.0",
        policy_hash="h",
        policy_where="p.yaml",
        serial=1,
        guards=guards,  # type: ignore[arg-type]
        egress=None,
        scanner=None,
        severity_threshold=Severity.ERROR,
        settings=Settings(fail_fast=fail_fast),
    )


class Says:
    def __init__(self, answer: object, *, name: str = "says", grants: bool = True) -> None:
        self.answer, self.name, self.grants, self.asked = answer, name, grants, 0

    def check(self, event: object) -> object:
        self.asked += 1
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def answer(verdict: Verdict) -> Answer:
    return Answer(
        verdict=verdict, reason=Reason.ALLOWED, severity=Severity.INFO, message=verdict.value
    )


class Broken:
    """Raises at the first touch: the engine itself fails on it, not a guard."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(SECRET)


@pytest.mark.parametrize(
    "failure", [ValueError(SECRET), RecursionError(), MemoryError(), KeyError(SECRET)]
)
def test_net_1_a_guard_that_throws_denies_whatever_the_others_say(failure: Exception) -> None:
    allows = Says(answer(Verdict.ALLOW))
    for order in ((Says(failure, name="bad"), allows), (allows, Says(failure, name="bad"))):
        decision = decide(EVENT, bare(*order))
        assert (decision.verdict, decision.reason) == (Verdict.DENY, Reason.GUARD_FAILED)
        assert decision.guard == "bad"
        assert decision.severity is Severity.CRITICAL
        assert type(failure).__name__ in decision.message
        assert "test_engine.py:" in decision.message
        assert SECRET not in repr(decision)


@pytest.mark.parametrize(
    "snapshot", [bare(Broken()), bare(Says("not an answer")), bare(Says(True))]
)
def test_net_2_an_engine_that_throws_denies(snapshot: Snapshot) -> None:
    decision = decide(EVENT, snapshot)
    assert (decision.verdict, decision.reason) == (Verdict.DENY, Reason.ENGINE_FAILED)
    assert SECRET not in repr(decision)


def test_net_2_holds_for_addresses_too(snapshot_of) -> None:
    snapshot = replace(snapshot_of("egress_allowlist: {}"), egress=Broken())
    decision = address_decision(parse_host("a.example"), 443, [ip_address("8.8.8.8")], snapshot)
    assert decision is not None
    assert (decision.verdict, decision.reason) == (Verdict.DENY, Reason.ENGINE_FAILED)


def test_an_event_that_is_none_is_denied(snapshot_of) -> None:
    assert decide(None, snapshot_of("egress_allowlist: {}")).verdict is Verdict.DENY  # type: ignore[arg-type]


@pytest.mark.parametrize("guards", [(), (Says(None),), (Says(None), Says(None, grants=False))])
def test_without_an_answer_the_event_is_denied(guards: tuple[Says, ...]) -> None:
    decision = decide(EVENT, bare(*guards))
    assert (decision.verdict, decision.reason) == (Verdict.DENY, Reason.NO_GUARD)
    assert decision.remediation[-1] == "No guard knows this kind of event."


@given(st.lists(st.tuples(st.sampled_from(list(Verdict)), st.booleans()), min_size=1, max_size=6))
def test_the_strictest_answer_wins_and_only_access_guards_let_pass(
    answers: list[tuple[Verdict, bool]],
) -> None:
    guards = [Says(answer(verdict), grants=grants) for verdict, grants in answers]
    decision = decide(EVENT, bare(*guards))
    strictest = max((verdict for verdict, _ in answers), key=lambda verdict: verdict.strictness)
    if strictest.passes and not any(grants for _, grants in answers):
        assert decision.reason is Reason.NO_GUARD
        assert decision.verdict is Verdict.DENY
    else:
        assert decision.verdict is strictest


def test_fail_fast_stops_at_the_first_refusal_and_otherwise_all_are_asked() -> None:
    for fail_fast, asked in ((True, 0), (False, 1)):
        last = Says(answer(Verdict.ALLOW))
        decision = decide(EVENT, bare(Says(answer(Verdict.DENY)), last, fail_fast=fail_fast))
        assert decision.verdict is Verdict.DENY
        assert last.asked == asked


def test_a_snapshot_says_which_policy_it_is(snapshot_of) -> None:
    snapshot = snapshot_of("egress_allowlist: {}")
    assert (snapshot.policy_name, snapshot.policy_version, snapshot.serial) == ("test", "1.2.0", 7)
    assert [guard.name for guard in snapshot.guards] == ["egress_allowlist", "secret_leak"]
