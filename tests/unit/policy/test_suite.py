"""Suites are read as strictly as policies, and every fact keeps its place."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.decide.policy.suite import Suite, parse_suite
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Reason, Verdict


def suite(text: str) -> Suite:
    return parse_suite(text, "a.test.yaml")


def error_of(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        suite(text)
    return caught.value


def test_a_case_holds_typed_facts_with_their_places() -> None:
    read = suite("""\
policy: b.yaml
now: 2026-01-05T10:00:00Z
cases:
  - name: one
    request:
      action: http.get
      port: 8080
      headers: {x-a: 1, x-b: [true, no]}
      user: {mfa_verified: true, spending_limit: 10.5, roles: [dev, 12]}
    tool: {arguments: {a: 1, b: "1", c: [true, null, -2.5], d: 007, e: 1e5}}
    expect: {verdict: deny, reason: host_blocked, rule: r, guard: g, finding: f}
  - request: {action: custom}
    expect: allow
""")
    assert read.policy is not None
    assert (read.policy.value, read.policy.where) == ("b.yaml", "a.test.yaml:1:9")
    assert read.now is not None
    assert read.now.value == "2026-01-05T10:00:00Z"
    first, second = read.cases
    assert first.facts == {
        "request": {
            "action": "http.get",
            "port": 8080,
            "headers": {"x-a": "1", "x-b": ["true", "no"]},
            "user": {"mfa_verified": True, "spending_limit": 10.5, "roles": ["dev", "12"]},
        },
        "tool": {"arguments": {"a": 1, "b": "1", "c": [True, None, -2.5], "d": "007", "e": "1e5"}},
    }
    assert first.where == "a.test.yaml:4:5"
    assert first.place_of("request.user.roles") == "a.test.yaml:9:56"
    assert first.place_of("request.headers.x-a") == "a.test.yaml:8:7"
    assert first.place_of("") == first.where
    assert (first.expect.verdict, first.expect.reason) == (Verdict.DENY, Reason.HOST_BLOCKED)
    assert (first.expect.rule, first.expect.guard, first.expect.finding) == ("r", "g", "f")
    assert second.name == "case 2"
    assert (second.expect.verdict, second.expect.reason) == (Verdict.ALLOW, None)


def test_defaults_stand_under_every_case() -> None:
    read = suite("""\
defaults:
  request: {user: {id: u, roles: [dev]}}
  session: {denials: 1}
cases:
  - request: {action: custom, user: {roles: []}}
    expect: deny
""")
    (case,) = read.cases
    assert case.facts == {
        "request": {"action": "custom", "user": {"id": "u", "roles": []}},
        "session": {"denials": 1},
    }
    assert case.place_of("session.denials") == "a.test.yaml:3:13"
    assert case.place_of("request.user.roles") == "a.test.yaml:5:38"


CASE = "cases:\n  - request: {action: custom}\n    expect: deny\n"


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        ("policy: a.yaml\n", "a.test.yaml:1:1", "suite.cases is missing"),
        ("cases: []\n", "a.test.yaml:1:1", "without a case"),
        ("case: []\n", "a.test.yaml:1:1", "did you mean 'cases'?"),
        ("cases: [{request: {action: a}}]\n", "a.test.yaml:1:9", "cases.expect is missing"),
        ("cases: [{expect: denny}]\n", "a.test.yaml:1:18", "'denny'"),
        ("cases: [{expect: [deny]}]\n", "a.test.yaml:1:18", "a verdict"),
        ("cases: [{expect: {reason: allowed}}]\n", "a.test.yaml:1:18", "verdict is missing"),
        ("cases: [{expect: {verdict: deny, reason: nope}}]\n", "a.test.yaml:1:42", "reason"),
        ("cases: [{expect: {verdct: deny}}]\n", "a.test.yaml:1:19", "did you mean 'verdict'?"),
        (CASE + "  - request: {hots: a}\n    expect: deny\n", "a.test.yaml:4:15", "'host'?"),
        (CASE + "  - request: {port: 4x}\n    expect: deny\n", "a.test.yaml:4:21", "whole number"),
        (CASE + "  - content: null\n    expect: deny\n", "a.test.yaml:4:14", "null"),
        (CASE + "  - content: a\n    content: b\n    expect: deny\n", "a.test.yaml:5:5", "twice"),
        (
            CASE + "  - request: {user: {security_clearance: high}}\n    expect: deny\n",
            "a.test.yaml:4:42",
            "top_secret",
        ),
        ("root: .\npolicy: a.yaml\nscope: a=b\n" + CASE, "a.test.yaml:2:9", "do not go"),
        ("root: .\n" + CASE, "a.test.yaml:1:7", "go together"),
        ("scope: a=b\n" + CASE, "a.test.yaml:1:8", "go together"),
    ],
)
def test_what_is_wrong_is_told_by_its_place(text: str, where: str, says: str) -> None:
    error = error_of(text)
    assert error.where == where
    assert says in str(error)


WORDS = st.sampled_from(
    ["cases", "expect", "request", "user", "roles", "headers", "defaults", "tool", "arguments"]
)
TREES = st.recursive(
    st.sampled_from(["deny", "1", "", "~", "a"]) | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=20,
)


@given(cases=st.lists(st.dictionaries(WORDS, TREES, max_size=4), max_size=3), top=TREES)
def test_any_tree_is_a_suite_or_an_error_with_a_place(cases: list[object], top: object) -> None:
    text = yaml.safe_dump({"cases": cases, "defaults": top})
    where = "a.test.yaml:1:1"
    try:
        suite(text)
    except ConfigError as error:
        where = error.where
    assert where.startswith("a.test.yaml:")
