"""Host rules: what an egress list may say, and the index that answers for all of it.

A rule is a name (``api.example.com``), every sub-domain of one (``*.example.com``, not
the apex), a pattern inside labels (``api-*.example.com``, ``api.*.example.com``: a
``*`` never crosses a dot), any name (``*``), an address or a network (``10.0.0.0/8``,
``fd00::/8``). It may end in a port (``api.example.com:8443``, ``[fd00::/8]:443``) or in
``:*``. Names are compared as canonical A-labels, networks by value.

The index answers in dictionary look-ups, one a label of the name; only patterns inside
labels are matched one by one, and only those whose last labels are those of the name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.errors import ConfigError, InputError
from aesp_proxy.model.address import AddressClass, classify
from aesp_proxy.model.host import Host, parse_host

_RULE_CHARS_MAX = 512
_PORT_MAX = 65_535
_SPECIAL_PREFIX_MIN = 7  # fc00::/7 is the widest special range that anybody means as a whole
_PATTERN_CHARS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_*?")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRule:
    """One entry of a list. ``port`` is None where none is named, 0 for ``:*``.

    Exactly one of ``name``, ``suffix``, ``labels``, ``network`` is set, or none for ``*``.
    """

    text: str
    source: str
    port: int | None
    name: str = ""
    suffix: str = ""
    labels: tuple[str, ...] = ()
    network: IPv4Network | IPv6Network | None = None

    def covers(self, port: int, ports_without: frozenset[int] | None) -> bool:
        """Tell whether the rule speaks of a port; ``ports_without`` holds where it names none.

        None for ``ports_without`` means every port.
        """
        if self.port is None:
            return ports_without is None or port in ports_without
        return self.port in (0, port)

    @property
    def fixed(self) -> str:
        """The last labels of a name that are as the rule says; all of them for a plain name."""
        return self.name or self.suffix or (_tail(self.labels) if self.labels else "")

    def covers_raw(self, port: int, never: frozenset[int]) -> bool:
        """Tell whether the rule opens a port for bytes that nobody reads.

        It must say the port, as a number or as ``:*``; ports in ``never`` it cannot open.
        """
        return self.port is not None and port not in never and self.port in (0, port)


def parse_host_rule(item: Sourced[str]) -> HostRule:
    """Parse one entry of an egress list; ``ConfigError`` with place and reason."""
    text = item.value
    if not text or len(text) > _RULE_CHARS_MAX:
        raise _refused(item, "empty" if not text else f"longer than {_RULE_CHARS_MAX} characters")
    if "://" in text:
        raise _refused(item, "a URL; write the host only")
    try:
        return _parse(text, item)
    except InputError as error:
        raise _refused(item, error.message.partition(" is refused: ")[2]) from None
    except ValueError as error:
        raise _refused(item, str(error)) from None


class HostIndex:
    """A list of rules, indexed.

    ``ports_without`` are the ports of a rule that names none (None: every port);
    ``any_is_address`` tells whether ``*`` speaks of raw addresses too.
    """

    __slots__ = (
        "_any",
        "_any_is_address",
        "_names",
        "_networks",
        "_patterns",
        "_ports_without",
        "_suffixes",
    )

    def __init__(
        self,
        rules: Iterable[HostRule],
        *,
        ports_without: frozenset[int] | None,
        any_is_address: bool,
    ) -> None:
        self._ports_without = ports_without
        self._any_is_address = any_is_address
        self._any: list[HostRule] = []
        self._names: dict[str, list[HostRule]] = {}
        self._suffixes: dict[str, list[HostRule]] = {}
        # by the labels after the last wildcard, so that few patterns are tried for a name
        self._patterns: dict[str, list[HostRule]] = {}
        # version -> length of prefix -> leading bits -> rules; longest prefix first
        self._networks: dict[int, dict[int, dict[int, list[HostRule]]]] = {4: {}, 6: {}}
        for rule in rules:
            self._place(rule).append(rule)
        for version, tables in self._networks.items():
            self._networks[version] = dict(sorted(tables.items(), reverse=True))

    def find(self, host: Host, port: int) -> HostRule | None:
        """Return a rule that covers host and port, the most exact first; None for none."""
        if host.address is not None or self._patterns or self._any:
            return self._first(self.naming(host), port)
        # The hot path: exact names and suffixes only, without a generator.
        name = host.name
        rules = self._names.get(name)
        found = self._first(rules, port) if rules is not None else None
        dot = name.find(".") if self._suffixes else -1
        while found is None and dot >= 0:
            rules = self._suffixes.get(name[dot + 1 :])
            if rules is not None:
                found = self._first(rules, port)
            dot = name.find(".", dot + 1)
        return found

    def _first(self, rules: Iterable[HostRule], port: int) -> HostRule | None:
        for rule in rules:
            if rule.covers(port, self._ports_without):
                return rule
        return None

    def naming(self, host: Host) -> Iterator[HostRule]:
        """Yield the rules that name the host, whatever the port, the most exact first."""
        if host.address is not None:
            yield from self._naming_address(host.address)
            return
        name = host.name
        yield from self._names.get(name, ())
        suffixes = self._suffixes
        dot = name.find(".")
        while dot >= 0:
            found = suffixes.get(name[dot + 1 :])
            if found is not None:
                yield from found
            dot = name.find(".", dot + 1)
        if self._patterns:
            yield from self._matching(name)
        yield from self._any

    def _matching(self, name: str) -> Iterator[HostRule]:
        labels = name.split(".")
        for start in range(1, len(labels) + 1):
            for rule in self._patterns.get(".".join(labels[start:]), ()):
                same_length = len(rule.labels) == len(labels)
                if same_length and all(map(_label_matches, rule.labels, labels)):
                    yield rule

    def _naming_address(self, address: IPv4Address | IPv6Address) -> Iterator[HostRule]:
        value, bits = int(address), address.max_prefixlen
        for prefix, table in self._networks[address.version].items():
            yield from table.get(value >> (bits - prefix), ())
        if self._any_is_address:
            yield from self._any

    def _place(self, rule: HostRule) -> list[HostRule]:
        network = rule.network
        if network is not None:
            table = self._networks[network.version].setdefault(network.prefixlen, {})
            leading = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
            return table.setdefault(leading, [])
        if rule.name:
            return self._names.setdefault(rule.name, [])
        if rule.suffix:
            return self._suffixes.setdefault(rule.suffix, [])
        if rule.labels:
            return self._patterns.setdefault(_tail(rule.labels), [])
        return self._any


def names_address(rule: HostRule, address: IPv4Address | IPv6Address) -> bool:
    """Tell whether an address rule is meant for an address of this class.

    For anything but a public address the network must lie in the class of the address
    as a whole: neither ``0.0.0.0/0`` nor ``169.254.0.0/16`` opens the metadata service
    by the way.
    """
    network = rule.network
    if network is None or network.version != address.version or address not in network:
        return False
    wanted = classify(address)
    if wanted is AddressClass.PUBLIC:
        return True
    narrow = network.prefixlen >= _SPECIAL_PREFIX_MIN
    return narrow and classify(network[0]) is wanted and classify(network[-1]) is wanted


def _refused(item: Sourced[str], why: str) -> ConfigError:
    return ConfigError(f"bad host pattern {item.value[:80]!a}: {why}", where=item.where)


def _parse(text: str, item: Sourced[str]) -> HostRule:
    body, port = _cut_port(text)
    if "/" in body:
        return HostRule(text=text, source=item.source, port=port, network=_network(body))
    if body == "*":
        return HostRule(text=text, source=item.source, port=port)
    if body.startswith("*.") and "*" not in body[2:] and "?" not in body:
        host = parse_host(body[2:])
        if host.address is not None:
            raise ValueError("a wildcard before an address")
        return HostRule(text=text, source=item.source, port=port, suffix=host.name)
    if "*" in body or "?" in body:
        return HostRule(text=text, source=item.source, port=port, labels=_labels(body))
    host = parse_host(body)
    if host.address is None:
        return HostRule(text=text, source=item.source, port=port, name=host.name)
    network = ip_network(host.address)
    return HostRule(text=text, source=item.source, port=port, network=network)


def _cut_port(text: str) -> tuple[str, int | None]:
    """Cut ``:PORT`` or ``:*`` off; a colon inside an IPv6 address is not one."""
    if text.startswith("["):
        inner, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("the bracket is not closed, or something other than a port follows")
        if ":" not in inner:
            raise ValueError("brackets are for IPv6 addresses")
        return inner, _port(rest[1:]) if rest else None
    address, slash, prefix = text.partition("/")
    if slash and ":" in address:
        if ":" in prefix:
            raise ValueError("an IPv6 network with a port stands in brackets: [fd00::/8]:443")
        return text, None
    if text.count(":") > 1:
        return text, None
    body, colon, port = text.partition(":")
    return body, _port(port) if colon else None


def _port(text: str) -> int:
    if text == "*":
        return 0
    good = text.isascii() and text.isdigit() and len(text) <= 5 and not text.startswith("0")
    if not good or int(text) > _PORT_MAX:
        raise ValueError("the port is not a number from 1 to 65535, or *")
    return int(text)


def _network(body: str) -> IPv4Network | IPv6Network:
    start, _, prefix = body.partition("/")
    host = parse_host(start)
    if host.address is None:
        raise ValueError("a path, or a network whose address is a name; write the host only")
    if not (prefix.isascii() and prefix.isdigit()) or len(prefix) > 3:
        raise ValueError("the length of the network is not a number")
    if (":" in start) != isinstance(host.address, IPv6Address):
        raise ValueError("an IPv4 network inside IPv6; write it as IPv4")
    network = ip_network((int(host.address), int(prefix)), strict=False)
    if network.version != host.address.version:  # a small IPv6 number reads as IPv4
        network = IPv6Network((int(host.address), int(prefix)), strict=False)
    if network.network_address != host.address:
        raise ValueError(f"bits are set beyond the length of the network; write {network}")
    return network


def _labels(body: str) -> tuple[str, ...]:
    body = body.lower().removesuffix(".")
    labels = tuple(body.split("."))
    if len(labels) < 2:
        raise ValueError("a '*' does not cross a dot, so this never matches; write *.NAME")
    for label in labels:
        if not label:
            raise ValueError("an empty label")
        if not _PATTERN_CHARS.issuperset(label):
            raise ValueError("only letters, digits, '-', '_', '*' and '?' beside a wildcard")
        if label.startswith("xn--") or "**" in label:
            raise ValueError("a wildcard beside xn--, or '**'")
    if all("*" not in label and "?" not in label for label in labels):
        raise ValueError("no wildcard")
    parse_host(body.replace("*", "a").replace("?", "a"))
    return labels


def _tail(labels: tuple[str, ...]) -> str:
    """Return the labels after the last one with a wildcard."""
    wild = max(index for index, label in enumerate(labels) if "*" in label or "?" in label)
    return ".".join(labels[wild + 1 :])


def _label_matches(pattern: str, label: str) -> bool:
    """Match ``*`` and ``?`` inside one label, iteratively and without backtracking blow-up."""
    if pattern in (label, "*"):
        return True
    p = s = 0
    star, mark = -1, 0
    while s < len(label):
        if p < len(pattern) and pattern[p] == "*":
            star, mark, p = p, s, p + 1
        elif p < len(pattern) and pattern[p] in ("?", label[s]):
            p, s = p + 1, s + 1
        elif star >= 0:
            mark += 1
            p, s = star + 1, mark
        else:
            return False
    return pattern[p:].strip("*") == ""
