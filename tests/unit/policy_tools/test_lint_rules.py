"""What ``policy lint`` finds in rules: by themselves, and beside each other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.cli.policy.lint_files import attempt, lint_file
from aesp_proxy.cli.policy.lint_report import witness_lines
from aesp_proxy.decide.policy.cel.condition import compile_condition
from aesp_proxy.decide.policy.cel.emit import emit
from aesp_proxy.decide.policy.cel.errors import EvaluationError
from aesp_proxy.decide.policy.cel.prepared import address
from aesp_proxy.decide.policy.cel.terms import Term
from aesp_proxy.decide.policy.globs import PathGlobs
from aesp_proxy.decide.policy.lint.atoms import contradict, implies
from aesp_proxy.decide.policy.lint.finding import LintFinding
from aesp_proxy.decide.policy.lint.meeting import globs_meet
from aesp_proxy.decide.policy.lint.run import lint as lint_all
from aesp_proxy.decide.policy.lint.subject import subject_of
from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.decide.policy.suite import parse_suite
from aesp_proxy.decide.rules import Rules
from aesp_proxy.errors import ConfigError

Lint = Callable[..., list[LintFinding]]
HEAD: Final = 'version: "1.2.0"\nname: p\nguards: {mcp_tool: {allow: [a]}}\nrules:\n'


def rule(
    policy_id: str, condition: str, effect: str = "DENY", on: str = "", actions: str = ""
) -> str:
    applies = f", applies_to: [{on}]" if on else ""
    acting = f", actions: [{actions}]" if actions else ""
    body = f'{{condition: "{condition}", effect: {effect}{acting}}}'
    return f"  - {{policy_id: {policy_id}{applies}, rule: {body}}}\n"


@pytest.fixture
def lint(tmp_path: Path) -> Lint:
    def call(*items: str) -> list[LintFinding]:
        path = tmp_path / "p.yaml"
        path.write_text(HEAD + "".join(items))
        return list(lint_file(path))

    return call


def told(findings: list[LintFinding]) -> list[tuple[str, str]]:
    return [(each.check, each.message) for each in findings if each.check != "rule-not-indexed"]


def of(findings: list[LintFinding], check: str) -> list[LintFinding]:
    return [each for each in findings if each.check == check]


@pytest.mark.parametrize(
    "condition",
    [
        "request.port == 80 && request.port == 443",
        "request.port in [1, 2] && request.port == 3",
        "request.port > 5 && request.port < 3",
        "request.port > 5 && request.port < 6",
        "request.port >= 5 && request.port == 4",
        "request.host == 'a' && request.host.endsWith('.b')",
        "request.path.startsWith('/a') && request.path.startsWith('/b')",
        "request.path.startsWith('/a/b') && !request.path.startsWith('/a')",
        "request.source_ip in ['10.1.0.0/16'] && !(request.source_ip in ['10.0.0.0/8'])",
        "request.source_ip in ['10.0.0.0/8'] && request.source_ip in ['192.168.0.0/16']",
        "'a' in session.labels && !('a' in session.labels)",
        "request.path.matches('^/a') && !request.path.matches('^/a')",
        "request.query.contains('a') && !request.query.contains('a')",
        "request.user.mfa_verified && !request.user.mfa_verified",
        "session.risk_score > 0.5 && session.risk_score <= 0.5",
        "false",
        "request.port == 1 && false",
    ],
)
def test_a_condition_that_contradicts_itself_is_unreachable(lint: Lint, condition: str) -> None:
    (found,) = of(lint(rule("r", condition)), "rule-unreachable")
    assert found.message == "the condition of r can never be true"
    assert found.place[1] == 5


@pytest.mark.parametrize(
    "condition",
    [
        "request.port > 5 && request.port < 7",
        "request.port >= 5 && request.port <= 5",
        "request.path.startsWith('/a') && request.path.startsWith('/a/b')",
        "request.path.startsWith('/a') && !request.path.startsWith('/a/b')",
        "request.path.startsWith('/a') && request.path.endsWith('b')",
        "'a' in session.labels && 'b' in session.labels",
        "request.path.matches('a') && request.path.matches('b')",
        "!(request.port in [80, 443]) && request.port > 10",
        "request.size > 0 && request.port < 5",
    ],
)
def test_a_condition_that_can_hold_is_not_unreachable(lint: Lint, condition: str) -> None:
    assert of(lint(rule("r", condition)), "rule-unreachable") == []


@pytest.mark.parametrize(
    "condition",
    [
        "request.port > 5 || request.port <= 7",
        "request.method == 'GET' || request.method != 'GET'",
        "request.query.contains('a') || !request.query.contains('a')",
        "true || request.port == 1",
        "1 == 1",
    ],
)
def test_a_condition_that_is_always_true_is_told(lint: Lint, condition: str) -> None:
    found = of(lint(rule("r", condition, on='"egress:a.example"')), "rule-always-true")
    assert [each.message for each in found] == ["the condition of r can never be false"]


def test_a_plain_true_on_named_resources_is_how_one_says_always(lint: Lint) -> None:
    assert lint(rule("r", "true", on='"egress:a.example"')) == []


def test_a_rule_behind_a_broader_one_is_shadowed(lint: Lint) -> None:
    (found,) = lint(
        rule("narrow", "request.host == 'a.x.example' && request.port == 443"),
        rule("broad", "request.host.endsWith('.x.example')"),
    )
    assert (found.check, found.level) == ("rule-shadowed", "warning")
    assert found.message == "broad matches whenever narrow does"
    assert found.related[0].text == "broad"


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        ('"egress:a.x.example"', '"egress:*.x.example"'),
        ('"egress:a.x.example:443"', '"egress:a.x.example"'),
        ('"egress:10.1.0.0/16"', '"egress:*"'),
        ('"file:/w/a"', '"file:/W/**"'),
        ('"tool:files/Read"', '"tool:*read"'),
        ('"tool:a", "file:/a"', '"*"'),
        ('"tool:a"', ""),
    ],
)
def test_resources_within_others_are_seen(lint: Lint, inner: str, outer: str) -> None:
    found = lint(rule("i", "true", on=inner), rule("o", "1 == 1 && true", on=outer))
    assert [each.related[0].text for each in of(found, "rule-shadowed")] == ["o"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (rule("i", "true", on='"egress:x.example"'), rule("o", "true", on='"egress:*.x.example"')),
        (rule("i", "true", on='"tool:a"'), rule("o", "true", on='"file:/a"')),
        (
            rule("i", "true", on='"egress:a"'),
            rule("o", "true", on='"egress:a"', actions="http.get"),
        ),
        (rule("i", "request.port > 5"), rule("o", "request.port > 6")),
        (rule("i", "request.port > 5"), rule("o", "request.port > 4", "ASK")),
        (rule("i", "'a' in session.labels"), rule("o", "'b' in session.labels")),
        (
            rule("i", "request.port == 1 || request.size > 5"),
            rule("o", "request.port == 1"),
        ),
    ],
)
def test_a_rule_that_makes_a_difference_is_not_shadowed(lint: Lint, one: str, other: str) -> None:
    found = lint(one, other)
    useless = of(found, "rule-shadowed") + of(found, "rule-duplicate")
    assert [each for each in useless if each.place[1] == 5] == []


def test_of_two_rules_that_say_the_same_the_later_is_a_duplicate(lint: Lint) -> None:
    found = lint(
        rule("one", "request.port == 1 && request.host == 'a'"),
        rule("two", "request.host == 'a' && request.port == 1"),
    )
    assert told(found) == [("rule-duplicate", "two says the same as one")]


def test_an_allow_rule_that_a_deny_rule_always_beats_never_allows(lint: Lint) -> None:
    found = lint(
        rule("a", "request.method == 'GET'", "ALLOW", on='"egress:a.example"'),
        rule("d", "request.method in ['GET', 'PUT']"),
    )
    assert told(found) == [
        ("rule-shadowed", "a never allows anything: d (DENY) matches whenever it does")
    ]


CONFLICTS: Final = [
    (
        rule("a", "request.path.startsWith('/v1/')", "ALLOW", on='"egress:x.example"'),
        rule("d", "request.path.contains('admin') && request.time.getHours() > 5"),
    ),
    (
        rule(
            "a", "request.resource.classification >= 'secret'", "ALLOW", on='"egress:*.x.example"'
        ),
        rule("d", "request.method.matches('^(PUT|POST)$') && !request.path.startsWith('/v1')"),
    ),
    (
        rule("a", "request.size < 10", "ALLOW", on='"tool:files/*"'),
        rule("d", "'pii' in session.labels && has(request.user.team)", on='"tool:*write*"'),
    ),
    (
        rule("a", "true", "ALLOW", on='"file:/w/**"', actions="file.open"),
        rule("d", "request.source_ip in ['10.0.0.0/8']", on='"file:**/secret/**"'),
    ),
    (
        rule("a", "request.headers['x-a'] == 'b'", "ALLOW", on='"egress:x.example"'),
        rule("d", "request.port == 8443 || request.size > 5"),
    ),
    (
        rule("a", "tool.arguments.path == '/x'", "ALLOW", on='"tool:read"'),
        rule("d", "tool.server.startsWith('files')"),
    ),
]


@pytest.mark.parametrize(("allow", "deny"), CONFLICTS)
def test_a_conflict_is_told_with_a_request_that_both_rules_match(
    lint: Lint, allow: str, deny: str
) -> None:
    (found,) = of(lint(allow, deny), "rule-conflict")
    assert found.witness is not None
    made = attempt(found.witness)
    assert made is not None
    matches = Rules(load_policy(HEAD + allow + deny, "p").rules).matches(*made, ())
    assert (set(matches.rules), matches.errors) == ({"a", "d"}, ())


@pytest.mark.parametrize(("allow", "deny"), CONFLICTS)
def test_the_request_of_a_conflict_can_be_pasted_into_a_suite(
    lint: Lint, allow: str, deny: str
) -> None:
    (found,) = of(lint(allow, deny), "rule-conflict")
    assert found.witness is not None
    lines = "".join(f"    {row}\n" for row in witness_lines(found.witness))
    suite = parse_suite(f"cases:\n  - name: pasted\n{lines}    expect: deny\n", "s.yaml")
    assert attempt(suite.cases[0].facts) is not None


def test_rules_that_cannot_meet_are_no_conflict(lint: Lint) -> None:
    allow = rule("a", "request.method == 'GET'", "ALLOW", on='"egress:x.example"')
    for deny in (
        rule("d", "request.method == 'PUT'"),
        rule("d", "true", on='"egress:y.example"'),
        rule("d", "true", on='"egress:*"', actions="http.post"),
        rule("d", "true", on='"file:/a"'),
    ):
        assert of(lint(allow, deny), "rule-conflict") == []


def test_a_conflict_on_the_same_resources_is_a_warning(lint: Lint) -> None:
    allow = rule("a", "request.port == 443", "ALLOW", on='"egress:x.example"')
    (same,) = lint(allow, rule("d", "request.method == 'GET'", on='"egress:x.example"'))
    (broad,) = lint(allow, rule("d", "request.method == 'GET'", on='"egress:*"'))
    assert (same.level, broad.level) == ("warning", "note")


def test_rules_that_name_everything_are_told(lint: Lint) -> None:
    found = lint(
        rule("a", "request.method == 'GET'", "ALLOW", on='"*"'),
        rule("b", "true", "ALLOW", on='"egress:a.example"'),
        rule("c", "true", "ALLOW", on='"egress:b.example"', actions="http.get"),
    )
    assert checks_of(found) == ["rule-allows-anything", "rule-unconditional"]
    assert checks_of(lint(rule("d", "true"))) == ["rule-refuses-everything"]


def checks_of(findings: list[LintFinding]) -> list[str]:
    return [each.check for each in findings]


def test_a_rule_on_actions_that_nothing_makes_is_told(lint: Lint) -> None:
    assert checks_of(lint(rule("r", "true", actions="llm.call"))) == ["rule-action-not-made"]
    assert lint(rule("r", "true", actions="llm.call, http.get")) == []


@pytest.mark.parametrize(
    ("condition", "effect", "level"),
    [
        ("request.user.mfa_verified == false", "DENY", "warning"),
        ("session.risk_score > 0.5", "ASK", "warning"),
        ("request.user.mfa_verified", "ALLOW", "warning"),
        ("request.host == 'a' && session.risk_score > 0.5", "DENY", "note"),
        ("has(session.risk_score) && session.risk_score > 0.5", "DENY", None),
        ("!has(session.risk_score) || session.risk_score > 0.5", "DENY", None),
        ("session.risk_score > 0.5", "AUDIT", None),
        ("request.user.team == 'a'", "DENY", None),
        ("session.denials > 5", "DENY", None),
    ],
)
def test_a_rule_on_a_fact_that_nothing_sets_is_told(
    lint: Lint, condition: str, effect: str, level: str | None
) -> None:
    on = '"egress:a.example"'
    found = of(lint(rule("r", condition, effect, on=on)), "rule-fact-never-known")
    assert [each.level for each in found] == ([] if level is None else [level])


def test_such_a_fact_in_a_rule_on_announced_events_is_left_alone(lint: Lint) -> None:
    found = lint(rule("r", "session.risk_score > 0.5", on='"file:/a"'))
    assert of(found, "rule-fact-never-known") == []


def test_what_the_index_cannot_decide_is_told_with_its_cost(lint: Lint) -> None:
    (found,) = lint(rule("r", "request.query.contains('a') && request.query.contains('b')"))
    assert (found.check, found.level) == ("rule-not-indexed", "note")
    assert "2 parts" in found.message
    assert "steps" in found.message
    assert lint(rule("r", "request.query.contains('a') && request.port == 3")) == []


PARTS: Final = (
    "request.port == 1", "request.port != 1", "request.port in [1, 2]",
    "!(request.port in [2, 3])", "request.port > 1", "request.port >= 2", "request.port < 3",
    "request.port <= 1", "request.path == '/a'", "request.path.startsWith('/a')",
    "!request.path.startsWith('/a/b')", "request.path.startsWith('/a/b')",
    "request.path.endsWith('b')", "request.path.endsWith('/b')", "request.path != '/a/b'",
    "request.path.matches('^/a')", "!request.path.matches('^/a')", "request.path.contains('a')",
    "request.source_ip in ['10.0.0.0/8']", "request.source_ip in ['10.1.0.0/16', '10.2.0.0/16']",
    "!(request.source_ip in ['10.1.0.0/16'])", "'a' in session.labels", "!('a' in session.labels)",
    "request.user.mfa_verified", "!request.user.mfa_verified", "true",
    "request.port == 1 || request.path == '/a'", "request.port == 1 && request.path == '/a'",
)  # fmt: skip


def term_of(text: str) -> Term:
    return compile_condition(Sourced(text, "p.yaml:1"), lambda _name: None).term


TERMS: Final = {text: term_of(text) for text in PARTS}
VALUES: Final = {
    "request.port": [1, 2, 3, 4],
    "request.path": ["/a", "/a/b", "/ab", "/b", "/a/b/c"],
    "request.source_ip": ["10.1.2.3", "10.3.0.1", "192.0.2.1"],
    "session.labels": [(), ("a",), ("b",), ("a", "b")],
    "request.user.mfa_verified": [True, False],
}


def test_what_is_implied_holds_and_what_contradicts_does_not() -> None:
    """Every pair of parts, over every combination of values."""
    tables = {text: outcomes(term) for text, term in TERMS.items()}
    for one, mine in TERMS.items():
        for other, theirs in TERMS.items():
            pairs = list(zip(tables[one], tables[other], strict=True))
            if implies(mine, theirs):
                assert all(right for left, right in pairs if left), f"{one} => {other}"
            if contradict(mine, theirs):
                assert not any(left and right for left, right in pairs), f"{one} # {other}"


def outcomes(term: Term) -> list[bool]:

    names = list(VALUES)
    evaluate = emit(term, {name: at for at, name in enumerate(names, start=1)})
    results = []
    for values in product(*VALUES.values()):
        slots = [
            address(value) if name == "request.source_ip" else value
            for name, value in zip(names, values, strict=True)
        ]
        try:
            results.append(evaluate(([100_000], *slots)) is True)
        except EvaluationError:
            results.append(False)
    return results


NAMES: Final = st.sampled_from(["a", "b", "*", "a*", "*b", "?", "[ab]", "[!a]", "{a,bc}", "**"])
GLOBS: Final = st.lists(NAMES, min_size=1, max_size=4).map(lambda names: "/" + "/".join(names))
PATHS: Final = st.lists(st.sampled_from(["a", "b", "ab", "bc", "c"]), min_size=1, max_size=4).map(
    lambda names: "/" + "/".join(names)
)


@given(one=GLOBS, other=GLOBS, path=PATHS)
def test_patterns_that_match_one_path_meet(one: str, other: str, path: str) -> None:
    matched = [PathGlobs([Sourced(each, "p:1")], fold=True).find(path) for each in (one, other)]
    if None not in matched:
        assert globs_meet(one, other)


RESOURCES: Final = (
    "", '"*"', '"egress:*"', '"egress:a.example"', '"egress:*.example"', '"egress:a.example:443"',
    '"egress:a*.example"', '"egress:10.0.0.0/8"', '"egress:10.1.0.0/16"', '"file:/w/**"',
    '"file:/W/a/**"', '"file:**/a"', '"tool:read"', '"tool:*READ*"', '"tool:s/read"', '"tool:*"',
    '"egress:a.example", "file:/w/a"',
)  # fmt: skip
ACTIONS: Final = (
    "",
    "http.get",
    "http.*",
    "tcp.connect",
    "file.open",
    "file.*",
    "http.get, custom",
)
CONDITIONS: Final = (
    "true", "request.port == 443", "request.port in [443, 80]", "request.port > 79",
    "request.user.team == 'x'", "request.user.team in ['x', 'y']", "request.user.team != 'z'",
    "has(request.user.team)", "request.user.team.startsWith('x') || request.port == 443",
    "request.user.team == 'x' && request.port == 443",
)  # fmt: skip
ATTEMPTS: Final = tuple(
    {**place, "request": {**place["request"], **({"user": {"team": team}} if team else {})}}
    for team in ("", "x", "xy", "z")
    for place in (
        {"request": {"action": "http.get", "host": "a.example"}},
        {"request": {"action": "http.get", "host": "A.b.example", "port": 8443}},
        {"request": {"action": "http.get", "host": "10.1.2.3", "port": 80}},
        {"request": {"action": "http.report", "host": "ab.example"}},
        {"request": {"action": "tcp.connect", "host": "a.example", "port": 22}},
        {"request": {"action": "file.open", "resource": {"path": "/w/a"}}},
        {"request": {"action": "file.open", "resource": {"path": "/W/A/b"}}},
        {"request": {"action": "file.delete", "resource": {"path": "/x", "resolved": "/w/a/b"}}},
        {"request": {"action": "tool.call"}, "tool": {"name": "Read", "server": "s"}},
        {"request": {"action": "tool.call"}, "tool": {"name": "s/read"}},
        {"request": {"action": "custom"}},
    )
)
EVENTS: Final = [made for facts in ATTEMPTS if (made := attempt(facts)) is not None]
RULES: Final = st.lists(
    st.tuples(
        st.sampled_from(CONDITIONS),
        st.sampled_from(["DENY", "ASK", "AUDIT", "ALLOW"]),
        st.sampled_from(RESOURCES),
        st.sampled_from(ACTIONS),
    ),
    min_size=2,
    max_size=5,
)


@given(drawn=RULES)
def test_what_is_called_useless_never_matches_alone(
    drawn: list[tuple[str, str, str, str]],
) -> None:
    """A shadowed or duplicate rule matches no event that the other one does not match."""
    texts = [
        rule(f"r{number}", condition, effect, on or ('"*"' if effect == "ALLOW" else ""), actions)
        for number, (condition, effect, on, actions) in enumerate(drawn)
    ]
    kept = [text for text in texts if loads(text)]
    policy = load_policy(HEAD + "".join(kept), "p.yaml") if kept else None
    if policy is None:
        return
    findings = lint_all(subject_of(policy, None, ()), attempt)
    useless = [each for each in findings if each.check in ("rule-shadowed", "rule-duplicate")]
    by_place = {item.source: item.policy_id.value for item in policy.rules}
    matched = [set(Rules(policy.rules).matches(*event, ()).rules) for event in EVENTS]
    for found in useless:
        inner, outer = by_place[found.source], found.related[0].text
        assert [each for each in matched if inner in each and outer not in each] == [], found


def loads(text: str) -> bool:
    try:
        Rules(load_policy(HEAD + text, "p.yaml").rules)
    except ConfigError:
        return False
    return True
