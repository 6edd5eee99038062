"""Nothing that is said of a secret gives it away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.decide.secrets.redact import MASK_CHARS_MAX, check_key, fingerprint, mask
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.errors import ConfigError


@given(value=st.binary(max_size=200), keep=st.integers(-3, 300))
def test_a_mask_shows_a_short_printable_prefix_at_most(value: bytes, keep: int) -> None:
    masked = mask(value, keep)
    shown = masked.removesuffix("***")
    assert masked.endswith("***")
    assert masked.isascii()
    assert masked.isprintable()
    assert len(shown) <= max(0, min(keep, MASK_CHARS_MAX, len(value) // 4))


def test_a_mask_keeps_the_issuers_prefix() -> None:
    assert mask(b"ghp_" + b"a" * 36, 4) == "ghp_***"
    assert mask(b"sk-ant-api03-" + b"a" * 95, 13) == "sk-ant-a***"
    assert mask(b"hunter2", 4) == "h***"
    assert mask(b"abc", 3) == "***"


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_fingerprints_tell_equal_from_different(one: bytes, other: bytes) -> None:
    key = b"k" * 32
    assert (fingerprint(key, one) == fingerprint(key, other)) == (one == other)
    assert len(fingerprint(key, one)) == 32


def test_without_the_key_a_fingerprint_cannot_be_made_again() -> None:
    assert fingerprint(b"k" * 32, b"secret") != fingerprint(b"l" * 32, b"secret")


@pytest.mark.parametrize("key", [b"", b"short", b"k" * 65])
def test_a_key_that_hides_nothing_is_refused(key: bytes, pack: tuple[Rule, ...]) -> None:
    with pytest.raises(ConfigError, match="fingerprint key"):
        check_key(key)
    with pytest.raises(ConfigError, match="fingerprint key"):
        SecretScanner(pack[:1], key)


def test_no_finding_holds_more_than_a_quarter_of_its_secret(
    pack: tuple[Rule, ...], scanner: SecretScanner
) -> None:
    for rule in pack:
        for sample in rule.positives:
            for finding in scanner.scan(sample, "body"):
                shown = finding.masked.removesuffix("***")
                assert len(shown) <= MASK_CHARS_MAX
                assert len(shown) <= len(sample) // 4
                assert sample.decode()[finding.offset :].startswith(shown)


def test_a_scanner_over_foreign_compiled_rules_is_refused(
    pack: tuple[Rule, ...], key: bytes
) -> None:
    other = SecretScanner(pack[:2], key)
    with pytest.raises(ConfigError, match="not those"):
        SecretScanner(pack[1:3], key, other._locator)
