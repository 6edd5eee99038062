"""The facts that a rule may read: names, types, and for which actions they are known.

One table. The checker takes the types from it, the compiler how a fact is taken out of an
event, the documentation its pages. A fact is *always* known for an action, *sometimes*
(unknown is an error to the rule that reads it), or never; an action for which a fact is
never known is refused at load for a rule that names both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from aesp_proxy.decide.policy.cel.types import (
    ADDRESS,
    BOOL,
    DOUBLE,
    DYN,
    INT,
    LEVEL,
    STRING,
    TIMESTAMP,
    Type,
    list_of,
    map_of,
    object_of,
)
from aesp_proxy.model.event import (
    CustomEvent,
    DnsQuery,
    EgressConnect,
    EgressRequest,
    Event,
    FileAccess,
    NetworkAccess,
    PatchApply,
    ToolCall,
)

EVENTS: Final[Mapping[str, type[Event]]] = {
    "request": EgressRequest,
    "connect": EgressConnect,
    "dns": DnsQuery,
    "network": NetworkAccess,
    "file": FileAccess,
    "patch": PatchApply,
    "tool": ToolCall,
    "custom": CustomEvent,
}
"""The kinds of event, by the words that the table below uses."""

_HTTP = ("get", "head", "post", "put", "patch", "delete", "options", "trace", "connect")
KINDS_OF_ACTION: Final[Mapping[str, tuple[str, ...]]] = {
    **{f"http.{method}": ("request",) for method in _HTTP},
    "http.*": ("request",),
    "tcp.connect": ("connect", "network"),
    "dns.query": ("dns",),
    "file.open": ("file",),
    "file.write": ("file", "patch"),
    "file.create": ("file",),
    "file.delete": ("file",),
    "file.rename": ("file",),
    "file.exec": ("file",),
    "tool.call": ("tool",),
    "custom": ("custom",),
}
"""The kinds of event that an action comes as. ``llm.call`` comes as none yet."""

LIST_ITEMS_MAX: Final = 256
STRING_CHARS_MAX: Final = 65_536
FINDINGS_MAX: Final = 64
JSON_ITEMS_MAX: Final = 4_096

_STRINGS = list_of(STRING)
FINDING: Final = object_of(rule=STRING, severity=STRING, location=STRING)
_ALL = tuple(EVENTS)
_EGRESS = ("request", "connect", "network")
_NAMED = (*_EGRESS, "dns")
_FILES = ("file", "patch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One fact. ``always`` and ``sometimes`` are kinds of event in which it is known.

    ``code`` is how it is taken, in Python over ``e`` (the event), ``c`` (its context) and
    ``f`` (findings), by kind of event or for all of them under ``""``; what may be unknown
    gives None. ``items_max`` bounds lists and maps, ``chars_max`` texts. ``missing`` says
    why a fact of the specification cannot be read in this version.
    """

    name: str
    type: Type
    doc: str
    always: tuple[str, ...] = ()
    sometimes: tuple[str, ...] = ()
    code: Mapping[str, str] = field(default_factory=dict)
    items_max: int = LIST_ITEMS_MAX
    chars_max: int = STRING_CHARS_MAX
    missing: str = ""

    def code_for(self, kind: str) -> str:
        """Return how the fact is taken out of an event of this kind."""
        return self.code.get(kind) or self.code.get("", "None")


def _of(
    name: str,
    type_: Type,
    code: str,
    doc: str,
    *,
    always: tuple[str, ...] = (),
    sometimes: tuple[str, ...] = (),
    chars_max: int = STRING_CHARS_MAX,
) -> Fact:
    return Fact(
        name=name, type=type_, doc=doc, always=always, sometimes=sometimes, code={"": code},
        chars_max=chars_max,
    )  # fmt: skip


def _claim(name: str, type_: Type, code: str, doc: str) -> Fact:
    return _of(name, type_, code, doc, sometimes=_ALL, chars_max=256)


def _later(name: str, type_: Type, doc: str, missing: str) -> Fact:
    return Fact(name=name, type=type_, doc=doc, missing=missing)


_REQUEST = (
    _of("request.action", STRING, "e.action", "What is attempted, a word of the actions.",
        always=_ALL, chars_max=64),
    _of("request.time", TIMESTAMP, "e.time_ns", "When; UTC.", always=_ALL),
    _of("request.source_ip", ADDRESS, "address_of(e.principal.source_ip)",
        "The address of the client.", sometimes=_ALL),
    _of("request.host", STRING, "e.host.name",
        "The host as asked for, canonical: lower case, A-labels; an address as text.",
        always=_NAMED, chars_max=253),
    _of("request.port", INT, "e.port", "The port.", always=_EGRESS),
    _of("request.scheme", STRING, "e.scheme", "http, https, ws or wss.",
        always=("request",), chars_max=8),
    _of("request.method", STRING, "e.method", "The HTTP method, capital letters.",
        always=("request",), chars_max=32),
    _of("request.path", STRING, "url_path(e.path)",
        "The path of the URL in one spelling: dot segments and needless encoding resolved;"
        " unknown where servers may read it in two ways.", sometimes=("request",)),
    _of("request.query", STRING, "e.query", "The query of the URL, without '?'.",
        always=("request",)),
    _of("request.headers", map_of(STRING, STRING), "headers_of(e.headers)",
        "Header fields by name in lower case; several of one name are joined by ', ';"
        " unknown where there are very many.", sometimes=("request",)),
    _of("request.content_type", STRING, "header_of(e.headers, b'content-type')",
        "The media type in lower case, without parameters; empty when there is none.",
        always=("request",), chars_max=8_192),
    Fact(name="request.size", type=INT, doc="Bytes of the body, of a file's new content, of a"
         " patch, or of a tool's arguments; unknown for a chunked body.",
         always=("patch", "tool"), sometimes=("request", "file"),
         code={"request": "e.content_length",
               "file": "(None if e.content is None else len(e.content))",
               "patch": "len(e.patch)", "tool": "len(e.arguments)"}),
    _of("request.destination_ip", ADDRESS, "e.host.address",
        "The address, where one was asked for instead of a name.", sometimes=_EGRESS),
    _of("request.sni", STRING, "(e.sni or None)", "The TLS server name of the tunnel.",
        sometimes=("request",), chars_max=253),
    _later("request.account", STRING, "The account at the provider.",
           "accounts are not read from requests in this version"),
    _later("request.json", DYN, "The JSON body.",
           "the decision is made before the body is read"),
)  # fmt: skip

_USER = (
    _claim("request.user.id", STRING, "(e.principal.principal_id or None)", "The principal."),
    _claim("request.user.roles", _STRINGS, "c.claims.roles", "Roles."),
    _claim("request.user.groups", _STRINGS, "c.claims.groups", "Groups."),
    _claim("request.user.permissions", _STRINGS, "c.claims.permissions", "Permissions."),
    _claim("request.user.security_clearance", LEVEL, "c.claims.security_clearance",
           "public < internal < confidential < secret < top_secret."),
    _claim("request.user.mfa_verified", BOOL, "c.claims.mfa_verified",
           "Whether a second factor was shown."),
    _claim("request.user.spending_limit", DOUBLE, "c.claims.spending_limit",
           "The spending limit, in the currency of the budget."),
    _claim("request.user.business_unit", STRING, "c.claims.business_unit", "The business unit."),
    _claim("request.user.team", STRING, "c.claims.team", "The team."),
)  # fmt: skip

_RESOURCE = (
    _of("request.resource.path", STRING, "e.resolved",
        "The path of the file, symbolic links resolved.", always=_FILES, chars_max=4_096),
    _of("request.resource.classification", LEVEL, "c.resource.classification",
        "public < internal < confidential < secret < top_secret.", sometimes=_ALL),
    _of("request.resource.labels", _STRINGS, "c.resource.labels", "Labels of the resource.",
        sometimes=_ALL),
    _of("request.resource.estimated_cost", DOUBLE, "c.resource.estimated_cost",
        "What it will cost, in the currency of the budget.", sometimes=_ALL),
    _claim("request.tenant.id", STRING, "(e.principal.tenant_id or None)", "The tenant."),
    _claim("request.tenant.cost_center", STRING, "c.claims.cost_center", "The cost center."),
    _claim("request.tenant.region", STRING, "c.claims.region", "The region of the tenant."),
    _claim("organization.id", STRING, "c.claims.organization_id", "The organisation."),
    _claim("organization.approved_cost_centers", _STRINGS, "c.claims.approved_cost_centers",
           "Cost centers that may be charged."),
)  # fmt: skip

_AGENT = (
    _claim("agent.id", STRING, "(e.principal.agent_id or None)", "The agent."),
    _claim("agent.type", STRING, "(e.principal.agent_type or None)", "What kind of agent."),
    _claim("agent.session_id", STRING, "(e.principal.session_id or None)", "The session."),
    _claim("agent.executable", STRING, "c.agent_executable", "The agent's program, a path."),
    _claim("session.labels", _STRINGS, "c.session.labels", "Labels of what the session has read."),
    _claim("session.risk_score", DOUBLE, "c.session.risk_score", "The risk, 0.0 to 1.0."),
    _claim("session.started_at", TIMESTAMP, "c.session.started_ns", "When it began; UTC."),
    _claim("session.egress_count", INT, "c.session.egress_count", "Requests let out so far."),
    _claim("session.bytes_out", INT, "c.session.bytes_out", "Body bytes sent so far."),
    _claim("session.spend", DOUBLE, "c.session.spend", "Money spent so far."),
    _claim("session.denials", INT, "c.session.denials", "Refusals so far."),
)  # fmt: skip

_TOOL = (
    _of("tool.server", STRING, "e.server", "The server that offers the tool; empty for none.",
        always=("tool",), chars_max=512),
    _of("tool.name", STRING, "e.name", "The tool.", always=("tool",), chars_max=512),
    Fact(name="tool.arguments", type=DYN,
         doc="The arguments, JSON; unknown where they are none or very many.",
         sometimes=("tool",), code={"": "json_of(e.arguments)"}, items_max=JSON_ITEMS_MAX),
    _of("tool.contract.version", STRING, "c.contract.version", "The version of its contract.",
        sometimes=("tool",), chars_max=256),
    _of("tool.contract.approval_status", STRING, "c.contract.approval_status",
        "PENDING, APPROVED or REJECTED.", sometimes=("tool",), chars_max=256),
    _of("tool.contract.required_roles", _STRINGS, "c.contract.required_roles",
        "Roles that may call it.", sometimes=("tool",)),
    Fact(name="findings", type=list_of(FINDING), doc="Secrets found in what the decision is about.",
         always=_ALL, code={"": "findings_of(f)"}, items_max=FINDINGS_MAX),
)  # fmt: skip

_NO_LLM = "calls of models are not told apart from other requests in this version"
_LLM = tuple(
    _later(f"llm.{name}", type_, doc, _NO_LLM)
    for name, type_, doc in (
        ("provider", STRING, "The provider of the model."),
        ("model", STRING, "The model."),
        ("stream", BOOL, "Whether the answer is a stream."),
        ("tokens_in_estimate", INT, "Tokens of the prompt, estimated."),
    )
)

FACTS: Final[Mapping[str, Fact]] = {
    fact.name: fact for fact in (*_REQUEST, *_USER, *_RESOURCE, *_AGENT, *_TOOL, *_LLM)
}
ROOTS: Final = frozenset(name.partition(".")[0] for name in FACTS)
