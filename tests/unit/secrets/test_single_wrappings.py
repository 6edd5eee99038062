"""In each of the wrappings that were the weakest, a kind with a prefix is found all the same."""

from __future__ import annotations

import pytest
from benchmarks.recall import Sample, is_found, samples
from benchmarks.wrappings import WRAPPINGS

from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.scanner import SecretScanner

WRAPPING = {one.name: one for one in WRAPPINGS}
MISSED = {
    "form": set[str](),
    "percent, as needed": set[str](),
    "protobuf": {"twitter-bearer-token"},  # its prefix is a row of one letter: no gate
    "quoted-printable": set[str](),
}


@pytest.fixture(scope="module")
def prefixed(scanner: SecretScanner, pack: tuple[Rule, ...]) -> list[Sample]:
    return [sample for sample in samples(scanner, pack) if sample.prefixed]


@pytest.mark.parametrize("way", sorted(MISSED))
def test_every_kind_with_a_prefix_is_found(
    scanner: SecretScanner, prefixed: list[Sample], way: str
) -> None:
    missed = {sample.rule for sample in prefixed if not is_found(scanner, sample, WRAPPING[way])}
    assert missed == MISSED[way]
