"""The fast matcher says what the reference says, and neither lets a secret hide behind another."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aesp_proxy.decide.secrets import reference
from aesp_proxy.decide.secrets.measure import entropy, luhn_holds
from aesp_proxy.decide.secrets.reference import CONFIRM_BYTES, Confirmer, compile_re2
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.rules import join_rules, parse_rules, rule_from_policy
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Severity

TRICKY = """
[[rules]]
id = "fixed"
description = "fixed length"
severity = "error"
regex = '''tk_[a-d0-3]{6}'''

[[rules]]
id = "bounded"
description = "word boundaries on both sides"
severity = "error"
regex = '''\\bid[0-9]{2,4}\\b'''

[[rules]]
id = "random"
description = "must look random"
severity = "error"
regex = '''r-([a-d0-3]{6})'''
entropy = 2.0

[[rules]]
id = "growing"
description = "gets random enough as it grows"
severity = "error"
regex = '''g-[a-d]{3,9}'''
entropy = 2.2

[[rules]]
id = "open"
description = "no upper length"
severity = "error"
regex = '''pass=([^ ]+)'''

[[rules]]
id = "named"
description = "wants its keyword near"
severity = "error"
regex = '''[0-3]{5}'''
keywords = ["acme"]

[[rules]]
id = "last"
description = "only at the end"
severity = "error"
regex = '''fin[a-d]$'''

[[rules]]
id = "first"
description = "only at the start"
severity = "error"
regex = '''^abc'''

[[rules]]
id = "caseless"
description = "any case, two branches"
severity = "error"
regex = '''(?i)(?:key|tok)[=:]\\s?([a-d]{4}|[0-3]{3})'''
"""


@pytest.fixture(scope="module")
def tricky() -> tuple[Rule, ...]:
    return parse_rules(TRICKY, "tricky.toml")


@pytest.fixture(scope="module")
def pair(tricky: tuple[Rule, ...], key: bytes) -> tuple[SecretScanner, Confirmer]:
    return SecretScanner(tricky, key), Confirmer(tricky)


PIECES = st.one_of(
    st.sampled_from(
        [
            "tk_",
            "id",
            "r-",
            "g-",
            "pass=",
            "acme",
            "fin",
            "abc",
            "key=",
            "TOK:",
            " ",
            "\n",
            ".",
            "_",
        ]
    ),
    st.text(alphabet="abcd0123", min_size=1, max_size=8),
)


@settings(max_examples=400, deadline=None)
@given(pieces=st.lists(PIECES, max_size=14))
def test_the_fast_matcher_and_the_reference_agree(
    pair: tuple[SecretScanner, Confirmer], pieces: list[str]
) -> None:
    scanner, confirmer = pair
    text = "".join(pieces).encode()
    told = {}
    for one in confirmer.find(text):
        told.setdefault((one.rule.id, one.value), one.start)
    found = scanner.scan(text, "body")
    fast = {(finding.rule, finding.offset) for finding in found if not finding.via}
    assert fast == {(rule, start) for (rule, _), start in told.items()}


def test_a_random_secret_behind_dull_ones_is_found(pair: tuple[SecretScanner, Confirmer]) -> None:
    text = b"r-aaaaaa " * 20 + b"r-a0b1c2"
    assert [finding.offset for finding in pair[0].scan(text, "body")] == [len(text) - 6]


def test_a_secret_that_begins_inside_a_dull_match_is_found(
    pair: tuple[SecretScanner, Confirmer],
) -> None:
    assert [one.rule for one in pair[0].scan(b"g-aag-abcdabcd", "body")] == ["growing"]


def test_a_flood_of_dull_matches_ends_in_a_finding_not_in_silence(
    pair: tuple[SecretScanner, Confirmer],
) -> None:
    found = pair[0].scan(b"r-aaaaaa" * 1_000_000, "body")
    assert "too-many-findings" in [finding.rule for finding in found]
    assert max(finding.severity for finding in found) is Severity.CRITICAL


def test_a_match_longer_than_the_window_counts_although_it_cannot_be_confirmed(key: bytes) -> None:
    rule = rule_from_policy("long", "BEGIN[^E]*END", Severity.CRITICAL)
    scanner = SecretScanner([rule], key)
    text = b"BEGIN" + b"x" * (2 * CONFIRM_BYTES) + b"END"
    assert [finding.rule for finding in scanner.scan(text, "body")] == ["long"]


def test_a_check_digit_is_asked_for(key: bytes) -> None:
    rule = rule_from_policy(
        "card", r"\b[0-9]{4}(?:[ -]?[0-9]{4}){3}\b", Severity.ERROR, more={"validate": ["luhn"]}
    )
    scanner = SecretScanner([rule], key)
    assert scanner.scan(b"pay 4111 1111 1111 1111 now", "body")
    assert scanner.scan(b"pay 4111-1111-1111-1112 now", "body") == ()


def test_the_patterns_of_the_specification_work(key: bytes) -> None:
    rule = rule_from_policy("aws_access_key", "AKIA[0-9A-Z]{16}", Severity.CRITICAL)
    scanner = SecretScanner([rule], key)
    assert scanner.scan(b"id " + b"AKIA" + b"IOSFODNN7EXAMPLE", "body")


def test_the_value_of_an_open_token_is_all_that_is_there(key: bytes) -> None:
    rule = rule_from_policy("open", "pass=([^ ]+)", Severity.ERROR)
    scanner = SecretScanner([rule], key)
    (one,) = scanner.scan(b"pass=hunter-two more", "body")
    (other,) = scanner.scan(b"pass=hunter-three more", "body")
    assert one.fingerprint != other.fingerprint


def test_published_examples_are_no_secrets_and_only_they(key: bytes) -> None:
    text = 'published = ["ab~cdef12"]\n'
    head = "[[rules]]\nid = 'x'\ndescription = 'x'\nseverity = 'error'\nregex = 'ab[a-f0-9]{6}'\n"
    scanner = SecretScanner(join_rules(parse_rules(head + text, "x.toml")), key)
    assert scanner.scan(b"abcdef12", "body") == ()
    assert scanner.scan(b"abcdef13", "body") != ()
    assert scanner.scan(b"abcdef12abcdef13", "body") != ()


def test_entropy_is_shannons() -> None:
    assert entropy(b"") == 0
    assert entropy(b"aaaa") == 0
    assert entropy(b"abab") == 1
    assert entropy(bytes(range(256))) == 8


@pytest.mark.parametrize(
    ("digits", "holds"),
    [
        (b"79927398713", True),
        (b"79927398710", False),
        (b"4111 1111 1111 1111", True),
        (b"0", False),
        (b"", False),
    ],
)
def test_luhn(digits: bytes, *, holds: bool) -> None:
    assert luhn_holds(digits) is holds


@given(st.text(alphabet="0123456789", min_size=2, max_size=30))
def test_exactly_one_check_digit_fits(digits: str) -> None:
    assert sum(luhn_holds(f"{digits}{last}".encode()) for last in range(10)) == 1


def test_every_rule_of_the_packs_can_be_confirmed(pack: tuple[Rule, ...]) -> None:
    # A rule is compiled when something of it is first located: too late to find it broken.
    for rule in pack:
        compile_re2(rule.confirm)
        compile_re2(rule.whole)


def test_a_rule_is_compiled_once_and_only_when_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[bytes] = []

    def compiling(expression: bytes) -> reference.Pattern:
        compiled.append(expression)
        return compile_re2(expression)

    monkeypatch.setattr(reference, "compile_re2", compiling)
    one = rule_from_policy("one", "one-[0-9]{6}", Severity.ERROR)
    two = rule_from_policy("two", "two-[0-9]{6}", Severity.ERROR)
    confirmer = Confirmer([one, two])
    assert not compiled
    for _ in range(2):
        assert confirmer.confirm(1, b"two-123456", 0, 10, 0)[0] is not None
    assert compiled == [two.confirm]


def test_a_rule_that_cannot_be_compiled_is_no_clean_answer() -> None:
    broken = replace(rule_from_policy("b", "b-[0-9]{6}", Severity.ERROR), confirm=b"(", whole=b"(")
    with pytest.raises(ConfigError):
        SecretScanner([broken], b"a key for the tests of the scan.").scan(b"b-123456", "body")
