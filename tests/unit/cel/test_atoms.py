"""Which conjuncts the index decides, what it asks, and what its tables leave."""

from __future__ import annotations

import pytest
from cel_ask import read

from aesp_proxy.decide.policy.cel.atoms import ENTRIES_MAX, Ask, Atom, alternatives, atom_of
from aesp_proxy.decide.policy.cel.errors import EvaluationError
from aesp_proxy.decide.policy.cel.prepared import Pattern, address, network, prepare
from aesp_proxy.decide.policy.cel.tables import table_of
from aesp_proxy.decide.policy.cel.terms import Term
from aesp_proxy.decide.policy.cel.types import STRING
from aesp_proxy.model.context import Level


@pytest.mark.parametrize(
    ("text", "ask", "keys", "negated"),
    [
        ("request.host == 'a'", Ask.EQUAL, ("a",), False),
        ("'a' == request.host", Ask.EQUAL, ("a",), False),
        ("request.host != 'a'", Ask.EQUAL, ("a",), True),
        ("!(request.host != 'a')", Ask.EQUAL, ("a",), False),
        ("request.host in ['a', 'b']", Ask.EQUAL, ("a", "b"), False),
        ("request.host == 'a' || request.host == 'b'", Ask.EQUAL, ("a", "b"), False),
        ("request.user.mfa_verified", Ask.EQUAL, (True,), False),
        ("!request.user.mfa_verified", Ask.EQUAL, (True,), True),
        ("has(request.host)", Ask.EQUAL, (True,), False),
        ("request.user.security_clearance == 'secret'", Ask.EQUAL, (Level.SECRET,), False),
        ("'a' in request.user.roles", Ask.MEMBER, ("a",), False),
        ("request.user.roles.exists(r, r == 'a')", Ask.MEMBER, ("a",), False),
        ("request.user.roles.exists(r, 'a' == r)", Ask.MEMBER, ("a",), False),
        ("has_label(session.labels, 'a')", Ask.MEMBER, ("a",), False),
        ("!('a' in request.user.roles)", Ask.MEMBER, ("a",), True),
        ("request.path.startsWith('/a')", Ask.PREFIX, ("/a",), False),
        ("request.path.endsWith('/a')", Ask.SUFFIX, ("/a",), False),
        ("request.port > 1", Ask.ABOVE, (1,), False),
        ("1 > request.port", Ask.BELOW, (1,), False),
        ("request.time.getHours() <= 9", Ask.BELOW, (9,), False),
        ("session.risk_score >= 0.5", Ask.ABOVE, (0.5,), False),
    ],
)
def test_a_question_about_one_fact_is_an_atom(text, ask, keys, negated):
    atom = atom_of(read(text).term)
    assert atom is not None
    assert (atom.ask, atom.keys, atom.negated) == (ask, keys, negated)


@pytest.mark.parametrize(
    ("text", "ask", "strict"),
    [
        ("request.port < 1", Ask.BELOW, True),
        ("request.port <= 1", Ask.BELOW, False),
        ("request.port > 1", Ask.ABOVE, True),
        ("request.port >= 1", Ask.ABOVE, False),
        ("1 < request.port", Ask.ABOVE, True),
        ("1 <= request.port", Ask.ABOVE, False),
        ("1 > request.port", Ask.BELOW, True),
        ("1 >= request.port", Ask.BELOW, False),
    ],
)
def test_a_bound_is_on_the_side_that_it_is_written_for(text, ask, strict):
    atom = atom_of(read(text).term)
    assert atom is not None
    assert (atom.ask, atom.strict) == (ask, strict)


@pytest.mark.parametrize(
    ("text", "ask"),
    [
        ("request.path.matches('a')", Ask.REGEX),
        ("request.source_ip in ['10.0.0.0/8']", Ask.NETWORK),
        ("request.source_ip == '10.0.0.1'", Ask.NETWORK),
        ("cidr_contains('10.0.0.0/8', request.source_ip)", Ask.NETWORK),
    ],
)
def test_patterns_and_networks_are_atoms(text, ask):
    atom = atom_of(read(text).term)
    assert atom is not None
    assert atom.ask is ask


@pytest.mark.parametrize(
    "text",
    [
        "!(request.port > 1)",
        "request.host == request.path",
        "request.path.contains('a')",
        "request.user.roles == ['a']",
        "request.user.roles.exists(r, r != 'a')",
        "request.user.roles.exists(r, r == request.host)",
        "request.headers.exists(k, k == 'a')",
        "request.user.roles.map(r, r).size() == 1",
        "request.host == 'a' || request.path == 'a'",
        "request.host == 'a' || request.host != 'b'",
        "tool.arguments.a == 1",
        "1 == 1",
        "'a' in ['a', request.host]",
        "session.risk_score == double('nan')",
    ],
)
def test_what_is_not_one_question_against_a_constant_is_residue(text):
    assert atom_of(read(text).term) is None


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("request.port > 1 && request.port < 9", 1),
        ("request.port > 1 || request.host == 'a'", 2),
        ("has(request.host) && (request.port > 1 || request.host == 'a')", 2),
        ("(request.port > 1 || has(request.sni)) && (request.size > 1 || has(request.query))", 4),
        ("request.host == 'a' || request.host == 'b'", 1),
        (" || ".join(f"request.port > {n}" for n in range(ENTRIES_MAX + 1)), 1),
    ],
)
def test_alternatives_are_the_outermost_or_as_long_as_they_are_few(text, rows):
    assert len(alternatives(read(text).term)) == rows


_TEN = network("10.0.0.0/8")
_FACT = Term(op="fact", type=STRING, value="request.host")


def _atom(ask: Ask, *keys: object, negated: bool = False, strict: bool = False) -> Atom:
    return Atom(subject=_FACT, ask=ask, keys=keys, negated=negated, strict=strict)


def _regex(text: str) -> Pattern:
    made = prepare("matches", text)
    assert isinstance(made, Pattern)
    return made


@pytest.mark.parametrize(
    ("ask", "wants", "none_of", "value", "left"),
    [
        (Ask.EQUAL, ("a", "b"), ("a",), "a", 0b101),
        (Ask.EQUAL, ("a", "b"), ("a",), "z", 0b110),
        (Ask.MEMBER, ("a", "b"), ("a",), ("b", "a"), 0b101),
        (Ask.MEMBER, ("a", "b"), ("z",), ("z",), 0b100),
        (Ask.PREFIX, ("a", "ab"), ("abc",), "abd", 0b111),
        (Ask.PREFIX, ("a", ""), ("abc",), "abc", 0b101),
        (Ask.SUFFIX, ("c", "bc"), ("abc",), "abc", 0b101),
        (Ask.SUFFIX, ("c", ""), ("bc",), "b", 0b111),
        (Ask.REGEX, (_regex("^a"),), (_regex("b$"),), "ab", 0b101),
        (Ask.REGEX, (_regex("^a"),), (_regex("b$"),), "x", 0b110),
        (Ask.NETWORK, (_TEN,), (network("10.1.0.0/16"),), address("10.1.0.1"), 0b101),
        (Ask.NETWORK, (_TEN,), (network("::/0"),), address("fd00::1"), 0b100),
    ],
)  # fmt: skip
def test_a_table_leaves_those_whose_question_is_answered_so(ask, wants, none_of, value, left):
    placed = [(_atom(ask, *wants), 1), (_atom(ask, *none_of, negated=True), 2)]
    assert table_of(ask, placed, 0b111)(value) == left


@pytest.mark.parametrize(
    ("ask", "value", "left"),
    [
        (Ask.ABOVE, 4, 0b1000), (Ask.ABOVE, 5, 0b1001), (Ask.ABOVE, 6, 0b1011),
        (Ask.ABOVE, 9, 0b1111), (Ask.ABOVE, 5.5, 0b1011), (Ask.BELOW, 4, 0b1111),
        (Ask.BELOW, 5, 0b1101), (Ask.BELOW, 6, 0b1100), (Ask.BELOW, 7, 0b1000),
        (Ask.BELOW, 5.5, 0b1100), (Ask.BELOW, float("-inf"), 0b1111),
    ],
)  # fmt: skip
def test_a_table_of_bounds_knows_which_bounds_are_inside(ask, value, left):
    placed = [(_atom(ask, 5), 1), (_atom(ask, 5, strict=True), 2),
              (_atom(ask, 7, strict=True) if ask is Ask.BELOW else _atom(ask, 8), 4)]  # fmt: skip
    assert table_of(ask, placed, 0b1111)(value) == left


@pytest.mark.parametrize(
    ("ask", "key", "value"),
    [(Ask.ABOVE, 1.0, float("nan")), (Ask.REGEX, _regex("a"), "\udcff")],
)
def test_a_value_of_no_use_to_a_table_is_an_error(ask, key, value):
    with pytest.raises(EvaluationError):
        table_of(ask, [(_atom(ask, key), 1)], 1)(value)
