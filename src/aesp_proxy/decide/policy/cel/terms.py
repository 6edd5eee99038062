"""Typed terms: an expression after the checker, every operation resolved.

Terms compare by what they mean; the place is not part of it, so that equal conjuncts of
two rules are one. ``cost`` is the worst case in steps, ``size_max`` the most characters or
items the value may have; both saturate at ``COST_TOP``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from aesp_proxy.decide.policy.cel.nodes import Place
from aesp_proxy.decide.policy.cel.types import Type

COST_TOP = 10**12


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
