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
from aesp_proxy.decide.rules import NO_RULES, RuleMatches
from aesp_proxy.decide.snapshot import Snapshot
from aesp_proxy.model.context import Context
from aesp_proxy.model.decision import Finding, Reason, Severity, Verdict
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


class Matches:
    """Rules that match as the test says, and keep what they were asked."""

    def __init__(self, matches: RuleMatches) -> None:
        self.matched, self.asked = matches, []

    def matches(self, event: object, context: object, findings: object) -> RuleMatches:
        self.asked.append((event, context, findings))
        return self.matched


class Lifts:
    """Grants that lift every refusal for a reason."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason

    def lifted(self, refusal: Answer, event: object) -> Answer | None:
        return answer(Verdict.AUDIT) if refusal.reason is self.reason else None


ALLOWS = RuleMatches(answers=((answer(Verdict.ALLOW), "r.allow"),), allows=True, rules=("r.allow",))
UNLISTED = replace(answer(Verdict.DENY), reason=Reason.HOST_NOT_ALLOWED, implicit=True)
BLOCKED = replace(answer(Verdict.DENY), reason=Reason.HOST_BLOCKED)


def rule(verdict: Verdict, reason: Reason = Reason.RULE_DENIED) -> RuleMatches:
    return RuleMatches(
        answers=((replace(answer(verdict), reason=reason), "r.other"),), rules=("r.other",)
    )


def under(matches: RuleMatches, *guards: object, fail_fast: bool = False) -> Snapshot:
    return replace(bare(*guards, fail_fast=fail_fast), rules=Matches(matches))


def test_a_refusal_for_want_of_an_entry_falls_where_a_rule_allows_and_only_there() -> None:
    decision = decide(EVENT, under(ALLOWS, Says(UNLISTED)))
    assert (decision.verdict, decision.guard) == (Verdict.ALLOW, "rule:r.allow")
    assert decision.rules == ("r.allow",)
    for matches in (NO_RULES, rule(Verdict.AUDIT), rule(Verdict.DENY)):
        assert decide(EVENT, under(matches, Says(UNLISTED))).verdict is Verdict.DENY


def test_what_an_entry_forbids_no_rule_lifts() -> None:
    for guards in (
        (Says(BLOCKED),),
        (Says(UNLISTED), Says(BLOCKED)),
        (Says(UNLISTED), Says(BLOCKED, grants=False)),
        (Says(UNLISTED), Says(ValueError())),
    ):
        decision = decide(EVENT, under(ALLOWS, *guards))
        assert decision.verdict is Verdict.DENY
        assert decision.reason in (Reason.HOST_BLOCKED, Reason.GUARD_FAILED)


def test_a_rule_that_restricts_stands_beside_one_that_allows() -> None:
    both = replace(
        ALLOWS,
        answers=(*ALLOWS.answers, *rule(Verdict.DENY).answers),
        rules=("r.allow", "r.other"),
        errors=("r.other",),
    )
    decision = decide(EVENT, under(both, Says(UNLISTED)))
    assert (decision.reason, decision.guard) == (Reason.RULE_DENIED, "rule:r.other")
    assert decision.rules == ("r.allow", "r.other")
    assert decision.rule_errors == ("r.other",)
    asks = rule(Verdict.ASK, Reason.RULE_NEEDS_CONFIRMATION)
    assert decide(EVENT, under(asks, Says(answer(Verdict.ALLOW)))).verdict is Verdict.ASK


def test_an_allow_rule_answers_where_no_guard_does_and_a_note_does_not() -> None:
    assert decide(EVENT, under(ALLOWS)).verdict is Verdict.ALLOW
    decision = decide(EVENT, under(rule(Verdict.AUDIT)))
    assert (decision.verdict, decision.reason) == (Verdict.DENY, Reason.NO_GUARD)


def test_a_refusal_for_want_of_an_entry_is_told_in_its_turn() -> None:
    content = Says(replace(BLOCKED, reason=Reason.SECRET_FOUND), name="c", grants=False)
    gate = Says(UNLISTED, name="gate")
    assert decide(EVENT, bare(gate, content)).guard == "gate"
    assert decide(EVENT, bare(content, gate)).guard == "c"
    assert decide(EVENT, bare(Says(answer(Verdict.ALLOW)), gate)).guard == "gate"
    assert decide(EVENT, bare(gate, Says(answer(Verdict.ALLOW)))).guard == "gate"


@pytest.mark.parametrize("matches", [NO_RULES, ALLOWS, rule(Verdict.DENY)])
def test_fail_fast_goes_on_to_the_rules_after_a_refusal_that_a_rule_may_lift(matches) -> None:
    for fail_fast in (True, False):
        last = Says(answer(Verdict.ALLOW), grants=False)
        snapshot = under(matches, Says(UNLISTED), last, fail_fast=fail_fast)
        decision = decide(EVENT, snapshot)
        assert last.asked == 1
        assert len(snapshot.rules.asked) == 1
        assert decision.verdict.passes is (matches is ALLOWS)
    stopped = under(ALLOWS, Says(BLOCKED), last, fail_fast=True)
    assert decide(EVENT, stopped).verdict is Verdict.DENY
    assert stopped.rules.asked == []


def test_a_grant_lifts_the_answer_of_one_guard_and_the_others_stand() -> None:
    lifts = Lifts(Reason.HOST_BLOCKED)
    decision = decide(EVENT, replace(bare(Says(BLOCKED)), grants=lifts))
    assert (decision.verdict, decision.message) == (Verdict.AUDIT, "audit")
    other = Says(replace(BLOCKED, reason=Reason.SECRET_FOUND), grants=False)
    decision = decide(EVENT, replace(bare(Says(BLOCKED), other), grants=lifts))
    assert decision.reason is Reason.SECRET_FOUND
    # a content guard's refusal that is lifted does not let pass what no access guard allows
    lifted = replace(bare(Says(BLOCKED, grants=False)), grants=lifts)
    assert decide(EVENT, lifted).reason is Reason.NO_GUARD


def test_fail_fast_does_not_stop_at_what_a_grant_lifts() -> None:
    last = Says(BLOCKED)
    snapshot = replace(
        bare(Says(UNLISTED), last, fail_fast=True), grants=Lifts(Reason.HOST_NOT_ALLOWED)
    )
    assert decide(EVENT, snapshot).reason is Reason.HOST_BLOCKED
    assert last.asked == 1


@pytest.mark.parametrize("broken", ["rules", "grants"])
def test_net_2_holds_for_rules_and_grants_that_throw(broken: str) -> None:
    snapshot = replace(bare(Says(UNLISTED)), **{broken: Broken()})
    decision = decide(EVENT, snapshot)
    assert (decision.verdict, decision.reason) == (Verdict.DENY, Reason.ENGINE_FAILED)
    assert SECRET not in repr(decision)


def test_the_rules_see_the_context_and_what_was_found() -> None:
    finding = Finding(
        rule="k", severity=Severity.INFO, location="url", offset=0, masked="", fingerprint=""
    )
    context = Context(agent_executable="x")
    noted = replace(answer(Verdict.AUDIT), findings=(finding,))
    snapshot = under(NO_RULES, Says(answer(Verdict.ALLOW)), Says(noted, grants=False))
    decide(EVENT, snapshot, context)
    assert snapshot.rules.asked == [(EVENT, context, (finding,))]


def test_what_a_host_let_pass_by_a_rule_resolves_to_still_needs_address_rules(
    snapshot_of, events
) -> None:
    snapshot = replace(
        snapshot_of('egress_allowlist: {allow: ["*.corp.example", 10.0.0.0/8]}'),
        rules=Matches(ALLOWS),
    )
    assert decide(events.network("new.example"), snapshot).verdict is Verdict.ALLOW
    for address, refused in (("8.8.8.8", False), ("10.1.1.1", False), ("192.168.0.1", True)):
        decision = address_decision(parse_host("new.example"), 443, [ip_address(address)], snapshot)
        assert (decision is not None) is refused
    raw = decide(events.network("127.0.0.1"), snapshot)
    assert (raw.verdict, raw.reason) == (Verdict.DENY, Reason.ADDRESS_FORBIDDEN)
    assert decide(events.network("8.8.8.8"), snapshot).reason is Reason.ADDRESS_FORBIDDEN
