"""Typed terms: an expression after the checker, every operation resolved.

Terms compare by what they mean; the place is not part of it, so that equal conjuncts of
two rules are one. ``cost`` is the worst case in steps, ``size_max`` the most characters of a
text, or the most values inside a list or map, those of nested ones too.
Loops saturate both at ``COST_TOP``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from aesp_proxy.decide.policy.cel.nodes import Place
from aesp_proxy.decide.policy.cel.types import Kind, Type

COST_TOP = 10**12
DYN_CHARS_MAX = 1_048_576


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One operation.

    ``op`` is ``const`` (``value`` holds it), ``fact`` and ``has`` (``value`` is the fact's
    name), ``var`` (its number), ``and``, ``or``, ``not``, ``if``, ``list``, ``map``, a loop
    (``all``, ``exists``, ``exists_one``, ``filter``, ``transform``: items, bodies; ``value``
    is the number of the variable), or the name of an operation of ``operations``.
    ``fallible`` tells whether evaluating may have no value.
    """

    op: str
    type: Type
    args: tuple[Term, ...] = ()
    value: object = None
    fallible: bool = False
    cost: int = field(default=1, compare=False)
    size_max: int = field(default=0, compare=False)
    place: Place = field(default=Place(1, 1), compare=False)


def nodes_max(term: Term) -> int:
    """Return the most values that a term's value may hold, itself included, nested ones too."""
    sized = term.type.kind in (Kind.LIST, Kind.MAP, Kind.DYN)
    return max(term.size_max, 1) if sized else 1


def chars_max(term: Term) -> int:
    """Return the most characters of a term's value where it is a text.

    What stands in a dyn fact may be one long text; what a loop over it sees is a share of it.
    """
    if term.type.kind is not Kind.DYN:
        return term.size_max
    waiting = [term]
    while waiting:
        each = waiting.pop()
        if each.op == "fact" and each.type.kind is Kind.DYN:
            return DYN_CHARS_MAX
        waiting.extend(each.args)
    return term.size_max


def facts_of(term: Term) -> frozenset[str]:
    """Return the names of the facts that a term reads; those only asked for by ``has`` not."""
    found: set[str] = set()
    waiting = [term]
    while waiting:
        each = waiting.pop()
        if each.op == "fact":
            found.add(str(each.value))
        waiting.extend(each.args)
    return frozenset(found)


def asked_of(term: Term) -> frozenset[str]:
    """Return the names of the facts that a term reads or asks for by ``has``."""
    found: set[str] = set()
    waiting = [term]
    while waiting:
        each = waiting.pop()
        if each.op in ("fact", "has"):
            found.add(str(each.value))
        waiting.extend(each.args)
    return frozenset(found)


def conjuncts_of(term: Term) -> tuple[Term, ...]:
    """Split a condition at its outermost ``&&``; sound because ``false && error`` is false."""
    return term.args if term.op == "and" else (term,)
