"""Which rules speak of a resource at all: their ``applies_to``, for many rules at once.

Of hosts, exact names and sub-domains are looked up, the rest is asked one by one; of paths,
all globs of a kind are one automaton. What restricts is matched as a list that refuses is
(paths without case, as given or as resolved; tools without case), what allows as a list that
allows is (with case, as given and as resolved).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from ipaddress import IPv6Address
from operator import or_

import re2

from aesp_proxy.decide.policy.globs import path_bytes, path_regex
from aesp_proxy.decide.policy.hosts import HostIndex
from aesp_proxy.decide.policy.selectors import Selector, SelectorKind
from aesp_proxy.decide.policy.tools import ToolIndex
from aesp_proxy.model.address import embedded_ipv4
from aesp_proxy.model.event import (
    DnsQuery,
    EgressConnect,
    EgressRequest,
    Event,
    FileAccess,
    NetworkAccess,
    PatchApply,
    ToolCall,
)
from aesp_proxy.model.host import Host

Chosen = tuple[Sequence[Selector], bool]
"""The selectors of a rule, none for every resource, and whether the rule allows."""

_MEMORY_BYTES_MAX = 64 * 1024 * 1024


class Selection:
    """The rules by what they apply to; ``of`` gives those that speak of an event, as bits."""

    def __init__(self, rules: Sequence[Chosen]) -> None:
        self._always = _bits(
            number
            for number, (selectors, _) in enumerate(rules)
            if not selectors or any(each.kind is SelectorKind.ANY for each in selectors)
        )
        self._selects = self._always != (1 << len(rules)) - 1
        self._hosts = _Hosts(rules)
        self._paths = _Paths(rules)
        self._tools = _Tools(rules)

    def of(self, event: Event) -> int:
        """Return the bits of the rules that speak of the resource of an event."""
        if not self._selects:
            return self._always
        match event:
            case EgressRequest() | EgressConnect() | NetworkAccess():
                return self._always | self._hosts.of(event.host, event.port)
            case DnsQuery():
                return self._always | self._hosts.of_name(event.host)
            case FileAccess() | PatchApply():
                return self._always | self._paths.of(event.path, event.resolved)
            case ToolCall():
                return self._always | self._tools.of(event.server, event.name)
            case _:
                return self._always


class _Hosts:
    def __init__(self, rules: Sequence[Chosen]) -> None:
        self._any = 0
        self._names: dict[str, int] = {}
        self._suffixes: dict[str, int] = {}
        self._others: list[tuple[HostIndex, int]] = []
        self._others_of_names: list[tuple[HostIndex, int]] = []
        for number, (selectors, allows) in enumerate(rules):
            for selector in selectors:
                if selector.host is not None:
                    self._place(selector, 1 << number, allows=allows)

    def _place(self, selector: Selector, bit: int, *, allows: bool) -> None:
        rule = selector.host
        if rule is None:
            return
        plain = rule.port in (None, 0) and rule.network is None and not rule.labels
        if plain and rule.name:
            self._names[rule.name] = self._names.get(rule.name, 0) | bit
        elif plain and rule.suffix:
            self._suffixes[rule.suffix] = self._suffixes.get(rule.suffix, 0) | bit
        elif plain:
            self._any |= bit
        else:
            index = HostIndex([rule], ports_without=None, any_is_address=True)
            self._others.append((index, bit))
            # Asking for a name is of no port: what restricts one port leaves the name alone.
            if allows or rule.port in (None, 0):
                self._others_of_names.append((index, bit))

    def of_name(self, host: Host) -> int:
        found = self._plain(host)
        for index, bit in self._others_of_names:
            if not found & bit and next(index.naming(host), None) is not None:
                found |= bit
        return found

    def of(self, host: Host, port: int) -> int:
        found = self._plain(host)
        for index, bit in self._others:
            if not found & bit and any(index.find(form, port) for form in _forms(host)):
                found |= bit
        return found

    def _plain(self, host: Host) -> int:
        name = host.name
        found = self._any | self._names.get(name, 0)
        if self._suffixes and host.address is None:
            dot = name.find(".")
            while dot >= 0:
                found |= self._suffixes.get(name[dot + 1 :], 0)
                dot = name.find(".", dot + 1)
        return found


def _forms(host: Host) -> tuple[Host, ...]:
    """Return a host and, of an address that carries an IPv4 address, that address."""
    inner = embedded_ipv4(host.address) if isinstance(host.address, IPv6Address) else None
    return (host,) if inner is None else (host, Host(str(inner), inner))


class _Paths:
    def __init__(self, rules: Sequence[Chosen]) -> None:
        self._refusing = _Globs(rules, allows=False)
        self._allowing = _Globs(rules, allows=True)

    def of(self, given: str, resolved: str) -> int:
        refusing = self._refusing.of(given)
        allowing = self._allowing.of(given)
        if resolved != given:
            refusing |= self._refusing.of(resolved)
            allowing &= self._allowing.of(resolved)
        return refusing | allowing


class _Globs:
    """Globs as one automaton of RE2; the last pattern tells that it has not given up."""

    def __init__(self, rules: Sequence[Chosen], *, allows: bool) -> None:
        self._fold = not allows
        bits: dict[str, int] = {}
        for number, (selectors, rule_allows) in enumerate(rules):
            for selector in selectors:
                if selector.glob is not None and rule_allows == allows:
                    regex = path_regex(selector.glob, fold=self._fold)
                    bits[regex] = bits.get(regex, 0) | 1 << number
        self._bits = [*bits.values(), 0]
        self._all = reduce(or_, self._bits)
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.log_errors = False
        options.max_mem = _MEMORY_BYTES_MAX
        self._set = re2.Set.FullMatchSet(options)
        for regex in bits:
            self._set.Add(regex.encode("latin-1"))
        self._set.Add(b"(?s:.*)")
        self._set.Compile()

    def of(self, path: str) -> int:
        if not self._all:
            return 0
        hits = self._set.Match(path_bytes(path, fold=self._fold))
        if len(self._bits) - 1 not in hits:
            msg = "the globs of the rules take too much memory together"
            raise MemoryError(msg)
        return reduce(or_, (self._bits[hit] for hit in hits), 0)


class _Tools:
    def __init__(self, rules: Sequence[Chosen]) -> None:
        self._indexes = [
            (ToolIndex([each.tool for each in selectors if each.tool is not None],
                       refuses=not allows), 1 << number)
            for number, (selectors, allows) in enumerate(rules)
            if any(each.tool is not None for each in selectors)
        ]  # fmt: skip

    def of(self, server: str, name: str) -> int:
        found = 0
        for index, bit in self._indexes:
            if index.find(server, name) is not None:
                found |= bit
        return found


def _bits(numbers: Iterable[int]) -> int:
    return reduce(or_, (1 << number for number in numbers), 0)
