"""Every key a suite may hold: the facts of an attempt, and what is expected of it.

The facts have the names a rule reads them by. Their types here are those of the text;
whether they fit together is decided where the attempt is made of them.
"""

from __future__ import annotations

from aesp_proxy.decide.policy.field import Field, Kind
from aesp_proxy.model.context import Level
from aesp_proxy.model.decision import Reason, Verdict

_TEXT = Field(kind=Kind.TEXT)
_TEXTS = Field(kind=Kind.TEXTS)
_COUNT = Field(kind=Kind.COUNT)
_NUMBER = Field(kind=Kind.RATIO)
_LEVEL = Field(kind=Kind.CHOICE, choices=tuple(level.word for level in Level))
_ANY = Field(kind=Kind.ANY)


def _table(keys: dict[str, Field]) -> Field:
    return Field(kind=Kind.TABLE, keys=keys)


_USER = {
    "id": _TEXT,
    "roles": _TEXTS,
    "groups": _TEXTS,
    "permissions": _TEXTS,
    "security_clearance": _LEVEL,
    "mfa_verified": Field(kind=Kind.FLAG),
    "spending_limit": _NUMBER,
    "business_unit": _TEXT,
    "team": _TEXT,
}

_RESOURCE = {
    "path": _TEXT,
    "resolved": _TEXT,
    "classification": _LEVEL,
    "labels": _TEXTS,
    "estimated_cost": _NUMBER,
}

_REQUEST = {
    "action": _TEXT,
    "time": _TEXT,
    "source_ip": _TEXT,
    "host": _TEXT,
    "port": _COUNT,
    "scheme": _TEXT,
    "method": _TEXT,
    "path": _TEXT,
    "query": _TEXT,
    "headers": _ANY,
    "content_type": _TEXT,
    "size": _COUNT,
    "sni": _TEXT,
    "user": _table(_USER),
    "resource": _table(_RESOURCE),
    "tenant": _table({"id": _TEXT, "cost_center": _TEXT, "region": _TEXT}),
}

_SESSION = {
    "labels": _TEXTS,
    "risk_score": _NUMBER,
    "started_at": _TEXT,
    "egress_count": _COUNT,
    "bytes_out": _COUNT,
    "spend": _NUMBER,
    "denials": _COUNT,
}

_CONTRACT = {"version": _TEXT, "approval_status": _TEXT, "required_roles": _TEXTS}

FACTS = {
    "request": _table(_REQUEST),
    "organization": _table({"id": _TEXT, "approved_cost_centers": _TEXTS}),
    "agent": _table({"id": _TEXT, "type": _TEXT, "session_id": _TEXT, "executable": _TEXT}),
    "session": _table(_SESSION),
    "tool": _table(
        {"server": _TEXT, "name": _TEXT, "arguments": _ANY, "contract": _table(_CONTRACT)}
    ),
    "content": _TEXT,
    "patch": _TEXT,
}

EXPECT = {
    "verdict": Field(
        kind=Kind.CHOICE, choices=tuple(verdict.value for verdict in Verdict), required=True
    ),
    "reason": Field(kind=Kind.CHOICE, choices=tuple(reason.value for reason in Reason)),
    "rule": _TEXT,
    "guard": _TEXT,
    "finding": _TEXT,
}

CASE = {"name": _TEXT, "expect": Field(kind=Kind.ANY, required=True), **FACTS}

SUITE = {
    "policy": _TEXT,
    "over": _TEXT,
    "root": _TEXT,
    "scope": _TEXT,
    "now": _TEXT,
    "defaults": _table(FACTS),
    "cases": Field(kind=Kind.TABLES, keys=CASE, required=True),
}
