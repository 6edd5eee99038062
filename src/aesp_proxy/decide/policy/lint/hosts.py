"""The egress lists: entries that are too broad, that are blocked, or that say nothing new."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Network
from typing import Final

from aesp_proxy.decide.policy.cover_hosts import covers, hosts_of, ports_of
from aesp_proxy.decide.policy.hosts import HostIndex, HostRule
from aesp_proxy.decide.policy.lint.checks import told
from aesp_proxy.decide.policy.lint.finding import FindingLevel, LintFinding, Related
from aesp_proxy.decide.policy.lint.subject import Subject
from aesp_proxy.decide.policy.policy import Effect
from aesp_proxy.decide.policy.selectors import SelectorKind
from aesp_proxy.model.decision import Verdict

_PREFIX_MIN: Final = {4: 8, 6: 7}
_REGISTRIES: Final = frozenset(
    f"{second}.{country}"
    for country in (
        "uk", "jp", "kr", "nz", "za", "in", "id", "th", "il", "br", "au", "cn", "tr", "mx", "sg",
        "hk", "tw",
    )
    for second in ("co", "com", "org", "net", "ac", "gov", "edu", "or", "ne", "go")
)  # fmt: skip
# Well-known names below which anybody gets one; by far not the whole Public Suffix List.
_TENANTS: Final = frozenset({
    "github.io", "gitlab.io", "githubpreview.dev", "app.github.dev", "pages.dev", "workers.dev",
    "trycloudflare.com", "netlify.app", "vercel.app", "now.sh", "herokuapp.com", "onrender.com",
    "fly.dev", "railway.app", "surge.sh", "glitch.me", "repl.co", "replit.app", "replit.dev",
    "web.app", "firebaseapp.com", "firebaseio.com", "appspot.com", "run.app", "cloudfunctions.net",
    "amazonaws.com", "s3.amazonaws.com", "execute-api.us-east-1.amazonaws.com", "cloudfront.net",
    "elasticbeanstalk.com", "awsapprunner.com", "amplifyapp.com", "on.aws", "azurewebsites.net",
    "azurestaticapps.net", "blob.core.windows.net", "core.windows.net", "cloudapp.net",
    "cloudapp.azure.com", "azureedge.net", "azurefd.net", "trafficmanager.net",
    "digitaloceanspaces.com",
    "ondigitalocean.app", "ngrok.io", "ngrok.app", "ngrok-free.app", "loca.lt", "serveo.net",
    "blogspot.com", "wordpress.com", "tumblr.com", "medium.com", "substack.com", "notion.site",
    "myshopify.com", "wixsite.com", "weebly.com", "readthedocs.io", "hf.space", "streamlit.app",
    "supabase.co", "deno.dev", "duckdns.org", "no-ip.org", "nip.io", "sslip.io", "r2.dev",
    "backblazeb2.com", "atlassian.net", "zendesk.com", "slack.com", "sharepoint.com",
    "my.salesforce.com", "pipedream.net", "oast.fun", "oast.pro", "interact.sh",
})  # fmt: skip


def look_at_hosts(subject: Subject) -> Iterator[LintFinding]:
    """Yield what is wrong with ``egress_allowlist`` and where secrets may go."""
    section = subject.policy.egress
    if section is None:
        return
    for rule in section.allow:
        yield from _broad(subject, rule)
    yield from _default(subject, section.default_verdict)
    yield from _allowed(subject, section.allow, section.block)
    yield from _blocked(subject, section.block)
    if section.default_verdict is Verdict.DENY and not _rules_allow_egress(subject):
        yield from _secrets(subject, section.allow)


def request_to(rule: HostRule) -> dict[str, object]:
    """Return the facts of a connection that an entry names."""
    host = next(hosts_of(rule))
    return {"request": {"action": "tcp.connect", "host": host.name, "port": ports_of(rule)[0]}}


def covers_host(outer: HostRule, inner: HostRule) -> bool:
    """Tell whether an entry that refuses, or a resource, names all that another does.

    An entry without a port is one of every port here, and ``*`` names addresses too.
    """
    if outer.port not in (None, 0) and outer.port != inner.port:
        return False
    if not (outer.name or outer.suffix or outer.labels or outer.network):
        return True
    return covers(_of_every_port(outer), inner)


@lru_cache(maxsize=10_000)
def _of_every_port(rule: HostRule) -> HostRule:
    return replace(rule, port=0)


def _broad(subject: Subject, rule: HostRule) -> Iterator[LintFinding]:
    where = subject.at(rule.source, rule.text)
    witness = request_to(rule)
    network = rule.network
    if network is not None:
        if network.prefixlen < _PREFIX_MIN[network.version]:
            kind = "IPv4" if isinstance(network, IPv4Network) else "IPv6"
            part = "every" if network.prefixlen == 0 else f"1 in {2**network.prefixlen} of every"
            yield told("host-too-broad", f"{rule.text} allows {part} public {kind} address",
                       where, witness=witness)  # fmt: skip
        return
    if rule.name:
        return
    if rule.suffix in _TENANTS:
        message = f"{rule.text} allows a name that anybody can get below {rule.suffix}"
        yield told("host-multi-tenant", message, where, witness=witness)
        return
    end = rule.suffix or ".".join(rule.labels[-2:])
    what = _what_is_broad(rule, end)
    if what:
        yield told("host-too-broad", f"{rule.text} allows {what}", where, witness=witness)


def _what_is_broad(rule: HostRule, end: str) -> str:
    if not end:
        return "every host name there is"
    if rule.suffix:
        broad = "." not in end or end in _REGISTRIES
        return f"every name below .{end}" if broad else ""
    last = rule.labels[-1]
    if "*" in last or "?" in last:
        return "names under more than one top-level domain"
    return f"every domain of .{last}" if rule.labels[-2] == "*" else ""


def _default(subject: Subject, verdict: Verdict) -> Iterator[LintFinding]:
    yield from default_action(subject, "egress_allowlist", verdict, "host name")


def default_action(
    subject: Subject, guard: str, verdict: Verdict, noun: str
) -> Iterator[LintFinding]:
    """Yield what is told of a guard whose ``default_action`` lets pass."""
    if not verdict.passes:
        return
    place = subject.key("guards", guard, "default_action") or subject.key("guards", guard)
    word = "allow" if verdict is Verdict.ALLOW else "log"
    level = None if verdict is Verdict.ALLOW else FindingLevel.NOTE
    recorded = "" if verdict is Verdict.ALLOW else ", and records it"
    message = (
        f"{guard}.default_action is {word}: every {noun} that no entry blocks passes{recorded}"
    )
    yield told("default-allows", message, place or subject.policy.where, level=level)


def _allowed(
    subject: Subject, allow: Sequence[HostRule], block: Sequence[HostRule]
) -> Iterator[LintFinding]:
    among, blocked = _Named(allow), _Named(block)
    for rule in allow:
        where = subject.at(rule.source, rule.text)
        dead = next((other for other in blocked.like(rule) if covers_host(other, rule)), None)
        if dead is not None:
            yield told("allow-blocked", f"{rule.text} is allowed, and {dead.text} blocks it",
                       where, Related(source=dead.source, text=f"blocked by {dead.text}"),
                       witness=request_to(rule))  # fmt: skip
            continue
        other = among.covering(rule, every_port=False)
        if other is not None:
            yield told("allow-redundant", f"{rule.text} is allowed by {other.text} already", where,
                       Related(source=other.source, text=f"covered by {other.text}"))  # fmt: skip


def _blocked(subject: Subject, block: Sequence[HostRule]) -> Iterator[LintFinding]:
    among = _Named(block)
    for rule in block:
        other = among.covering(rule, every_port=True)
        if other is not None:
            yield told("block-redundant", f"{rule.text} is blocked by {other.text} already",
                       subject.at(rule.source, rule.text),
                       Related(source=other.source, text=f"covered by {other.text}"))  # fmt: skip


class _Named:
    """Entries by a host that they name: what covers an entry names each host of it."""

    def __init__(self, rules: Sequence[HostRule]) -> None:
        self._index = HostIndex(rules, ports_without=None, any_is_address=True)
        self._order = {id(rule): number for number, rule in enumerate(rules)}

    def like(self, rule: HostRule) -> list[HostRule]:
        """Return the entries that may cover one, in their order."""
        naming = self._index.naming(next(hosts_of(rule)))
        return sorted(naming, key=lambda other: self._order[id(other)])

    def covering(self, rule: HostRule, *, every_port: bool) -> HostRule | None:
        """Return another entry that covers one; of two that say the same, the first covers."""
        for other in self.like(rule):
            if other is rule or not covers(other, rule, every_port=every_port):
                continue
            first = self._order[id(other)] < self._order[id(rule)]
            if first or not covers(rule, other, every_port=every_port):
                return other
        return None


def _rules_allow_egress(subject: Subject) -> bool:
    kinds = (SelectorKind.EGRESS, SelectorKind.ANY)
    return any(
        rule.effect is Effect.ALLOW and any(each.kind in kinds for each in rule.selectors)
        for rule in subject.rules.rules
    )


def _secrets(subject: Subject, allow: Sequence[HostRule]) -> Iterator[LintFinding]:
    """Yield the hosts of credentials and of actions that no entry allows."""
    section = subject.policy.secrets
    named = [("credential-unreachable", one.rule.value, one.hosts) for one in section.credentials]
    named += [("action-unreachable", one.rule.value, one.hosts) for one in section.actions]
    for check, rule, hosts in named:
        for host in hosts:
            if any(hosts_may_meet(host, other) for other in allow):
                continue
            message = f"{rule[:80]} may go to {host.text}, which no entry allows"
            if check == "action-unreachable":
                message = f"an action for {rule[:80]} names {host.text}, which no entry allows"
            yield told(check, message, subject.at(host.source, host.text),
                       witness=request_to(host))  # fmt: skip


def hosts_may_meet(one: HostRule, other: HostRule) -> bool:
    """Tell whether two entries could name one host, whatever the port; no is always right."""
    one, other = _of_every_port(one), _of_every_port(other)
    if covers_host(one, other) or covers_host(other, one):
        return True
    if one.network is not None or other.network is not None:
        return False
    return bool(one.labels and not other.name) or bool(other.labels and not one.name)
