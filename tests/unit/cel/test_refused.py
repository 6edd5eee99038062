"""What is refused at load, why, and at which place of the policy's file."""

from __future__ import annotations

import pytest
from cel_ask import read

from aesp_proxy.decide.policy.cel.condition import compile_condition, place_of
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.errors import ConfigError

REFUSED = [
    ("", "empty", 1, 1),
    (" \n ", "empty", 1, 1),
    ("(true", "not closed", 1, 6),
    ("true)", "closes nothing", 1, 5),
    ("[true)", "closes nothing", 1, 6),
    ("true &&", "ends too early", 1, 7),
    ("true true", "not an expression", 1, 6),
    ("true && $x", "character '$'", 1, 9),
    ("request.host == 'a", "string is not closed", 1, 17),
    ("'a\nb' == 'a'", "string is not closed", 1, 1),
    ("'''a''' == 'a'", "three quotes", 1, 1),
    ("r'a\\'' == 'a'", "raw string", 1, 2),
    ("'\\q' == 'a'", "escape \\q", 1, 1),
    ("'\\ud800' == 'a'", "escape \\u", 1, 1),
    ("'\\U00110000' == 'a'", "escape \\U", 1, 1),
    ("'\\400' == 'a'", "escape \\4", 1, 1),
    ("b'\\u0041' == b'a'", "escape \\u", 1, 1),
    ("1 == 9223372036854775808", "64 bits", 1, 6),
    ("1u == 18446744073709551616u", "64 bits", 1, 7),
    ("1.0 == 1e400", "double cannot hold", 1, 8),
    ("request.hots == 'a'", "'request.hots' is no fact", 1, 1),
    ("true && request == 'a'", "request is no fact by itself", 1, 9),
    ("true &&\n  request.user == 'a'", "request.user is no fact by itself", 2, 3),
    ("x == 1", "'x' is no fact", 1, 1),
    ("request.json.a == 1", "before the body is read", 1, 1),
    ("has(llm.model)", "cannot be read", 1, 1),
    ("request.host.a == 'a'", "a string has no field 'a'", 1, 1),
    ("findings.all(f, f.zz == 'a')", "no field 'zz'", 1, 17),
    ("request.host", "does not say true or false", 1, 1),
    ("request.host && true", "where true or false is due", 1, 1),
    ("true && 1", "where true or false is due", 1, 9),
    ("!request.port", "where true or false is due", 1, 2),
    ("request.port ? true : false", "where true or false is due", 1, 1),
    ("(true ? 1 : 'a') == 1", "two sides of ?:", 1, 2),
    ("request.port == '443'", "a int never equals a string", 1, 1),
    ("request.port == 443.0", "never equals", 1, 1),
    ("request.host == null", "null is no value of it", 1, 1),
    ("request.host < 1", "< is not defined for string and int", 1, 1),
    ("'a' * 2 == 'aa'", "* is not defined", 1, 1),
    ("1 + 1u == 2", "+ is not defined", 1, 1),
    ("dyn(1) + dyn(1) == 2", "+ is not defined for dyn and dyn", 1, 1),
    ("bool(tool.arguments)", "bool() is not defined for dyn", 1, 1),
    ("request.host.size(1) == 1", "size() is not defined", 1, 14),
    ("contains(request.host, 'a')", "contains() is not defined", 1, 1),
    ("request.host.containz('a')", "did you mean 'contains'", 1, 14),
    ("__import__('os')", "no function is named", 1, 1),
    ("request.host in 'abc'", "'in' asks a list or a map", 1, 1),
    ("1 in request.user.roles", "never in", 1, 1),
    ("[1, b'a'].size() == 2", "different types", 1, 2),
    ("{1.0: 1}.size() == 1", "not asked by double", 1, 2),
    ("request.user.roles['a'] == 'b'", "not asked by", 1, 1),
    ("request.port.all(x, true)", "runs over a list or a map", 1, 14),
    ("[1].all(request, true)", "a fact already", 1, 9),
    ("[1].all(x.y, true)", "takes a name", 1, 5),
    ("[1].filter(x, x) == [1]", "where true or false is due", 1, 12),
    ("has(request)", "has() asks for a field", 1, 1),
    ("has(1)", "has() asks for a field", 1, 1),
    ("has(request.user.zz)", "is no fact", 1, 5),
    ("has(request.host.a)", "no fields that may be missing", 1, 1),
    ("request.host.matches('(')", "bad regular expression", 1, 22),
    ("request.host.matches(request.path)", "written out", 1, 14),
    ("glob('a', request.path)", "path pattern", 1, 6),
    ("host_matches('a b', request.host)", "host", 1, 14),
    ("cidr_contains('10.0.0.1/8', request.source_ip)", "no network", 1, 15),
    ("request.source_ip in ['x']", "no address and no network", 1, 23),
    ("request.source_ip == request.host", "never equals", 1, 1),
    ("request.user.security_clearance > 'high'", "no level", 1, 35),
    ("request.user.security_clearance > 1", "not defined for level and int", 1, 1),
    ("request.time.getHours('Mars/Base') == 1", "no time zone", 1, 23),
    ("request.time.getHours(request.host) == 1", "written out", 1, 14),
    ("a.b{c: 1}", "form that conditions do not have", 1, 1),
    ("package == 1", "reserved word", 1, 1),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words", "line", "column"), REFUSED)
def test_a_bad_condition_names_its_place_and_reason(text: str, words: str, line: int, column: int):
    with pytest.raises(ConfigError) as caught:
        read(text, source="p.yaml:7", style="block")
    told = str(caught.value)
    assert words in told
    assert told.startswith(f"p.yaml:{7 + line}:{column}: bad condition: ")
    assert "\n" not in told


@pytest.mark.parametrize(
    ("style", "column", "place", "where"),
    [
        ("plain", 16, (1, 5), "p.yaml:7:20"),
        ("single", 16, (1, 5), "p.yaml:7:21"),
        ("double", 16, (1, 1), "p.yaml:7:17"),
        ("plain", 16, (2, 5), "p.yaml:8:5"),
        ("block", 16, (1, 5), "p.yaml:8:5"),
        ("block", 16, (3, 2), "p.yaml:10:2"),
        ("plain", 16, (0, 0), "p.yaml:7:16"),
    ],
)
def test_a_place_in_a_text_is_a_place_in_the_file(style, column, place, where):
    assert place_of(Sourced("", "p.yaml:7", column, style), *place) == where


def test_a_fact_that_is_never_known_is_refused_where_it_is_read():
    with pytest.raises(ConfigError, match="never known"):
        compile_condition(Sourced("request.host == 'a'", "p:1"), lambda _: False)


def test_has_of_a_fact_that_is_always_or_never_known_is_no_question():
    always = compile_condition(Sourced("has(request.host)", "p:1"), lambda _: True)
    never = compile_condition(Sourced("has(request.host)", "p:1"), lambda _: False)
    assert (always.term.value, never.term.value) == (True, False)


def test_a_conjunct_is_told_in_the_words_of_the_policy():
    condition = read("request.host == 'a' &&\n  !(request.port in [80, 443]) && (true || false)")
    assert [condition.text_of(each) for each in condition.conjuncts] == [
        "request.host == 'a'",
        "!(request.port in [80, 443])",
        "(true || false)",
    ]
