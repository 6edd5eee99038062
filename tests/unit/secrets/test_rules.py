"""A rule file is taken whole, or refused with file, line, rule and reason."""

from __future__ import annotations

import pytest

from aesp_proxy.decide.secrets.rule_table import unbroken
from aesp_proxy.decide.secrets.rules import join_rules, parse_rules, rule_from_policy
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Severity

GOOD = """
[[rules]]
id = "demo"
description = "A demonstration"
severity = "error"
regex = '''demo_([a-z0-9]{8})'''
"""


def _with(line: str) -> str:
    return GOOD + line + "\n"


def test_a_minimal_rule_is_read() -> None:
    (rule,) = parse_rules(GOOD, "demo.toml")
    assert (rule.id, rule.severity, rule.where) == ("demo", Severity.ERROR, "demo.toml:3")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rules = 1", "no [[rules]]"),
        ("", "no [[rules]]"),
        ("[[rules]\n", "not TOML"),
        ("[extend]\nuseDefault = true\n" + GOOD, "unknown key 'extend'"),
        (_with("colour = 'red'"), "unknown key 'colour'"),
        (_with("entropy = 'high'"), "entropy has the wrong type"),
        (_with("entropy = true"), "entropy has the wrong type"),
        (_with("entropy = 9"), "entropy must be"),
        (_with("entropy = -1"), "entropy must be"),
        (_with("entropy = nan"), "entropy must be"),
        (_with("path = 'x'"), "path has no place in a pack"),
        (_with("required = []"), "required has no place in a pack"),
        (_with("validate = ['magic']"), "validate knows no 'magic'"),
        (_with("invalid = 'info'"), "no validate"),
        (_with("secretGroup = 2"), "not a group"),
        (_with("secretGroup = -1"), "not a group"),
        (_with("keywords = [1]"), "keywords must be a list"),
        (_with("keywords = ['']"), "keywords must be a list"),
        (GOOD.replace('"error"', '"grave"'), "severity 'grave'"),
        (GOOD.replace('severity = "error"', ""), "severity is missing"),
        (GOOD.replace('id = "demo"', ""), "id is missing"),
        (GOOD.replace('"demo"', '"too-many-findings"'), "taken by the scanner"),
        (GOOD.replace('"demo"', '"a\\u001bb"'), "printable"),
        (GOOD + GOOD, "stands twice (first at"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_rules(text, "demo.toml")
    assert words in str(caught.value)
    assert str(caught.value).startswith("demo.toml")


@pytest.mark.parametrize(
    ("regex", "words"),
    [
        ("a*", "empty string"),
        (r"\b", "empty string"),
        ("(?:x|)", "empty string"),
        (".", "everything"),
        (r"(?s).{3,}", "everything"),
        (r"\S", "everything"),
        ("[^x]", "everything"),
        ("(ab", "RE2 refuses"),
        ("a{5000}", "RE2 refuses"),
        (r"(?=a)b", "lookaround"),
        (r"(?<!a)b", "lookaround"),
        (r"(a)\1", "not in the dialect"),
        (r"a\Zb", "not in the dialect"),
        (r"\p{L}{5}", "not in the dialect"),
        ("a(?#x)", "not in the dialect"),
        ("[aé]bcd", "a class cannot hold"),
        ("ab\0cd", "NUL"),
        ("abc\\", "ends in a backslash"),
        ("[abc", "not closed"),
        (r"\x{1234}", "hexadecimal"),
    ],
)
def test_a_regex_that_cannot_be_trusted_is_refused(regex: str, words: str) -> None:
    with pytest.raises(ConfigError, match="pattern 'mine'") as caught:
        rule_from_policy("mine", regex, Severity.ERROR, where="policy.yaml:7")
    assert words in str(caught.value)
    assert str(caught.value).startswith("policy.yaml:7: ")


def test_a_regex_that_only_hyperscan_refuses_is_refused() -> None:
    with pytest.raises(ConfigError, match="Hyperscan refuses"):
        rule_from_policy("mine", r"ab(?:^c)d", Severity.ERROR)


def test_the_same_name_in_two_sets_is_refused() -> None:
    rules = parse_rules(GOOD, "a.toml")
    with pytest.raises(ConfigError, match="stands twice"):
        join_rules(rules, rules)


def test_a_custom_pattern_keeps_its_name_and_check() -> None:
    rule = rule_from_policy(
        "card", r"\b[0-9]{13,19}\b", Severity.CRITICAL, "A card", more={"validate": ["luhn"]}
    )
    assert (rule.id, rule.description, rule.validate) == ("card", "A card", ("luhn",))


def test_breaks_in_samples_are_taken_out() -> None:
    assert unbroken("gh~p_~abc") == b"ghp_abc"
    assert unbroken("8Q~~x~y") == b"8Q~xy"
