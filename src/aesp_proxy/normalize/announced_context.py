"""What an announced attempt says of who attempts and of what it touches, for the rules.

``metadata`` may hold these objects, keys in snake_case or camelCase:

``user``          id, roles, groups, permissions, security_clearance, mfa_verified,
                  spending_limit, business_unit, team
``tenant``        id, cost_center, region
``organization``  id, approved_cost_centers
``resource``      classification, labels, estimated_cost
``session``       labels, risk_score, started_at (RFC 3339 with an offset), egress_count,
                  bytes_out, spend, denials
``contract``      version, approval_status, required_roles

These facts are the caller's word: nothing here is checked against anything. ``check`` is
asked by hooks that the operator installs, and those must not let the agent write them;
what intercepts knows its facts by itself and never comes here. What is not stated, or
null, is not known, and a rule that reads it errs. A value of another type, a number that
is not finite, a word that is no level, or a key that stands twice with two values is an
``InputError`` that names the key; unknown keys are ignored, as everywhere in an event.
"""

from __future__ import annotations

from dataclasses import replace

from aesp_proxy.model.context import Context, Contract
from aesp_proxy.normalize import described_context
from aesp_proxy.normalize.announced import Announcement
from aesp_proxy.normalize.fact_table import FactTable, refuse
from aesp_proxy.normalize.json_text import Json

_ITEMS_MAX = 256
_CHARS_MAX = 256
_REQUEST = {
    "user": (
        "id", "roles", "groups", "permissions", "security_clearance", "mfa_verified",
        "spending_limit", "business_unit", "team",
    ),
    "tenant": ("id", "cost_center", "region"),
    "resource": ("classification", "labels", "estimated_cost"),
}  # fmt: skip
_TOP = {
    "organization": ("id", "approved_cost_centers"),
    "session": (
        "labels", "risk_score", "started_at", "egress_count", "bytes_out", "spend", "denials",
    ),
}  # fmt: skip
_CONTRACT = ("version", "approval_status", "required_roles")


def context_of(said: Announcement) -> Context:
    """Read what surrounds an announced attempt; ``InputError`` names the key that is wrong."""
    metadata = said.metadata
    request = {name: _facts(metadata, name, keys) for name, keys in _REQUEST.items()}
    top = {name: _facts(metadata, name, keys) for name, keys in _TOP.items()}
    contract = FactTable(_facts(metadata, "contract", _CONTRACT), "metadata.contract")
    context = described_context.context_of(
        FactTable(top, "metadata"), FactTable(request, "metadata")
    )
    return replace(
        context,
        contract=Contract(
            version=contract.text("version"),
            approval_status=contract.text("approval_status"),
            required_roles=contract.texts("required_roles"),
        ),
    )


def _facts(metadata: Json, section: str, names: tuple[str, ...]) -> dict[str, object]:
    """Return what is stated of one section, by the names of the facts."""
    stated = metadata.get(section)
    if stated is None:
        return {}
    if not isinstance(stated, dict):
        refuse("is not a JSON object", f"metadata.{section}")
    facts = {}
    for name in names:
        value = _value(stated, name, f"metadata.{section}.{name}")
        if value is not None:
            facts[name] = value
    return facts


def _value(stated: Json, name: str, where: str) -> object:
    keys = {name, _camel(name)}
    found = [stated[key] for key in keys if stated.get(key) is not None]
    if any(type(other) is not type(found[0]) or other != found[0] for other in found[1:]):
        refuse(f"and {_camel(name)} say different things", where)
    if not found:
        return None
    value = found[0]
    texts = value if isinstance(value, list) else [value]
    if len(texts) > _ITEMS_MAX:
        refuse(f"is a list of more than {_ITEMS_MAX}", where)
    if any(isinstance(text, str) and len(text) > _CHARS_MAX for text in texts):
        refuse(f"is longer than {_CHARS_MAX} characters", where)
    return value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
