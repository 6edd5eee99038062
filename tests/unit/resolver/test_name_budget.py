"""How much an agent may say by names: bounds of one, and of how many it may invent."""

from __future__ import annotations

import pytest

from aesp_proxy.daemon.name_budget import BudgetLimits, NameBudget
from aesp_proxy.decide.name_limits import NameLimits, fixed_part, over_limit
from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.decide.snapshot import Snapshot, build_snapshot
from aesp_proxy.model.host import parse_host

LIMITS = NameLimits()
POLICY = """
version: "1.2.0"
name: test
guards:
  egress_allowlist:
    enabled: true
    allow: ["exact.example.com", "*.s3.example", "api-*.pat.example"]
    default_action: allow
  secret_leak: {enabled: false}
rules:
  - policy_id: "r"
    applies_to: ["egress:ruled.by.one.example"]
    rule: {condition: "true", effect: ALLOW}
"""


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return build_snapshot(load_policy(POLICY, "p.yaml"), (), fingerprint_key=b"k" * 32, serial=1)


@pytest.mark.parametrize(
    ("name", "fixed"),
    [
        ("exact.example.com", "exact.example.com"),
        ("a.b.s3.example", "s3.example"),
        ("api-1.pat.example", "pat.example"),
        ("ruled.by.one.example", "ruled.by.one.example"),
        ("a.b.elsewhere.example", "elsewhere.example"),
        ("single", "single"),
    ],
)
def test_what_the_policy_fixes_of_a_name_is_not_the_agents_to_choose(snapshot, name, fixed):
    assert fixed_part(parse_host(name), snapshot) == fixed


@pytest.mark.parametrize(
    "free",
    [
        "api",
        "my-company-prod-data-lake-eu-central-1",
        "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9",
        "vpce-0a1b2c3d4e5f6071-abcdefgh",
        "ABCDEF0123456789ABCDEF0123456789.gr7.us-east-1".lower(),
        "r3---sn-4g5ednsl",
        "adb-1234567890123456.7",
    ],
)
def test_names_as_services_have_them_are_within_the_limits(free):
    assert over_limit(f"{free}.s3.example", "s3.example", LIMITS) == ""


@pytest.mark.parametrize(
    ("free", "told"),
    [
        ("a" * 49, "a label of 49 characters"),
        (".".join(["abcd"] * 26), "129 characters before"),
        ("mzxw6ytboi2gkzlnmvzxgylhmuqhi33n.ij2wy3dfojswg2dbnzrwkzlt", "bits before"),
    ],
)
def test_names_that_carry_data_are_over_the_limits(free, told):
    assert told in over_limit(f"{free}.s3.example", "s3.example", LIMITS)


def refused(budget: NameBudget, snapshot: Snapshot, name: str, now: float = 0) -> str:
    return budget.refused(parse_host(name), snapshot, now)


def test_a_name_is_paid_for_once_and_exact_names_and_addresses_are_free(snapshot):
    budget = NameBudget(BudgetLimits(names_per_minute_max=1), now=0)
    for _ in range(3):
        assert refused(budget, snapshot, "a.s3.example") == ""
        assert refused(budget, snapshot, "exact.example.com") == ""
        assert refused(budget, snapshot, "192.0.2.1") == ""
    told = refused(budget, snapshot, "b.s3.example")
    assert told == "too many new names under s3.example in a minute"
    assert refused(budget, snapshot, "a.other.example") == ""


def test_the_budget_of_a_minute_grows_again_and_that_of_an_hour_bounds_it(snapshot):
    budget = NameBudget(BudgetLimits(names_per_minute_max=2, names_per_hour_max=3), now=0)
    told = [refused(budget, snapshot, f"n{i}.s3.example", now=30.0 * i) for i in range(9)]
    passed = [not why for why in told]
    assert passed == [True, True, True, False, False, False, False, False, False]
    assert told[-1].endswith("in an hour")
    assert refused(budget, snapshot, "late.s3.example", now=1_300) == ""


def test_many_suffixes_have_one_budget_together(snapshot):
    budget = NameBudget(BudgetLimits(names_per_minute_max=1), now=0)
    told = [refused(budget, snapshot, f"x.d{number}.example") for number in range(12)]
    assert [not why for why in told] == [True] * 10 + [False] * 2
    assert told[-1] == "too many new names in a minute"
