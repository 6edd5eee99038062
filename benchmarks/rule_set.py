"""Rules and events that the policy benchmark decides with: eight shapes, from a seed.

Each shape stands three times: as a condition of ours, as the CEL that another engine is
given (flat names, and the actions as a conjunct, because it has no other place for them),
and in Cedar. Cedar has no regular expressions and no ``exists``: there a pattern is
``like`` and a group a whole name, which asks less, and says the same of these events.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from aesp_proxy.model.context import Claims, Context, Level, Resource, Session
from aesp_proxy.model.event import EgressRequest
from aesp_proxy.model.host import parse_host
from aesp_proxy.model.principal import Principal

ACTIONS = ("http.get", "http.post", "http.put", "http.delete")
WHO = Principal(principal_id="u", agent_id="a", agent_type="t", session_id="s",
                source_ip="127.0.0.1")  # fmt: skip
_BEGIN_NS = 1_700_000_000 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One rule in the three ways; it denies. ``actions`` empty means all."""

    policy_id: str
    condition: str
    actions: tuple[str, ...]
    cedar: str

    @property
    def cel(self) -> str:
        """The condition with the actions as a conjunct."""
        if not self.actions:
            return self.condition
        return f"request.action in {list(self.actions)} && {self.condition}".replace('"', "'")


def rules_of(size: int, seed: int) -> tuple[Written, ...]:
    """Make ``size`` rules; the first of a larger set are those of a smaller one."""
    dice = random.Random(seed)
    return tuple(_rule(number, dice) for number in range(size))


def _rule(number: int, dice: random.Random) -> Written:
    condition, cedar, actions = _SHAPES[number % len(_SHAPES)](dice)
    scope = f', action == Action::"{actions[0]}"' if actions else ", action"
    name = f"r{number}"
    return Written(
        policy_id=name,
        condition=condition,
        actions=actions,
        cedar=f'@id("{name}") forbid(principal{scope}, resource) when {{ {cedar} }};',
    )


Shape = tuple[str, str, tuple[str, ...]]


def _host_and_role(dice: random.Random) -> Shape:
    host, role = f"h{dice.randrange(50)}.example.com", f"role{dice.randrange(30)}"
    return (
        f"request.host == '{host}' && '{role}' in request.user.roles",
        f'context.host == "{host}" && context.roles.contains("{role}")',
        (dice.choice(ACTIONS),),
    )


def _suffix_and_hours(dice: random.Random) -> Shape:
    suffix, until = f".x{dice.randrange(20)}.example", 10 + dice.randrange(8)
    return (
        (
            f"request.host.endsWith('{suffix}') && request.time.getHours() >= 9"
            f" && request.time.getHours() <= {until}"
        ),
        f'context.host like "*{suffix}" && context.hours >= 9 && context.hours <= {until}',
        (),
    )


def _role_and_level(dice: random.Random) -> Shape:
    role = f"role{dice.randrange(30)}"
    return (
        (
            f"'{role}' in request.user.roles"
            " && request.resource.classification in ['secret', 'top_secret']"
        ),
        (
            f'context.roles.contains("{role}")'
            ' && ["secret", "top_secret"].contains(context.classification)'
        ),
        (),
    )


def _prefix_and_method(dice: random.Random) -> Shape:
    prefix = f"/api/v{dice.randrange(40)}/"
    return (
        f"request.path.startsWith('{prefix}') && request.method == 'POST'",
        f'context.path like "{prefix}*" && context.method == "POST"',
        ("http.post",),
    )


def _pattern(dice: random.Random) -> Shape:
    number = dice.randrange(200)
    return (
        f"request.path.matches('^/p{number}/[a-z]+$') && !request.user.mfa_verified",
        f'context.path like "/p{number}/*" && !context.mfa',
        (),
    )


def _label_and_port(dice: random.Random) -> Shape:
    label = f"lab{dice.randrange(30)}"
    return (
        f"session.labels.exists(l, l == '{label}') && request.port != 443",
        f'context.labels.contains("{label}") && context.port != 443',
        (),
    )


def _risk_and_host(dice: random.Random) -> Shape:
    risk, host = f"0.{dice.randrange(50, 99)}", f"h{dice.randrange(50)}.example.com"
    return (
        f"session.risk_score > {risk} && request.host != '{host}'",
        f'context.risk.greaterThan(decimal("{risk}")) && context.host != "{host}"',
        (),
    )


def _group_and_role(dice: random.Random) -> Shape:
    group, role = f"g{dice.randrange(30)}", f"role{dice.randrange(30)}"
    return (
        (
            f"request.user.groups.exists(g, g.startsWith('{group}-'))"
            f" && '{role}' in request.user.roles"
        ),
        f'context.groups.contains("{group}-x") && context.roles.contains("{role}")',
        (dice.choice(ACTIONS),),
    )


_SHAPES = (
    _host_and_role,
    _suffix_and_hours,
    _role_and_level,
    _prefix_and_method,
    _pattern,
    _label_and_port,
    _risk_and_host,
    _group_and_role,
)

Asked = tuple[EgressRequest, Context]


def events_of(count: int, seed: int) -> tuple[Asked, ...]:
    """Make requests that differ in host, path, method, time, roles, risk, level, labels."""
    dice = random.Random(seed)
    return tuple((_event(number, dice), _context(dice)) for number in range(count))


def _event(number: int, dice: random.Random) -> EgressRequest:
    host = dice.choice((f"h{dice.randrange(60)}.example.com", f"a.x{dice.randrange(40)}.example"))
    return EgressRequest(
        event_id="e",
        time_ns=_BEGIN_NS + number * 1_000 * 10**9,
        principal=WHO,
        scheme="https",
        method=dice.choice(("GET", "GET", "POST", "PUT")),
        host=parse_host(host),
        port=dice.choice((443, 443, 443, 8443)),
        target="/",
        path=dice.choice((f"/api/v{dice.randrange(60)}/x", f"/p{dice.randrange(300)}/abc",
                          "/v1/messages", "/")),
        query="",
        headers=((b"content-type", b"application/json"),),
        http_version="1.1",
    )  # fmt: skip


def _context(dice: random.Random) -> Context:
    return Context(
        claims=Claims(
            roles=(f"role{dice.randrange(60)}", "dev"),
            groups=(f"g{dice.randrange(60)}-x", "all"),
            mfa_verified=dice.random() < 0.9,
        ),
        resource=Resource(classification=dice.choice((Level.PUBLIC, Level.INTERNAL,
                                                      Level.INTERNAL, Level.SECRET))),
        session=Session(labels=(f"lab{dice.randrange(60)}",),
                        risk_score=round(dice.random() * 0.6, 4)),
    )  # fmt: skip


def facts_of(asked: Asked) -> dict[str, object]:
    """Return what the rules read, by the dotted names, for an engine that is given values."""
    event, context = asked
    level = context.resource.classification
    return {
        "request.action": event.action,
        "request.host": event.host.name,
        "request.port": event.port,
        "request.method": event.method,
        "request.path": event.path,
        "request.time": datetime.fromtimestamp(event.time_ns // 10**9, UTC),
        "request.user.roles": list(context.claims.roles or ()),
        "request.user.groups": list(context.claims.groups or ()),
        "request.user.mfa_verified": context.claims.mfa_verified,
        "request.resource.classification": "" if level is None else level.word,
        "session.labels": list(context.session.labels or ()),
        "session.risk_score": context.session.risk_score,
    }


def nested(facts: Mapping[str, object]) -> dict[str, object]:
    """Return facts as maps in maps."""
    made: dict[str, object] = {}
    for name, value in facts.items():
        *path, last = name.split(".")
        below = made
        for part in path:
            below = below.setdefault(part, {})  # type: ignore[assignment]
        below[last] = value
    return made


def cedar_request(asked: Asked) -> dict[str, object]:
    """Return the event as Cedar takes it; a risk is a decimal of four places there."""
    event, context = asked
    facts = facts_of(asked)
    risk = Decimal(str(context.session.risk_score)).quantize(Decimal("0.0001"))
    return {
        "principal": 'User::"u"',
        "action": f'Action::"{event.action}"',
        "resource": f'Host::"{event.host.name}"',
        "context": {
            "host": event.host.name,
            "port": event.port,
            "method": event.method,
            "path": event.path,
            "hours": datetime.fromtimestamp(event.time_ns // 10**9, UTC).hour,
            "roles": facts["request.user.roles"],
            "groups": facts["request.user.groups"],
            "mfa": facts["request.user.mfa_verified"],
            "classification": facts["request.resource.classification"],
            "labels": facts["session.labels"],
            "risk": {"__extn": {"fn": "decimal", "arg": f"{risk}"}},
        },
    }


def policy_text(rules: Sequence[Written]) -> str:
    """Return a policy that allows the hosts of the events and has these rules."""
    lines = [
        'version: "1.2.0"\nname: bench\nguards:\n  secret_leak: {enabled: false}\n'
        '  egress_allowlist:\n    allow: ["*.example.com:443", "*.example.com:8443",'
        ' "*.example:443", "*.example:8443"]\n' + ("rules:\n" if rules else "")
    ]
    for rule in rules:
        actions = f", actions: [{', '.join(rule.actions)}]" if rule.actions else ""
        lines.append(
            f"  - policy_id: {rule.policy_id}\n"
            f'    rule: {{condition: "{rule.condition}", effect: DENY{actions}}}\n'
        )
    return "".join(lines)
