"""Personal and health data are found where a policy names the pack, and only there."""

from __future__ import annotations

from pathlib import Path

import pytest

from aesp_proxy.daemon.pack_files import built_in_dir, packs_of, read_packs
from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.decide.secrets.reference import Confirmer
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.rules import parse_rules
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.decide.snapshot import secret_rules
from aesp_proxy.errors import ConfigError

FILES = sorted((built_in_dir() / "secrets" / "optional").glob("*.toml"))
KEY = b"a key for the tests of packs...."
HEAD = 'version: "1.2.0"\nname: t\nguards:\n  secret_leak:\n'


def _rules(path: Path) -> tuple[Rule, ...]:
    return parse_rules(path.read_text(), path.name)


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem)
def optional(request: pytest.FixtureRequest) -> tuple[tuple[Rule, ...], SecretScanner]:
    rules = _rules(request.param)
    return rules, SecretScanner(rules, KEY)


def test_there_are_three_packs_and_none_is_on_by_itself() -> None:
    assert [path.stem for path in FILES] == ["contact", "health", "personal"]
    always = {rule.id for rule in read_packs()}
    assert always.isdisjoint(rule.id for path in FILES for rule in _rules(path))


def test_samples_are_found_and_negatives_are_not(
    optional: tuple[tuple[Rule, ...], SecretScanner],
) -> None:
    rules, scanner = optional
    for rule in rules:
        assert len(rule.positives) >= 2 <= len(rule.negatives), rule.id
        for sample in rule.positives:
            assert rule.id in {one.rule for one in scanner.scan(sample, "body")}, rule.id
        for sample in rule.negatives:
            assert scanner.scan(sample, "body") == (), (rule.id, sample)


def test_both_matchers_agree_on_every_sample(
    optional: tuple[tuple[Rule, ...], SecretScanner],
) -> None:
    rules, scanner = optional
    confirmer = Confirmer(rules)
    for rule in rules:
        for sample in (*rule.positives, *rule.negatives):
            fast = {(one.rule, one.offset) for one in scanner.scan(sample, "body")}
            assert fast == {(one.rule.id, one.start) for one in confirmer.find(sample)}, sample


def test_a_sample_in_a_json_string_is_found_at_depth_one_and_two(
    optional: tuple[tuple[Rule, ...], SecretScanner],
) -> None:
    rules, scanner = optional
    for rule in rules:
        text = rule.positives[0].decode()
        for _ in range(2):
            text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            text = '{"content": "line\\n' + text + '\\nend"}'
            assert rule.id in {one.rule for one in scanner.scan(text.encode(), "body")}, text


def test_a_number_in_a_longer_number_is_none() -> None:
    rules = next(_rules(path) for path in FILES if path.stem == "personal")
    scanner = SecretScanner(rules, KEY)
    for text in (
        b"id 14111111111111111",
        b"4111111111111111000000",
        b"3.4111111111111111",
        b"uuid 41111111-1111-4111-8111-111111111111",
        b"1234-219-09-9998",
        b"2024-01-02T10:20:30.4111111111111111",
    ):
        assert scanner.scan(text, "body") == (), text


def test_a_policy_names_the_packs_it_looks_for() -> None:
    policy = load_policy(HEAD + "    packs: [health, personal, health]\n", "p.yaml")
    names = {rule.id for rule in secret_rules(policy, packs_of(policy))}
    assert {"us-ssn", "uk-nhs-number", "github-pat"} <= names
    assert "email-address" not in names
    off = load_policy(HEAD + "    enabled: false\n    packs: [health]\n", "p.yaml")
    assert packs_of(off) == ()


def test_a_pack_that_there_is_not_is_an_error_with_its_place() -> None:
    policy = load_policy(HEAD + "    packs:\n      - helth\n", "p.yaml")
    with pytest.raises(ConfigError) as caught:
        packs_of(policy)
    assert str(caught.value).startswith("p.yaml:6:9: no pack is named 'helth'")
    assert "contact, health, personal" in str(caught.value)


def test_a_policys_own_kind_has_the_keys_of_a_rule() -> None:
    text = """\
    patterns:
      - name: acme-key
        pattern: 'acme_([a-z0-9]{12})'
        severity: error
        keywords: [acme]
        entropy: 2.5
        secret_group: 1
        validate: [mixed]
        invalid: info
      - {name: card, pattern: '[0-9]{16}', luhn_check: true}
"""
    policy = load_policy(HEAD + text, "p.yaml")
    scanner = SecretScanner(secret_rules(policy, ()), KEY)
    (found,) = scanner.scan(b"acme_ab12cd34ef56", "body")
    assert (found.rule, found.severity.word, found.offset) == ("acme-key", "error", 5)
    (found,) = scanner.scan(b"acme_abcdefghijkl", "body")
    assert found.severity.word == "info"
    assert scanner.scan(b"acme_aaaaaaaaaaa1", "body") == ()
    assert scanner.scan(b"4111111111111112", "body") == ()
    assert scanner.scan(b"4111111111111111", "body") != ()
