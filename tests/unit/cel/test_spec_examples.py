"""The four conditions that the AESP specification shows mean what they say."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from cel_ask import ask

from aesp_proxy.decide.policy.cel.errors import EvaluationError
from aesp_proxy.model.context import Level

_HOURS = "request.time.getHours() >= 9 && request.time.getHours() <= 17"
_ROLE = (
    "'data-scientist' in request.user.roles && "
    "request.resource.classification in ['public', 'internal']"
)
_FACTORS = """request.user.security_clearance >= 'confidential' &&
request.source_ip in ['10.0.0.0/8', '192.168.0.0/16'] &&
request.user.mfa_verified == true
"""
_COSTS = """request.tenant.cost_center in organization.approved_cost_centers &&
request.resource.estimated_cost <= request.user.spending_limit
"""
_HOUR = 3_600 * 10**9


def _factors(level: Level | None, source: str | None, mfa: object) -> dict[str, object]:
    return {
        "request__user__security_clearance": level,
        "request__source_ip": source and ip_address(source),
        "request__user__mfa_verified": mfa,
    }


def _costs(center: str | None, cost: float | None, limit: float | None) -> dict[str, object]:
    return {
        "request__tenant__cost_center": center,
        "organization__approved_cost_centers": ("c1", "c2"),
        "request__resource__estimated_cost": cost,
        "request__user__spending_limit": limit,
    }


def _role(roles: tuple[str, ...] | None, level: Level | None) -> dict[str, object]:
    return {"request__user__roles": roles, "request__resource__classification": level}


@pytest.mark.parametrize(
    ("text", "facts", "value"),
    [
        (_HOURS, {"request__time": 9 * _HOUR}, True),
        (_HOURS, {"request__time": 18 * _HOUR - 1}, True),
        (_HOURS, {"request__time": 18 * _HOUR}, False),
        (_HOURS, {"request__time": 9 * _HOUR - 1}, False),
        (_ROLE, _role(("data-scientist",), Level.INTERNAL), True),
        (_ROLE, _role(("data-scientist",), Level.SECRET), False),
        (_ROLE, _role(("dev",), Level.PUBLIC), False),
        (_ROLE, _role(("dev",), None), False),
        (_ROLE, _role(("data-scientist",), None), None),
        (_ROLE, _role(None, Level.PUBLIC), None),
        (_FACTORS, _factors(Level.CONFIDENTIAL, "10.1.2.3", True), True),
        (_FACTORS, _factors(Level.TOP_SECRET, "192.168.7.7", True), True),
        (_FACTORS, _factors(Level.INTERNAL, "10.1.2.3", True), False),
        (_FACTORS, _factors(Level.SECRET, "11.1.2.3", True), False),
        (_FACTORS, _factors(Level.SECRET, "10.1.2.3", False), False),
        (_FACTORS, _factors(Level.SECRET, "10.1.2.3", None), None),
        (_FACTORS, _factors(None, "11.0.0.1", True), False),
        (_FACTORS, _factors(Level.SECRET, None, True), None),
        (_COSTS, _costs("c1", 5.0, 5.0), True),
        (_COSTS, _costs("c1", 5.1, 5.0), False),
        (_COSTS, _costs("c9", 5.0, 5.0), False),
        (_COSTS, _costs("c1", None, 5.0), None),
        (_COSTS, _costs("c9", None, 5.0), False),
        (_COSTS, _costs(None, 9.0, 5.0), False),
        (_COSTS, _costs("c1", 5.0, float("nan")), False),
    ],
)
def test_an_example_of_the_specification(text, facts, value):
    if value is None:
        with pytest.raises(EvaluationError):
            ask(text, **facts)
    else:
        assert ask(text, **facts) is value
