r"""A rule that begins with ``\b`` finds what stands behind an escape, and takes none for a part."""

from __future__ import annotations

import json
import urllib.parse

import pytest

from aesp_proxy.decide.secrets.boundary import behind_escapes
from aesp_proxy.decide.secrets.gitleaks import parse_gitleaks
from aesp_proxy.decide.secrets.rule_set import for_the_wire
from aesp_proxy.decide.secrets.rule_table import read_rule
from aesp_proxy.decide.secrets.rules import rule_from_policy
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.model.decision import Severity

KEY = b"a key that is used by no one"
VALUES = {
    r"\bcorp[a-z]{24}\b": "corp" + "abcdefgh" * 3,
    r"\bCORP-[A-Z]{8}\b": "CORP-ABCDEFGH",
    r"(?i)\bcorp-[a-z]{8}": "Corp-abcdefgh",
    r"\b[A-Z]{4}-[0-9]{12}\b": "ABCD-123412341234",
    r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b": "123-45-6789",
    r"\b(corp[a-z]{8})[ .]?\b": "corpabcdefgh",
    r"never|\bcorp[a-z]{8}": "corpabcdefgh",
    r"\b(?:corp|firm)\|[a-z]{8}": "firm|abcdefgh",
    r"\b[|(]?corp[a-z]{8}": "corpabcdefgh",
}


def scanner(pattern: str) -> SecretScanner:
    return SecretScanner([rule_from_policy("own", pattern, Severity.CRITICAL)], KEY)


@pytest.mark.parametrize("pattern", VALUES)
@pytest.mark.parametrize("before", ["\n", "\r\n", "\t", "\u00e9", " ", '"'], ids=ascii)
@pytest.mark.parametrize("depth", [1, 2])
def test_a_value_behind_an_escape_of_json_is_found_without_the_escape(
    pattern: str, before: str, depth: int
) -> None:
    text = f"x{before}{VALUES[pattern]}\nmore"
    for _ in range(depth):
        text = json.dumps({"content": text})
    found, _ = scanner(pattern).occurrences(text.encode())
    parts = {text.encode()[one.start : one.end] for one in found}
    assert VALUES[pattern].encode() in parts


@pytest.mark.parametrize("pattern", VALUES)
def test_a_value_behind_an_escape_of_a_url_is_found(pattern: str) -> None:
    text = "k=x" + urllib.parse.quote("\n" + VALUES[pattern], safe="|")
    assert scanner(pattern).scan(text.encode(), "body")


@pytest.mark.parametrize("pattern", VALUES)
@pytest.mark.parametrize("before", ["a", "_", "0"])
def test_in_a_word_a_border_is_none(pattern: str, before: str) -> None:
    assert not scanner(pattern).scan((before + VALUES[pattern] + " ").encode(), "body")


@pytest.mark.parametrize(
    "pattern", [r"corp[a-z]{8}", r"\b(?:a(?i)corp)[a-z]{8}", r"[|]\bx{9}", r"(?i)(\bcorp[a-z]{8})"]
)
def test_what_does_not_begin_at_a_border_stays_as_it_is(pattern: str) -> None:
    rule = read_rule({"id": "a", "regex": pattern}, "", severity=Severity.ERROR)
    assert behind_escapes(rule) is rule


def test_rules_of_gitleaks_that_begin_at_a_border_are_widened_on_the_wire() -> None:
    text = "[[rules]]\nid = 'own'\nregex = '''\\b(corp-[a-z]{8})\\b'''\n"
    rules = for_the_wire(parse_gitleaks(text, "g.toml")).rules
    body = json.dumps({"content": "x\ncorp-abcdefgh"}).encode()
    (found,) = SecretScanner(rules, KEY).scan(body, "body")
    assert body[found.offset :].startswith(b"corp-abcdefgh")
