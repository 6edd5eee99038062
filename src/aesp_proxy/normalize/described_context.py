"""What surrounds a described attempt: its person, tenant, agent, session, resource, contract."""

from __future__ import annotations

from ipaddress import ip_address

from aesp_proxy.model.context import Claims, Context, Contract, Level, Resource, Session
from aesp_proxy.model.principal import Principal
from aesp_proxy.normalize.fact_table import FactTable, refuse

_USER = (
    "id", "roles", "groups", "permissions", "security_clearance", "mfa_verified",
    "spending_limit", "business_unit", "team",
)  # fmt: skip
_SESSION = (
    "labels", "risk_score", "started_at", "egress_count", "bytes_out", "spend", "denials",
)  # fmt: skip
_LEVELS = {level.word: level for level in Level}


def principal_of(top: FactTable, request: FactTable) -> Principal:
    """Return who attempts, as far as it is stated."""
    agent = top.table("agent")
    agent.only("id", "type", "session_id", "executable")
    tenant = request.table("tenant")
    tenant.only("id", "cost_center", "region")
    source_ip = request.text("source_ip")
    if source_ip is not None:
        try:
            source_ip = str(ip_address(source_ip))
        except ValueError:
            refuse("is not an address", "request.source_ip")
    return Principal(
        principal_id=request.table("user").text("id") or "",
        agent_id=agent.text("id") or "",
        agent_type=agent.text("type") or "",
        session_id=agent.text("session_id") or "",
        tenant_id=tenant.text("id") or "",
        source_ip=source_ip or "",
    )


def context_of(top: FactTable, request: FactTable) -> Context:
    """Return what is known beyond the event; what is not stated is not known."""
    return Context(
        claims=_claims(request.table("user"), request.table("tenant"), top.table("organization")),
        resource=_resource(request.table("resource")),
        session=_session(top.table("session")),
        contract=_contract(top.table("tool").table("contract")),
        agent_executable=top.table("agent").text("executable"),
    )


def _claims(user: FactTable, tenant: FactTable, organization: FactTable) -> Claims:
    user.only(*_USER)
    organization.only("id", "approved_cost_centers")
    return Claims(
        roles=user.texts("roles"),
        groups=user.texts("groups"),
        permissions=user.texts("permissions"),
        security_clearance=_level(user, "security_clearance"),
        mfa_verified=user.flag("mfa_verified"),
        spending_limit=user.number("spending_limit"),
        business_unit=user.text("business_unit"),
        team=user.text("team"),
        cost_center=tenant.text("cost_center"),
        region=tenant.text("region"),
        organization_id=organization.text("id"),
        approved_cost_centers=organization.texts("approved_cost_centers"),
    )


def _resource(resource: FactTable) -> Resource:
    resource.only("path", "resolved", "classification", "labels", "estimated_cost")
    return Resource(
        classification=_level(resource, "classification"),
        labels=resource.texts("labels"),
        estimated_cost=resource.number("estimated_cost"),
    )


def _session(session: FactTable) -> Session:
    session.only(*_SESSION)
    return Session(
        labels=session.texts("labels"),
        risk_score=session.number("risk_score"),
        started_ns=session.moment_ns("started_at"),
        egress_count=session.count("egress_count"),
        bytes_out=session.count("bytes_out"),
        spend=session.number("spend"),
        denials=session.count("denials"),
    )


def _contract(contract: FactTable) -> Contract:
    contract.only("version", "approval_status", "required_roles")
    return Contract(
        version=contract.text("version"),
        approval_status=contract.text("approval_status"),
        required_roles=contract.texts("required_roles"),
    )


def _level(table: FactTable, name: str) -> Level | None:
    word = table.text(name)
    if word is None:
        return None
    level = _LEVELS.get(word)
    if level is None:
        refuse(f"is none of {', '.join(_LEVELS)}", table.where(name))
    return level
