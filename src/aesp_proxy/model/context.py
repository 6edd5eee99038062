"""What surrounds an event: who its principal is said to be, its session, its resource.

Everything may be unknown, and what is unknown is None: a rule that reads it errs, and a
rule that errs never lets anything pass. Nothing here comes from a header that the agent
can forge.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """Clearance of a person and classification of a resource; the order is the rank."""

    PUBLIC = 0
    INTERNAL = 1
    CONFIDENTIAL = 2
    SECRET = 3
    TOP_SECRET = 4

    @property
    def word(self) -> str:
        """The word used in policies and suites."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What an identity provider says of the principal, its tenant and its organisation.

    ``spending_limit`` is in the currency of the tenant's budget.
    """

    roles: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None
    permissions: tuple[str, ...] | None = None
    security_clearance: Level | None = None
    mfa_verified: bool | None = None
    spending_limit: float | None = None
    business_unit: str | None = None
    team: str | None = None
    cost_center: str | None = None
    region: str | None = None
    organization_id: str | None = None
    approved_cost_centers: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What is known of the thing that is touched, beyond its name."""

    classification: Level | None = None
    labels: tuple[str, ...] | None = None
    estimated_cost: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What the session has done so far. ``started_ns`` is UTC nanoseconds, ``bytes_out`` bytes."""

    labels: tuple[str, ...] | None = None
    risk_score: float | None = None
    started_ns: int | None = None
    egress_count: int | None = None
    bytes_out: int | None = None
    spend: float | None = None
    denials: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """The contract of a tool: its version, whether it is approved, who may call it."""

    version: str | None = None
    approval_status: str | None = None
    required_roles: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """All of it; the default knows nothing."""

    claims: Claims = Claims()
    resource: Resource = Resource()
    session: Session = Session()
    contract: Contract = Contract()
    agent_executable: str | None = None


NO_CONTEXT = Context()
