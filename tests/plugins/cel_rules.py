"""Random rules that lean on the index, random attempts, and the facts of one taken by hand."""

from __future__ import annotations

import json
import random
from ipaddress import ip_address

from aesp_proxy.decide.policy.policy import Effect, RuleItem
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.model.context import Claims, Context, Contract, Level, Resource, Session
from aesp_proxy.model.decision import Finding, Severity
from aesp_proxy.model.event import (
    DnsQuery,
    EgressConnect,
    EgressRequest,
    Event,
    FileAccess,
    FileOperation,
    ToolCall,
)
from aesp_proxy.model.host import parse_host
from aesp_proxy.model.principal import Principal

HOSTS = ("a.example", "b.example", "x.a.example", "10.1.2.3", "192.168.0.7")
PATHS = ("/", "/api/v1/x", "/api/v2/y", "/p7/abc", "/a.txt")
FILES = ("/repo/a.txt", "/repo/b.py", "/etc/passwd", "/repo/é/\udcff")
ROLES = ("dev", "admin", "ops", "qa")
NETWORKS = ("10.0.0.0/8", "192.168.0.0/16", "10.1.2.3", "fd00::/8", "::/0")
LEVELS = tuple(level.word for level in Level)
ACTIONS = (
    "http.get",
    "http.post",
    "http.*",
    "tcp.connect",
    "dns.query",
    "file.open",
    "file.*",
    "tool.call",
)
RESOURCES = ("egress:a.example", "egress:*.example", "egress:*", "egress:a.example:8443",
             "egress:10.0.0.0/8", "file:/repo/**", "file:**/*.py", "file:/etc/PASSWD", "tool:*",
             "tool:files/read", "tool:*/write", "*")  # fmt: skip
TOOLS = (("files", "read"), ("files", "write"), ("FILES", "Read"), ("", "sh"))


def quoted(options: tuple[str, ...], chance: random.Random, at_most: int = 3) -> str:
    """Return a list of texts, written out."""
    return "[" + ", ".join(f"'{chance.choice(options)}'"
                           for _ in range(chance.randrange(1, at_most + 1))) + "]"  # fmt: skip


def atom(chance: random.Random) -> str:
    """Draw what an index may decide: one question about one fact."""
    sign = chance.choice(("<", "<=", ">", ">="))
    number = chance.choice((0, 1, 80, 443, 1000))
    share = chance.choice(("0.0", "0.25", "0.5", "1.0"))
    role, host, level = chance.choice(ROLES), chance.choice(HOSTS), chance.choice(LEVELS)
    text = chance.choice(("request.host", "request.path", "request.user.id", "request.method",
                          "request.resource.path", "tool.name", "request.sni",
                          "request.headers['accept']", "request.host.lowerAscii()"))  # fmt: skip
    same = chance.choice(("==", "!="))
    word = chance.choice(("GET", "POST", "/api", "a", "alice", "read", ".example", "", host))
    bound = chance.choice(("request.port", "session.egress_count", "request.size",
                           "size(session.labels)", "request.time.getHours()",
                           "session.denials"))  # fmt: skip
    listed = chance.choice(("request.user.roles", "session.labels", "request.resource.labels"))
    address = chance.choice(("request.source_ip", "request.destination_ip"))
    secrecy = chance.choice(("request.user.security_clearance", "request.resource.classification"))
    flag = chance.choice(("request.user.mfa_verified", "has(request.user.mfa_verified)",
                          "has(session.labels)", "has(request.sni)"))  # fmt: skip
    return chance.choice((
        f"{text} {same} '{word}'", f"'{word}' == {text}",
        f"{text} in {quoted((*HOSTS, 'GET', 'alice', 'read'), chance)}",
        f"{text}.startsWith('{word}')", f"{text}.endsWith('{word}')", f"{text}.contains('{word}')",
        f"{text}.matches('{chance.choice(('^/api', 'e$', '[0-9]+', '^$', 'A', '(?i)A'))}')",
        f"{bound} {sign} {number}", f"{number} {sign} {bound}", f"{bound} {same} {number}",
        f"{bound} in [{number}, 443]", f"session.risk_score {sign} {share}",
        f"request.port {sign} {share}", f"session.risk_score {same} {share}",
        f"'{role}' in {listed}", f"{listed}.exists(r, r == '{role}')", f"{listed}.size() == 2",
        f"has_label({listed}, '{role}')", f"{listed}.exists(r, r.startsWith('{role[0]}'))",
        f"{listed}.all(r, r != '{role}')", f"{listed}.exists_one(r, r == '{role}')",
        f"'{role}' in [request.user.id, 'dev']", f"{listed} == ['{role}']",
        f"{address} in {quoted(NETWORKS, chance)}", f"{address} {same} '10.1.2.3'",
        f"cidr_contains('{chance.choice(NETWORKS)}', {address})",
        "cidr_contains('10.0.0.0/8', request.host)",
        f"{secrecy} {sign} '{level}'", f"{secrecy} {same} '{level}'",
        f"{secrecy} in {quoted(LEVELS, chance)}",
        "request.user.security_clearance >= request.resource.classification",
        flag, flag, f"{flag} {same} {chance.choice(('true', 'false'))}",
        "request.resource.estimated_cost <= request.user.spending_limit",
        "request.time >= timestamp('2023-11-14T22:13:20Z')",
        "request.time.getHours('Europe/Berlin') >= 9",
        "tool.arguments.n == 1", "has(tool.arguments.n)", "tool.arguments.n > 1",
        f"findings.exists(f, f.severity == '{chance.choice(('error', 'warning'))}')",
        "glob('/repo/**', request.resource.path)", "host_matches('*.example', request.host)",
        "1 / session.egress_count == 1", "1.0 / session.risk_score > 2.0", "true", "false",
        "session.egress_count / 0 == 1",
    ))  # fmt: skip


def condition(chance: random.Random, depth: int = 2) -> str:
    """Draw a condition: atoms under ``&&``, ``||``, ``!`` and ``?:``."""
    if depth == 0 or chance.random() < 0.25:
        drawn = atom(chance)
        return f"!({drawn})" if chance.random() < 0.25 else drawn
    parts = [condition(chance, depth - 1) for _ in range(chance.randrange(2, 4))]
    roll = chance.random()
    if roll < 0.6:
        return " && ".join(f"({part})" for part in parts)
    if roll < 0.92:
        return " || ".join(f"({part})" for part in parts)
    if roll < 0.96:
        return f"!({parts[0]})"
    return f"({parts[0]}) ? ({parts[1]}) : ({parts[-1]})"


def rule(chance: random.Random, number: int) -> RuleItem:
    """Draw a rule."""
    effect = chance.choice(tuple(Effect))
    some = range(chance.choice((0, 0, 1, 2)))
    actions = [chance.choice(ACTIONS) for _ in some]
    resources = [chance.choice(RESOURCES) for _ in range(chance.choice((0, 0, 1, 2)))]
    if effect is Effect.ALLOW and not resources:
        resources = ["*"]
    return RuleItem(
        policy_id=Sourced(f"r{number}", f"p.yaml:{number + 1}"),
        version="",
        description="",
        applies_to=tuple(Sourced(each, "p.yaml:1") for each in resources),
        enabled=chance.random() < 0.95,
        condition=Sourced(condition(chance), f"p.yaml:{number + 1}"),
        effect=effect,
        actions=tuple(Sourced(each, "p.yaml:1") for each in actions),
        parameters=(),
    )


def event(chance: random.Random) -> Event:
    """Draw an attempt."""
    who = Principal(
        principal_id=chance.choice(("alice", "")), agent_id="a", agent_type="", session_id="s",
        source_ip=chance.choice(("10.1.2.3", "", "fd00::1", "::ffff:10.9.9.9", "8.8.8.8")),
    )  # fmt: skip
    plain = {"event_id": "e", "principal": who,
             "time_ns": (1_700_000_000 + chance.randrange(90_000)) * 10**9}  # fmt: skip
    host, port = parse_host(chance.choice(HOSTS)), chance.choice((80, 443, 8443))
    roll = chance.randrange(5)
    if roll < 2:
        headers = ((b"accept", b"a"), (b"x", b"1"), (b"accept", b"b"))[: chance.randrange(4)]
        path = chance.choice(PATHS)
        return EgressRequest(
            **plain, scheme="https", method=chance.choice(("GET", "POST", "BREW")), host=host,
            port=port, target=path, path=path, query="", headers=headers, http_version="1.1",
            sni=chance.choice(("", "a.example")), content_length=chance.choice((None, 0, 1000)),
        )  # fmt: skip
    if roll == 2 and host.address is None and chance.random() < 0.5:
        return DnsQuery(**plain, host=host, record_type="A")
    if roll == 2:
        return EgressConnect(**plain, host=host, port=port)
    if roll == 3:
        path, resolved = chance.choice(FILES), chance.choice(FILES)
        return FileAccess(**plain, operation=chance.choice(tuple(FileOperation)), path=path,
                          resolved=chance.choice((path, resolved)),
                          content=chance.choice((None, b"xy")))  # fmt: skip
    server, name = chance.choice(TOOLS)
    arguments = chance.choice((b"", b"{}", b'{"n": 1}', b'{"n": "1"}', b"[1]", b"{", b'{"n": 1.5}'))
    return ToolCall(**plain, server=server, name=name, arguments=arguments)


def context(chance: random.Random) -> Context:
    """Draw what surrounds it, much of it unknown."""

    def maybe[T](*options: T) -> T | None:
        return chance.choice(options) if chance.random() < 0.75 else None

    def words() -> tuple[str, ...] | None:
        return maybe(tuple(chance.choice(ROLES) for _ in range(chance.randrange(3))))

    return Context(
        claims=Claims(
            roles=words(), mfa_verified=maybe(True, False),
            security_clearance=maybe(*Level), spending_limit=maybe(0.0, 10.0),
        ),
        resource=Resource(
            classification=maybe(*Level), labels=words(),
            estimated_cost=maybe(5.0, 20.0, float("nan")),
        ),
        session=Session(
            labels=words(), risk_score=maybe(0.0, 0.25, 0.5, 1.0, float("nan")),
            egress_count=maybe(0, 1, 5, 2**63 - 1), denials=maybe(0, 3),
        ),
        contract=Contract(version=maybe("1")),
    )  # fmt: skip


def findings(chance: random.Random) -> tuple[Finding, ...]:
    """Draw what was found."""
    options = (Severity.ERROR, Severity.WARNING)
    return tuple(
        Finding(
            rule="key",
            severity=chance.choice(options),
            location="body",
            offset=0,
            masked="",
            fingerprint="",
        )
        for _ in range(chance.randrange(2))
    )


def facts(event: Event, context: Context, found: tuple[Finding, ...]) -> dict[str, object]:
    """Take by hand the facts that the rules above read; what is unknown is left out."""
    claims, session = context.claims, context.session
    known: dict[str, object] = {
        "request.action": event.action,
        "request.time": event.time_ns,
        "request.user.id": event.principal.principal_id or None,
        "request.user.roles": claims.roles,
        "request.user.mfa_verified": claims.mfa_verified,
        "request.user.security_clearance": claims.security_clearance,
        "request.user.spending_limit": claims.spending_limit,
        "request.resource.classification": context.resource.classification,
        "request.resource.labels": context.resource.labels,
        "request.resource.estimated_cost": context.resource.estimated_cost,
        "session.labels": session.labels,
        "session.risk_score": session.risk_score,
        "session.egress_count": session.egress_count,
        "session.denials": session.denials,
        "findings": tuple({"rule": f.rule, "severity": f.severity.word, "location": f.location}
                          for f in found),
    }  # fmt: skip
    source = event.principal.source_ip
    if source:
        parsed = ip_address(source.removeprefix("::ffff:"))
        known["request.source_ip"] = parsed
    if isinstance(event, EgressRequest | EgressConnect):
        known.update({"request.host": event.host.name, "request.port": event.port,
                      "request.destination_ip": event.host.address})  # fmt: skip
    match event:
        case DnsQuery():
            known["request.host"] = event.host.name
        case EgressRequest():
            headers: dict[str, str] = {}
            for name, value in event.headers:
                text = headers.get(name.decode())
                headers[name.decode()] = (
                    value.decode() if text is None else f"{text}, {value.decode()}"
                )
            known.update({"request.method": event.method, "request.path": event.path,
                          "request.sni": event.sni or None, "request.headers": headers,
                          "request.size": event.content_length})  # fmt: skip
        case FileAccess():
            known["request.resource.path"] = event.resolved
            known["request.size"] = None if event.content is None else len(event.content)
        case ToolCall():
            known.update({"tool.server": event.server, "tool.name": event.name,
                          "request.size": len(event.arguments)})  # fmt: skip
            if event.arguments not in (b"", b"{"):
                known["tool.arguments"] = json.loads(event.arguments)
    return {name: value for name, value in known.items() if value is not None}
