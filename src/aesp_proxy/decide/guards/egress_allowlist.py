"""Where the agent may connect: block beats allow, then ``default_action``.

Rules (threat rows 3, 7, 8, 11, 30): a raw address is allowed only by a rule that names
addresses, never by a wildcard or the default; a rule without a port allows 80 and 443
and blocks every port; the default speaks for 80 and 443 only. Bytes that are neither TLS nor
HTTP pass only by a rule that says its port, and never to 80 and 443, where requests are
expected and read. Answers that let pass are made once, with the policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from aesp_proxy.decide.answer import Answer
from aesp_proxy.decide.policy.hosts import HostIndex, HostRule, names_address
from aesp_proxy.decide.policy.policy import EgressSection
from aesp_proxy.model.address import AddressClass, classify, embedded_ipv4
from aesp_proxy.model.decision import Reason, Severity, Verdict
from aesp_proxy.model.event import DnsQuery, EgressConnect, EgressRequest, Event, NetworkAccess
from aesp_proxy.model.host import Host

WEB_PORTS: Final = frozenset({80, 443})
_SECTION: Final = "guards.egress_allowlist"
_DO_NOT_RETRY: Final = "Do not retry: the answer stays the same until the policy changes."

_Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class EgressAllowlist:
    """Built by :func:`egress_allowlist`; answers for connections and requests."""

    allow: HostIndex
    block: HostIndex
    section: EgressSection
    passes: dict[str, Answer]
    default: Answer | None
    name: str = "egress_allowlist"
    grants: bool = True

    def check(self, event: Event) -> Answer | None:
        """Answer for the kinds of event that go out."""
        match event:
            case EgressConnect(raw=True):
                return self.answer_raw(event.host, event.port)
            case EgressRequest() | EgressConnect() | NetworkAccess():
                return self.answer(event.host, event.port)
            case DnsQuery():
                return self.answer_name(event.host)
            case _:
                return None

    def answer(self, host: Host, port: int) -> Answer:
        """Answer for one host and port as they were asked for, before any resolving."""
        if host.address is not None:
            refused = self.answer_addresses(host, port, (host.address,))
            if refused is not None:
                return refused
            rule = self._address_rule(host.address, port)
            return self._no_address_rule(host, port) if rule is None else self.passes[rule.text]
        blocked = self.block.find(host, port)
        if blocked is not None:
            return _blocked(host, port, blocked)
        rule = self.allow.find(host, port)
        if rule is not None:
            return self.passes[rule.text]
        if self.default is not None and port in WEB_PORTS:
            return self.default
        return self._not_allowed(host, port)

    def answer_raw(self, host: Host, port: int) -> Answer:
        """Answer for bytes that nobody will read: a rule must say the port, and not a web port."""
        answer = self.answer(host, port)
        if not answer.verdict.passes:
            return answer
        for rule in self.allow.naming(host):
            means_it = host.address is None or names_address(rule, host.address)
            if means_it and rule.covers_raw(port, WEB_PORTS):
                return self.passes[rule.text]
        return self._raw_not_allowed(host, port)

    def answer_name(self, host: Host) -> Answer:
        """Answer for asking what a name's addresses are: some port of it must be open."""
        blocked = self._block_of(host, None)
        if blocked is not None:
            return _blocked(host, None, blocked)
        closed = {rule.port for rule in self.block.naming(host)}
        for rule in self.allow.naming(host):
            open_ports = WEB_PORTS if rule.port is None else {rule.port}
            if rule.port == 0 or open_ports - closed:
                return self.passes[rule.text]
        if self.default is not None and WEB_PORTS - closed:
            return self.default
        return self._not_allowed(host, None)

    def answer_addresses(
        self, host: Host, port: int | None, addresses: Sequence[_Address]
    ) -> Answer | None:
        """Refuse what a name has resolved to, or return None when every address may be dialled.

        One bad address among good ones refuses: a mixed answer is how rebinding looks.
        Without a port the name is only asked for: a rule of any port names an address then.
        """
        for address in addresses:
            for form in _forms(address):
                blocked = self._block_of(_address_host(form), port)
                if blocked is not None:
                    return _blocked(host, port, blocked, address)
            kind = classify(address)
            if kind is not AddressClass.PUBLIC and self._address_rule(address, port) is None:
                return self._address_forbidden(host, port, address, kind)
        return None

    def _block_of(self, host: Host, port: int | None) -> HostRule | None:
        if port is not None:
            return self.block.find(host, port)
        return next((rule for rule in self.block.naming(host) if rule.port in (None, 0)), None)

    def _address_rule(self, address: _Address, port: int | None) -> HostRule | None:
        for rule in self.allow.naming(_address_host(address)):
            covers = port is None or rule.covers(port, WEB_PORTS)
            if covers and names_address(rule, address):
                return rule
        return None

    def _address_forbidden(
        self, host: Host, port: int | None, address: _Address, kind: AddressClass
    ) -> Answer:
        place = f"{host}" if host.address is not None else f"{host} resolves to {address}, which"
        return Answer(
            verdict=Verdict.DENY,
            reason=Reason.ADDRESS_FORBIDDEN,
            severity=Severity.CRITICAL if kind is AddressClass.METADATA else Severity.ERROR,
            message=f"{place} is a {kind.words} address; no address rule names it",
            source=self.section.source,
            remediation=(_DO_NOT_RETRY, self._ask_for(_address_host(address), port)),
        )

    def _no_address_rule(self, host: Host, port: int) -> Answer:
        return Answer(
            verdict=Verdict.DENY,
            reason=Reason.ADDRESS_FORBIDDEN,
            severity=Severity.WARNING,
            message=f"{_with_port(host, port)} is a raw address; no address rule names it",
            source=self.section.source,
            remediation=(
                "Connect by host name: names are checked, raw addresses need a rule.",
                self._ask_for(host, port),
            ),
        )

    def _not_allowed(self, host: Host, port: int | None) -> Answer:
        other = next(iter(self.allow.naming(host)), None)
        if other is not None and port is None:
            message = f"every port of {host} that {other.text} allows is blocked"
            source = other.source
        elif other is not None:
            message = f"port {port} of {host} is not allowed; {other.text} allows {_ports(other)}"
            source = other.source
        else:
            message = f"{_with_port(host, port)} is on no allow list"
            source = self.section.source
        return Answer(
            verdict=Verdict.DENY,
            reason=Reason.HOST_NOT_ALLOWED,
            severity=Severity.WARNING,
            message=message,
            source=source,
            remediation=(_DO_NOT_RETRY, self._ask_for(host, port)),
            implicit=True,
        )

    def _raw_not_allowed(self, host: Host, port: int) -> Answer:
        place = _with_port(host, port)
        if port in WEB_PORTS:
            why = f"port {port} is for TLS and HTTP, which are read"
            ask = "A rule with effect ALLOW and the action tcp.connect can let it pass unread."
        else:
            why = "no allow entry says the port"
            ask = self._ask_for(host, port)
        return Answer(
            verdict=Verdict.DENY,
            reason=Reason.HOST_NOT_ALLOWED,
            severity=Severity.WARNING,
            message=f"neither TLS nor HTTP to {place}: {why}",
            source=self.section.source,
            remediation=(_DO_NOT_RETRY, ask),
            implicit=True,
        )

    def _ask_for(self, host: Host, port: int | None) -> str:
        entry = str(host) if port is None or port in WEB_PORTS else _with_port(host, port)
        file, _, line = self.section.allow_source.rpartition(":")
        return f"Ask the owner of {file} to add {entry} under {_SECTION}.allow (line {line})."


def egress_allowlist(section: EgressSection) -> EgressAllowlist:
    """Build the guard from its section of the policy."""
    passes = {
        rule.text: _pass(Verdict.ALLOW, f"allowed by {rule.text}", rule.source)
        for rule in reversed(section.allow)
    }
    default = None
    if section.default_verdict.passes:
        word = "allow" if section.default_verdict is Verdict.ALLOW else "log"
        default = _pass(
            section.default_verdict, f"on no list; default_action is {word}", section.source
        )
    return EgressAllowlist(
        allow=HostIndex(section.allow, ports_without=WEB_PORTS, any_is_address=False),
        block=HostIndex(section.block, ports_without=None, any_is_address=True),
        section=section,
        passes=passes,
        default=default,
    )


def _pass(verdict: Verdict, message: str, source: str) -> Answer:
    return Answer(
        verdict=verdict,
        reason=Reason.ALLOWED,
        severity=Severity.INFO,
        message=message,
        source=source,
    )


def _blocked(
    host: Host, port: int | None, rule: HostRule, address: _Address | None = None
) -> Answer:
    by_address = address is not None and address != host.address
    resolved = f" (it resolves to {address})" if by_address else ""
    file, _, line = rule.source.rpartition(":")
    return Answer(
        verdict=Verdict.DENY,
        reason=Reason.HOST_BLOCKED,
        severity=Severity.ERROR,
        message=f"{_with_port(host, port)} is blocked by {rule.text}{resolved}",
        source=rule.source,
        remediation=(
            _DO_NOT_RETRY,
            f"Ask the owner of {file} about {_SECTION}.block (line {line}).",
            "An allow entry does not lift a block.",
        ),
    )


def _forms(address: _Address) -> tuple[_Address, ...]:
    """Return an address and the IPv4 address that it carries, if any."""
    inner = embedded_ipv4(address) if isinstance(address, IPv6Address) else None
    return (address,) if inner is None else (address, inner)


def _address_host(address: _Address) -> Host:
    return Host(str(address), address)


def _with_port(host: Host, port: int | None) -> str:
    return f"{host}" if port is None else f"{host}:{port}"


def _ports(rule: HostRule) -> str:
    match rule.port:
        case None:
            return "80 and 443"
        case 0:
            return "every port"
        case port:
            return f"port {port}"
