"""Does one host rule say all that another says? And if not: a host and port as witness.

``covers`` is sound, not complete: where it says yes, every host and port of the inner
rule is one of the outer. Where it says no, a witness is looked for among samples and
confirmed by the index that decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from aesp_proxy.decide.policy.hosts import HostIndex, HostRule, names_address
from aesp_proxy.decide.policy.wild import covers_word, sample_word
from aesp_proxy.model.address import AddressClass, classify
from aesp_proxy.model.host import Host

WEB_PORTS: Final = frozenset({80, 443})
_ODD_PORT: Final = 4443
_SPECIAL_PREFIX_MIN: Final = 7  # as the guard has it: wider networks name public addresses only
_SAMPLE_ANY: Final = "witness.example"
_SAMPLE_LABELS_MAX: Final = 3


def covers(outer: HostRule, inner: HostRule, *, every_port: bool = False) -> bool:
    """Tell whether every host and port that ``inner`` allows is one that ``outer`` allows.

    ``every_port`` reads both as a list that blocks does: a rule without a port is of every
    port, a network is of all its addresses.
    """
    if not _covers_ports(outer, inner, every_port=every_port):
        return False
    if every_port and outer.network is not None and inner.network is not None:
        return _within(outer.network, inner.network)
    return _covers_names(outer, inner)


class HostCover:
    """An allow list that others are compared with."""

    __slots__ = ("_index",)

    def __init__(self, outers: Iterable[HostRule]) -> None:
        self._index = HostIndex(outers, ports_without=WEB_PORTS, any_is_address=False)

    def uncovered(self, inner: HostRule) -> tuple[Host, int] | None:
        """Return a host and port that ``inner`` allows and the list does not; None when covered.

        What covers a rule names every host of it, so only the rules that name a sample are
        compared.
        """
        hosts, ports = tuple(hosts_of(inner)), ports_of(inner)
        own = HostIndex((inner,), ports_without=WEB_PORTS, any_is_address=False)
        for host in hosts:
            for port in ports:
                # A wide network does not name the special addresses that lie in it.
                if _allows(own, host, port) and not _allows(self._index, host, port):
                    return host, port
        near = tuple(self._index.naming(hosts[0]))
        for port in ports:
            if not any(covers(outer, _at(inner, port)) for outer in near):
                # Every sample is allowed, and it could not be shown for the rest.
                return hosts[0], port
        return None


def uncovered(inner: HostRule, outers: Sequence[HostRule]) -> tuple[Host, int] | None:
    """Return a host and port that ``inner`` allows and none of ``outers``; None when covered."""
    return HostCover(outers).uncovered(inner)


def ports_of(rule: HostRule) -> tuple[int, ...]:
    """Return the ports that an entry of an allow list speaks of; one odd one more for all."""
    match rule.port:
        case None:
            return (443, 80)
        case 0:
            return (443, 80, _ODD_PORT)
        case port:
            return (port,)


def hosts_of(rule: HostRule) -> Iterator[Host]:
    """Yield hosts that a rule names, at least one."""
    if rule.network is not None:
        yield from _addresses(rule.network)
    elif rule.name:
        yield Host(rule.name)
    elif rule.suffix:
        yield Host(f"witness.{rule.suffix}")
        yield Host(f"a.witness.{rule.suffix}")
    elif rule.labels:
        for number in range(_SAMPLE_LABELS_MAX):
            yield Host(".".join(sample_word(label, number) for label in rule.labels))
    else:
        yield Host(_SAMPLE_ANY)


def overlaps(one: HostRule, other: HostRule) -> bool:
    """Tell whether some host is named by both, as far as samples show; ports do not count."""
    if _covers_names(one, other) or _covers_names(other, one):
        return True
    index = HostIndex((one,), ports_without=None, any_is_address=True)
    return any(next(index.naming(host), None) is not None for host in hosts_of(other))


def _at(rule: HostRule, port: int) -> HostRule:
    """Return the rule for one of its ports; a rule for every port stays one."""
    if rule.port == 0:
        return rule
    return HostRule(
        text=rule.text,
        source=rule.source,
        port=port,
        name=rule.name,
        suffix=rule.suffix,
        labels=rule.labels,
        network=rule.network,
    )


def _allows(index: HostIndex, host: Host, port: int) -> bool:
    if host.address is None:
        return index.find(host, port) is not None
    return any(
        rule.covers(port, WEB_PORTS) and names_address(rule, host.address)
        for rule in index.naming(host)
    )


def _addresses(network: IPv4Network | IPv6Network) -> Iterator[Host]:
    size = network.num_addresses
    for offset in dict.fromkeys((size // 2, 0, size - 1, min(1, size - 1), size // 3)):
        address = network[offset]
        yield Host(str(address), address)


def _covers_ports(outer: HostRule, inner: HostRule, *, every_port: bool) -> bool:
    if outer.port == 0 or (every_port and outer.port is None):
        return True
    if inner.port == 0 or (every_port and inner.port is None):
        return False
    if outer.port is None:
        return inner.port is None or inner.port in WEB_PORTS
    return inner.port == outer.port


def _covers_names(outer: HostRule, inner: HostRule) -> bool:
    if inner.network is not None:
        return outer.network is not None and _covers_network(outer.network, inner.network)
    if outer.network is not None:
        return False
    if outer.name:
        return outer.name == inner.name
    if outer.suffix:
        return _below(outer.suffix, inner)
    if outer.labels:
        labels = inner.labels or tuple(inner.name.split("."))
        same_length = len(labels) == len(outer.labels)
        return (
            bool(inner.labels or inner.name)
            and same_length
            and all(map(covers_word, outer.labels, labels))
        )
    return True


def _below(suffix: str, inner: HostRule) -> bool:
    """Tell whether all that a rule names are sub-domains of ``suffix``."""
    if inner.name:
        return inner.name.endswith(f".{suffix}")
    if inner.suffix:
        return inner.suffix == suffix or inner.suffix.endswith(f".{suffix}")
    tail = tuple(suffix.split("."))
    return len(inner.labels) > len(tail) and inner.labels[-len(tail) :] == tail


def _covers_network(outer: IPv4Network | IPv6Network, inner: IPv4Network | IPv6Network) -> bool:
    """Compare as the guard does: a wide network names the public addresses in it only."""
    if not _within(outer, inner):
        return False
    first, last = classify(inner[0]), classify(inner[-1])
    special = first is last and first is not AddressClass.PUBLIC
    if not special or inner.prefixlen < _SPECIAL_PREFIX_MIN:
        return True
    narrow = outer.prefixlen >= _SPECIAL_PREFIX_MIN
    return narrow and classify(outer[0]) is first and classify(outer[-1]) is first


def _within(outer: IPv4Network | IPv6Network, inner: IPv4Network | IPv6Network) -> bool:
    if isinstance(outer, IPv4Network):
        return isinstance(inner, IPv4Network) and inner.subnet_of(outer)
    return isinstance(inner, IPv6Network) and inner.subnet_of(outer)
