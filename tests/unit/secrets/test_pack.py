"""Each kind of token in the pack is found in its samples, and what only looks like it is not."""

from __future__ import annotations

import base64
import random
from pathlib import Path

from aesp_proxy.decide.secrets.body import StreamPolicy
from aesp_proxy.decide.secrets.reference import CONFIRM_BYTES, Confirmer
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.model.decision import Severity


def test_there_are_many_kinds_each_with_issuer_and_samples(pack: tuple[Rule, ...]) -> None:
    assert len(pack) >= 390
    for rule in pack:
        assert rule.issuer.startswith("https://"), rule.id
        assert len(rule.positives) >= 2, rule.id
        assert len(rule.negatives) >= 2, rule.id
        assert rule.keywords, rule.id


def test_every_positive_sample_is_found_as_its_rule_and_as_bad_as_it_says(
    pack: tuple[Rule, ...], scanner: SecretScanner
) -> None:
    missed = [
        (rule.id, sample)
        for rule in pack
        for sample in rule.positives
        if (rule.id, rule.severity)
        not in {(finding.rule, finding.severity) for finding in scanner.scan(sample, "body")}
    ]
    assert missed == []


def test_a_token_whose_check_sum_does_not_hold_is_told_and_refuses_nothing(
    pack: tuple[Rule, ...], scanner: SecretScanner
) -> None:
    checked = [rule for rule in pack if rule.invalid is not None]
    assert len(checked) >= 10
    for rule in checked:
        sample = rule.positives[0]
        last = b"b" if sample[-1:] in b"aA" else b"a"
        if rule.id in ("age-secret-key", "aws-access-key-id"):
            last = b"Q" if sample[-1:] != b"Q" else b"P"
        found = scanner.scan(sample[:-1] + last, "body")
        if rule.id == "aws-access-key-id":
            found = scanner.scan(b"AKIA" + b"7Q2Z" * 4, "body")
        assert {one.severity for one in found if one.rule == rule.id} == {rule.invalid}, rule.id


def test_hosts_of_issuers_are_names_or_wildcards_of_names(pack: tuple[Rule, ...]) -> None:
    for rule in pack:
        for host in rule.hosts:
            name = host.removeprefix("*.")
            assert "." in name, (rule.id, host)
            assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-"), (rule.id, host)
    assert sum(bool(rule.hosts) for rule in pack) >= 300


def test_no_negative_sample_is_taken_for_a_secret_of_any_kind(
    pack: tuple[Rule, ...], scanner: SecretScanner
) -> None:
    flagged = [
        (rule.id, [finding.rule for finding in scanner.scan(sample, "body")])
        for rule in pack
        for sample in rule.negatives
        if scanner.scan(sample, "body")
    ]
    assert flagged == []


def test_every_positive_sample_is_found_in_a_stream_of_single_bytes(
    pack: tuple[Rule, ...], scanner: SecretScanner
) -> None:
    policy = StreamPolicy(threshold=Severity.CRITICAL)
    shorter = {"gitlab-routable-token": {"gitlab-pat"}}
    for rule in pack:
        text = b"before " + rule.positives[0] + b" after"
        with scanner.stream("body", policy=policy) as scan:
            steps = [scan.feed(bytes([byte])) for byte in text]
            steps.append(scan.finish())
        found = {finding.rule for step in steps for finding in step.findings}
        # A short form of a token stops the stream before its long form is there.
        stopped = {one for one in found if one in shorter.get(rule.id, ())}
        assert rule.id in found or stopped, rule.id


def test_the_match_of_every_sample_fits_into_the_window(pack: tuple[Rule, ...]) -> None:
    confirmer = Confirmer(pack)
    for rule in pack:
        for sample in rule.positives:
            matches = [one for one in confirmer.find(sample) if one.rule.id == rule.id]
            assert matches, rule.id
            assert all(one.end - one.start < CONFIRM_BYTES for one in matches), rule.id


def test_the_fast_matcher_and_the_reference_agree_on_every_sample(
    pack: tuple[Rule, ...], scanner: SecretScanner
) -> None:
    confirmer = Confirmer(pack)
    for rule in pack:
        for sample in (*rule.positives, *rule.negatives):
            fast = {(one.rule, one.offset) for one in scanner.scan(sample, "body")}
            assert fast == {(one.rule.id, one.start) for one in confirmer.find(sample)}


def test_a_secret_in_a_json_string_is_found_at_depth_one_and_two(
    pack: tuple[Rule, ...], scanner: SecretScanner
) -> None:
    """``\\n`` before a token must not hide it: it puts a letter there."""
    missed = []
    for rule in pack:
        text = rule.positives[0].decode()
        for _ in range(2):
            text = '{"content": "line\\n' + _escaped(text) + '\\nend"}'
            found = {finding.rule for finding in scanner.scan(text.encode(), "body")}
            if rule.id not in found:
                missed.append(rule.id)
    assert missed == []


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "\\r").replace("\n", "\\n")


def test_a_line_of_base64_that_begins_as_a_key_is_none(
    pack: tuple[Rule, ...], scanner: SecretScanner
) -> None:
    key = next(rule for rule in pack if rule.id == "brave-search-api-key").positives[0]
    line = key + b"aB3dE6gH9jK2mN5pQ8rS1tU4vW7yZ0+/aa"
    for end in (b"\n", b"\\n", b"\r\n"):
        assert scanner.scan(b"MIIDdzCCAl+" + end + line + end, "body") == ()
        assert scanner.scan(b"it is" + end + key + end, "body")


def test_the_pack_itself_holds_nothing_that_a_scanner_would_flag(
    pack_files: tuple[Path, ...], scanner: SecretScanner
) -> None:
    for path in pack_files:
        assert scanner.scan(path.read_bytes(), path.name) == ()


def test_the_source_of_the_program_is_clean(scanner: SecretScanner) -> None:
    source = Path(__file__).resolve().parents[3] / "src"
    for path in source.rglob("*.py"):
        assert scanner.scan(path.read_bytes(), str(path)) == (), path


def test_images_hashes_and_identifiers_raise_no_alarm(scanner: SecretScanner) -> None:
    chance = random.Random(7)
    image = base64.b64encode(chance.randbytes(3_000_000))
    assert scanner.scan(image, "body") == ()
    words = []
    for _ in range(20_000):
        raw = chance.randbytes(32)
        text = raw.hex()
        words += [
            text,
            text[:40],
            f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[:12]}",
        ]
    assert scanner.scan(" ".join(words).encode(), "body") == ()
