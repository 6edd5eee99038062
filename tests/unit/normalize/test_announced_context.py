"""Facts of an announcement: strict types, both spellings, and nothing that was not said."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.errors import InputError
from aesp_proxy.model.context import NO_CONTEXT, Claims, Context, Contract, Level, Resource, Session
from aesp_proxy.normalize.announced import announcement
from aesp_proxy.normalize.announced_context import context_of
from aesp_proxy.normalize.json_text import read_json

FACTS = {
    "user": {
        "id": "u1",
        "roles": ["dev", "ops"],
        "groups": [],
        "permissions": ["x"],
        "security_clearance": "secret",
        "mfa_verified": True,
        "spending_limit": 100,
        "business_unit": "finance",
        "team": "ml",
    },
    "tenant": {"id": "t1", "cost_center": "cc1", "region": "us-east"},
    "organization": {"id": "o1", "approved_cost_centers": ["cc1"]},
    "resource": {
        "classification": "top_secret",
        "labels": ["phi"],
        "estimated_cost": 1.5,
    },
    "session": {
        "labels": ["tainted"],
        "risk_score": 0.25,
        "started_at": "2026-01-01T01:00:00+01:00",
        "egress_count": 3,
        "bytes_out": 4,
        "spend": 0.5,
        "denials": 1,
    },
    "contract": {"version": "1", "approval_status": "approved", "required_roles": ["dev"]},
}
EXPECTED = Context(
    claims=Claims(
        roles=("dev", "ops"),
        groups=(),
        permissions=("x",),
        security_clearance=Level.SECRET,
        mfa_verified=True,
        spending_limit=100.0,
        business_unit="finance",
        team="ml",
        cost_center="cc1",
        region="us-east",
        organization_id="o1",
        approved_cost_centers=("cc1",),
    ),
    resource=Resource(classification=Level.TOP_SECRET, labels=("phi",), estimated_cost=1.5),
    session=Session(
        labels=("tainted",),
        risk_score=0.25,
        started_ns=1_767_225_600 * 10**9,
        egress_count=3,
        bytes_out=4,
        spend=0.5,
        denials=1,
    ),
    contract=Contract(version="1", approval_status="approved", required_roles=("dev",)),
)


def said(metadata: object):
    value = {"eventId": "e", "eventType": "custom", "metadata": metadata}
    return announcement(read_json(json.dumps(value)), time_ns=0)


def camel(name: str) -> str:
    return "".join(word.capitalize() if at else word for at, word in enumerate(name.split("_")))


def test_every_fact_is_read_in_both_spellings() -> None:
    assert context_of(said(FACTS)) == EXPECTED
    camels = {
        name: {camel(key): value for key, value in each.items()} for name, each in FACTS.items()
    }
    assert context_of(said(camels)) == EXPECTED
    principal = said(camels).principal
    assert (principal.principal_id, principal.tenant_id) == ("u1", "t1")


@pytest.mark.parametrize("metadata", [{}, {"user": None}, {"user": {}, "session": {"spend": None}}])
def test_what_is_not_said_is_not_known(metadata) -> None:
    assert context_of(said(metadata)) == NO_CONTEXT


def test_what_is_unknown_is_ignored() -> None:
    assert context_of(said({"user": {"colour": 1}, "others": 2, "cwd": "/w"})) == NO_CONTEXT


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("user", "roles", "dev"),
        ("user", "roles", ["dev", 1]),
        ("user", "roles", ["dev", None]),
        ("user", "roles", {"dev": True}),
        ("user", "roles", ["x"] * 257),
        ("user", "roles", ["x" * 257]),
        ("user", "team", "x" * 257),
        ("user", "team", 1),
        ("user", "mfa_verified", 1),
        ("user", "mfa_verified", "true"),
        ("user", "spending_limit", True),
        ("user", "spending_limit", "100"),
        ("user", "spending_limit", -1),
        ("user", "security_clearance", "SECRET"),
        ("user", "security_clearance", 3),
        ("resource", "classification", "hidden"),
        ("session", "egress_count", 1.0),
        ("session", "egress_count", True),
        ("session", "bytes_out", -1),
        ("session", "bytes_out", 10**30),
        ("session", "started_at", "2026-01-01T00:00:00"),
        ("session", "started_at", "yesterday"),
        ("session", "started_at", 1),
        ("contract", "version", 1.0),
        ("contract", "required_roles", "dev"),
        ("tenant", "region", ["us"]),
        ("organization", "approved_cost_centers", [["cc"]]),
    ],
)
def test_what_is_of_another_type_is_refused_by_its_name(section, key, value) -> None:
    with pytest.raises(InputError) as error:
        context_of(said({section: {key: value}}))
    assert error.value.where == f"metadata.{section}.{key}"
    assert len(str(error.value)) < 160


@pytest.mark.parametrize("section", list(FACTS))
@pytest.mark.parametrize("value", [1, "x", [], True])
def test_a_section_that_is_no_object_is_refused(section, value) -> None:
    with pytest.raises(InputError, match=f"metadata.{section}"):
        context_of(said({section: value}))


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity"])
def test_a_number_that_is_not_finite_is_refused(number) -> None:
    text = '{"eventId": "e", "eventType": "custom", "metadata": {"session": {"spend": %s}}}'
    with pytest.raises(InputError):
        context_of(announcement(read_json(text % number), time_ns=0))


def test_two_spellings_with_two_values_are_refused_and_with_one_are_read() -> None:
    with pytest.raises(InputError, match="mfa_verified: and mfaVerified say different things"):
        context_of(said({"user": {"mfa_verified": True, "mfaVerified": False}}))
    with pytest.raises(InputError):
        context_of(said({"session": {"spend": 1, "egress_count": 1, "egressCount": True}}))
    same = context_of(said({"user": {"business_unit": "a", "businessUnit": "a"}}))
    assert same.claims.business_unit == "a"


@pytest.mark.parametrize(
    "metadata",
    [
        {"principalId": "a", "user": {"id": "b"}},
        {"tenantId": "a", "tenant": {"id": "b"}},
        {"user": {"id": 1}},
    ],
)
def test_an_identity_that_is_said_twice_is_the_same_or_refused(metadata) -> None:
    with pytest.raises(InputError, match="metadata"):
        said(metadata)


@given(
    st.dictionaries(
        st.sampled_from(list(FACTS)),
        st.dictionaries(
            st.sampled_from(sorted({key for each in FACTS.values() for key in each} - {"id"})),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
                lambda inner: st.lists(inner, max_size=3),
            ),
            max_size=4,
        ),
    )
)
def test_anything_is_read_or_refused_and_never_an_accident(metadata) -> None:
    value = {"eventId": "e", "eventType": "custom", "metadata": metadata}
    with suppress(InputError):
        assert isinstance(context_of(announcement(value, time_ns=0)), Context)
