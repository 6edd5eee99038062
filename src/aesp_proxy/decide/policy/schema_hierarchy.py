"""Every key of the hierarchy file and of an exception, and what neither of them enforces."""

from __future__ import annotations

from typing import Final

from aesp_proxy.decide.policy.field import Field, Form, Kind
from aesp_proxy.decide.policy.schema import GUARDS

LEVELS: Final = ("global", "compliance", "region", "business_unit", "team", "exception")
DEPTH_DEFAULT: Final = 5
DEPTH_MAX: Final = 32

_LATER: Final = "is known, but not enforced by this version"


def _text(text: str, *, required: bool = False) -> Field:
    return Field(kind=Kind.TEXT, text=text, required=required)


def _names(text: str) -> Field:
    return Field(kind=Kind.TEXTS, text=text)


def _word(choices: tuple[str, ...], text: str, *, required: bool = False) -> Field:
    return Field(kind=Kind.CHOICE, choices=choices, text=text, required=required)


LEVEL: Final = {
    "level": _word(LEVELS, "Which level it is; they stand in this order.", required=True),
    "path": _text(
        "The file, relative to the repository; {framework}, {region}, {unit}, {team} stand for"
        " the scope's names. For exceptions a pattern of files, such as exceptions/*.yaml.",
        required=True,
    ),
    "mandatory": Field(kind=Kind.FLAG, default="true", text="Whether the file must be there."),
    "overridable": Field(
        kind=Kind.FLAG,
        default="false",
        text="Whether levels below may change what it says; false: they may only be stricter.",
    ),
    "frameworks": _names("The frameworks there are."),
    "regions": _names("The regions there are."),
    "units": _names("The business units there are."),
    "teams": _names("The teams there are."),
}

OVERRIDE: Final = {
    "allow_additions": Field(kind=Kind.FLAG, text="Whether entries may be added below."),
    "allow_removals": Field(kind=Kind.FLAG, text="Whether entries may be taken out below."),
}

HIERARCHY: Final = {
    "version": _text("The version of the format: 1.0.0.", required=True),
    "name": _text("The name of the hierarchy."),
    "description": _text("What it is for."),
    "hierarchy": Field(
        kind=Kind.TABLES, keys=LEVEL, entry="level", required=True, text="Levels from the top."
    ),
    "override_rules": Field(
        kind=Kind.TABLE,
        text="What is tighter than the law of levels; it cannot be made looser.",
        keys={
            name: Field(kind=Kind.TABLE, keys=OVERRIDE, text=f"For the lists of {name}.")
            for name in GUARDS
        },
    ),
    "hierarchy_depth_limit": Field(
        kind=Kind.COUNT,
        count_max=DEPTH_MAX,
        default=str(DEPTH_DEFAULT),
        text="How many levels there may be, exceptions not counted.",
    ),
    "policy_review_required": Field(
        kind=Kind.FLAG, text="Not enforced: reviews are the repository's.", not_enforced=_LATER
    ),
}


def _spellings(*words: str) -> tuple[str, ...]:
    """Return words as the specification writes them, and in capitals with underscores."""
    capitals = (
        "".join(f"_{c}" if c.isupper() and at else c for at, c in enumerate(word)).upper()
        for word in words
    )
    return (*words, *dict.fromkeys(w for w in capitals if w not in words))


STATUSES: Final = _spellings(
    "Draft", "PendingReview", "PendingApproval", "Approved", "Rejected", "Expired", "Revoked"
)
EXCEPTION_TYPES: Final = _spellings("ProjectException", "PermanentException", "EmergencyException")

_CHANGES: Final = {
    "allow_paths": Field(kind=Kind.TEXTS, form=Form.GLOB, text="Paths that may be touched."),
    "allow_egress": Field(kind=Kind.TEXTS, form=Form.HOST, text="Hosts that may be reached."),
    "allow_commands": Field(kind=Kind.TEXTS, form=Form.TOOL, text="Tools that may be called."),
    "custom": Field(
        kind=Kind.PAIRS, text="Not supported.", not_enforced="is known, and nothing supports it"
    ),
}

_SCOPE: Final = {
    "region": _text("The region, or *.", required=True),
    "business_unit": _text("The business unit, or *.", required=True),
    "team": _text("The team, or *.", required=True),
    "compliance_frameworks": Field(
        kind=Kind.TEXTS,
        required=True,
        text="It does not hold where another framework is in force; * is any.",
    ),
}

_DURATION: Final = {
    "start": _text("From when, RFC 3339 with a zone.", required=True),
    "end": _text("Until when; only a PermanentException has none."),
    "auto_renew": Field(
        kind=Kind.FLAG, text="Not supported: sign it again.", not_enforced="is not supported"
    ),
}

_RISK: Final = {
    "risk_level": _word(_spellings("Low", "Medium", "High", "Critical"), "How risky it is."),
    "mitigations": _names("What makes it less risky."),
    "compensating_controls": _names("What watches it."),
}

_APPROVAL: Final = {
    "approver": _text("Who.", required=True),
    "role": _word(
        _spellings("TeamLead", "SecurityEngineer", "ComplianceOfficer", "CISO"), "In which role."
    ),
    "decision": _word(
        _spellings("Approved", "Rejected", "RequestChanges"), "What they say.", required=True
    ),
    "comments": _text("Why."),
    "timestamp": _text("When, RFC 3339 with a zone."),
}

EXCEPTION: Final = {
    "kind": _word(("exception",), "What the file is.", required=True),
    "id": _text("The name of the exception in decisions.", required=True),
    "requestor": _text("Who asks for it.", required=True),
    "requestor_team": _text("Their team."),
    "exception_type": _word(EXCEPTION_TYPES, "What kind of exception it is.", required=True),
    "justification": _text("Why it is needed."),
    "scope": Field(kind=Kind.TABLE, keys=_SCOPE, required=True, text="Where it holds."),
    "requested_changes": Field(
        kind=Kind.TABLE, keys=_CHANGES, required=True, text="What it allows."
    ),
    "duration": Field(kind=Kind.TABLE, keys=_DURATION, required=True, text="When it holds."),
    "risk_assessment": Field(kind=Kind.TABLE, keys=_RISK, text="What may go wrong."),
    "status": _word(STATUSES, "Only Approved has an effect.", required=True),
    "approvals": Field(kind=Kind.TABLES, keys=_APPROVAL, text="Who has agreed."),
    "created_at": _text("When it was asked for, RFC 3339 with a zone."),
}
