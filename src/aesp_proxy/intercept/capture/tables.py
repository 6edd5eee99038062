"""A table of packet rules: put in whole, looked at, taken away; over netlink.

linux/netfilter/nf_tables.h. Everything is one transaction of the kernel's: a table that
takes the place of another leaves no moment without either. Standard library only.
"""

from __future__ import annotations

import errno
import itertools
import socket
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from aesp_proxy.intercept.capture.expressions import (
    Expression,
    Term,
    encoded_rule,
    is_rule,
    number,
)
from aesp_proxy.intercept.netlink import (
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_REQUEST,
    ask,
    attribute,
    attributes,
    dump,
    message,
    nested,
)

NETLINK_NETFILTER: Final = 12
FAMILIES: Final = {"inet": 1, "ip": 2, "ip6": 10}
HOOKS: Final = {"output": 3, "postrouting": 4}
_SUBSYSTEM: Final = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEW_TABLE, _GET_TABLE, _DELETE_TABLE = 0, 1, 2
_NEW_CHAIN, _GET_CHAIN = 3, 4
_NEW_RULE, _GET_RULE = 6, 7
_DORMANT: Final = 1
_ACCEPTS: Final = number(1)
_GENERIC_BYTES: Final = 4  # struct nfgenmsg

Rule = tuple[Term, ...]


class Hook(NamedTuple):
    """Where the kernel comes to a chain: kind (``nat``, ``filter``), hook, priority."""

    kind: str
    name: str
    priority: int


class Chain(NamedTuple):
    """Rules in order; without a hook, only others jump to it."""

    name: str
    rules: tuple[Rule, ...]
    hook: Hook | None = None


class Table(NamedTuple):
    """A table of a family of ``FAMILIES`` and its chains."""

    family: str
    name: str
    chains: tuple[Chain, ...]

    def text(self) -> str:
        """Return it as ``nft list table`` shows it."""
        chains = "\n\n".join(map(_chain_text, self.chains))
        return f"table {self.family} {self.name} {{\n{chains}\n}}\n"


def _chain_text(chain: Chain) -> str:
    lines = [f"\tchain {chain.name} {{"]
    if chain.hook is not None:
        kind, name, priority = chain.hook
        # Of a filter's priority 0 it has a word.
        place = priority if kind != "filter" else f"filter - {-priority}"
        lines.append(f"\t\ttype {kind} hook {name} priority {place}; policy accept;")
    lines += ["\t\t" + " ".join(term.text for term in rule) for rule in chain.rules]
    return "\n".join([*lines, "\t}"])


# what is sent ---------------------------------------------------------------------------


class _Batch:
    """Messages of one transaction."""

    def __init__(self, family: str) -> None:
        self._family = FAMILIES[family]
        self._numbers = itertools.count(1)
        self._messages = [self._edge(_BATCH_BEGIN)]
        self.acknowledged = 0

    def add(self, kind: int, *parts: bytes, flags: int = NLM_F_CREATE) -> None:
        """Add a request that is acknowledged."""
        body = struct.pack(">BBH", self._family, 0, 0) + b"".join(parts)
        flags |= NLM_F_REQUEST | NLM_F_ACK
        self._messages.append(message(_SUBSYSTEM << 8 | kind, flags, next(self._numbers), body))
        self.acknowledged += 1

    def data(self) -> bytes:
        """Return all of it."""
        return b"".join([*self._messages, self._edge(_BATCH_END)])

    def _edge(self, kind: int) -> bytes:
        body = struct.pack(">BBH", socket.AF_UNSPEC, 0, _SUBSYSTEM)
        return message(kind, NLM_F_REQUEST, next(self._numbers), body)


def _word(kind: int, text: str) -> bytes:
    return attribute(kind, text.encode() + b"\0")


def _filled(batch: _Batch, table: Table) -> _Batch:
    batch.add(_NEW_TABLE, _word(1, table.name))
    for chain in table.chains:
        batch.add(_NEW_CHAIN, _word(1, table.name), _word(3, chain.name), *_hooked(chain))
    for chain in table.chains:
        for rule in chain.rules:
            parts = nested(4, encoded_rule(_steps(rule)))
            words = (_word(1, table.name), _word(2, chain.name))
            batch.add(_NEW_RULE, *words, parts, flags=NLM_F_CREATE | NLM_F_APPEND)
    return batch


def _hooked(chain: Chain) -> Iterator[bytes]:
    if chain.hook is not None:
        yield nested(
            4,
            attribute(1, number(HOOKS[chain.hook.name])),
            attribute(2, number(chain.hook.priority)),
        )
        yield attribute(5, _ACCEPTS)
        yield _word(7, chain.hook.kind)


def _steps(rule: Rule) -> tuple[Expression, ...]:
    return tuple(step for term in rule for step in term.steps)


def creation(table: Table) -> tuple[bytes, int]:
    """Return the transaction that makes a table, and how many answers it gets."""
    batch = _filled(_Batch(table.family), table)
    return batch.data(), batch.acknowledged


def create(table: Table) -> None:
    """Make a table that is not there; OSError where the kernel cannot, or will not."""
    data, acknowledged = creation(table)
    ask(NETLINK_NETFILTER, data, acknowledged=acknowledged)


def replace(table: Table) -> None:
    """Put a table in the place of whatever bears its name; OSError as ``create``."""
    batch = _Batch(table.family)
    # Made first, as what is not there cannot be deleted, and deleting may not fail.
    batch.add(_NEW_TABLE, _word(1, table.name))
    batch.add(_DELETE_TABLE, _word(1, table.name), flags=0)
    _filled(batch, table)
    ask(NETLINK_NETFILTER, batch.data(), acknowledged=batch.acknowledged)


def remove(family: str, name: str) -> bool:
    """Take a table away; False where there was none, OSError where it stays."""
    batch = _Batch(family)
    batch.add(_DELETE_TABLE, _word(1, name), flags=0)
    try:
        ask(NETLINK_NETFILTER, batch.data(), acknowledged=batch.acknowledged)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


# what is there --------------------------------------------------------------------------


def differences(table: Table) -> list[str]:
    """Say what the kernel has else than ``table``, a few words each; none when all is there.

    OSError where it cannot be asked, which takes CAP_NET_ADMIN.
    """
    tables = {_text(each.get(1)): each for each in _listed(_GET_TABLE, table.family, 1, table.name)}
    if table.name not in tables:
        return [f"the table {table.name} is gone"]
    if _integer(tables[table.name].get(2)) & _DORMANT:
        return [f"the table {table.name} is dormant"]
    chains = {_text(each.get(3)): each for each in _listed(_GET_CHAIN, table.family, 1, table.name)}
    rules: dict[str, list[bytes]] = {}
    for each in _listed(_GET_RULE, table.family, 1, table.name):
        rules.setdefault(_text(each.get(2)), []).append(each.get(4, b""))
    found = [f"the chain {name} is foreign" for name in chains.keys() - _names(table)]
    for chain in table.chains:
        found += _chain_differences(chain, chains.get(chain.name), rules.get(chain.name, []))
    return found


def _names(table: Table) -> set[str]:
    return {chain.name for chain in table.chains}


def _chain_differences(
    chain: Chain, told: dict[int, bytes] | None, rules: list[bytes]
) -> Iterator[str]:
    if told is None:
        yield f"the chain {chain.name} is gone"
        return
    hook = dict(attributes(told.get(4, b"")))
    if chain.hook is not None and (
        _integer(hook.get(1)) != HOOKS[chain.hook.name]
        or hook.get(2) != number(chain.hook.priority)
        or told.get(5) != _ACCEPTS
        or _text(told.get(7)) != chain.hook.kind
    ):
        yield f"the chain {chain.name} is another"
    if len(rules) != len(chain.rules):
        yield f"the chain {chain.name} has {len(rules)} rules instead of {len(chain.rules)}"
        return
    for place, (rule, data) in enumerate(zip(chain.rules, rules, strict=True), 1):
        if not is_rule(data, _steps(rule)):
            yield f"rule {place} of the chain {chain.name} is another"


def _listed(kind: int, family: str, key: int, name: str) -> Iterator[dict[int, bytes]]:
    """Yield what the kernel has of a kind in the table of that name."""
    body = struct.pack(">BBH", FAMILIES[family], 0, 0)
    if kind != _GET_TABLE:
        body += _word(key, name)
    for each in dump(NETLINK_NETFILTER, _SUBSYSTEM << 8 | kind, body):
        found = dict(attributes(each.body[_GENERIC_BYTES:]))
        if each.body[:1] == bytes([FAMILIES[family]]) and _text(found.get(key)) == name:
            yield found


def _text(value: bytes | None) -> str:
    return (value or b"").rstrip(b"\0").decode("utf-8", "replace")


def _integer(value: bytes | None) -> int:
    return int.from_bytes(value or b"", "big")
