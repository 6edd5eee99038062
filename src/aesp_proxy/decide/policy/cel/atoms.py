"""Conjuncts that an index can decide: one thing asked of an event, against a constant.

An atom is ``subject`` (a term: a fact, or an expression over facts such as
``request.time.getHours()``), what is asked of it, and the constants. What is no atom is
residue, evaluated for the rules that are left. Negation keeps an atom an atom, because
where the subject has a value, so has the negation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from aesp_proxy.decide.policy.cel.prepared import Network, Networks, Pattern
from aesp_proxy.decide.policy.cel.terms import Term
from aesp_proxy.decide.policy.cel.types import BOOL, Kind

ENTRIES_MAX: Final = 16
"""How many alternatives a condition is split into at the most."""


class Ask(Enum):
    """What is asked of a subject; each has a table of its own."""

    EQUAL = "equal"
    MEMBER = "member"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    REGEX = "regex"
    NETWORK = "network"
    ABOVE = "above"
    BELOW = "below"


@dataclass(frozen=True, slots=True, kw_only=True)
class Atom:
    """``subject`` is asked for any of ``keys``.

    ``negated`` turns the answer. For ABOVE and BELOW the key is a bound and ``strict``
    tells whether the bound itself is outside.
    """

    subject: Term
    ask: Ask
    keys: tuple[object, ...]
    negated: bool = False
    strict: bool = False


_SCALARS: Final = frozenset({Kind.BOOL, Kind.INT, Kind.UINT, Kind.DOUBLE, Kind.STRING, Kind.BYTES,
                             Kind.TIMESTAMP, Kind.DURATION, Kind.LEVEL})  # fmt: skip
_BOUNDED: Final = frozenset({Kind.INT, Kind.UINT, Kind.DOUBLE, Kind.TIMESTAMP, Kind.DURATION,
                             Kind.LEVEL})  # fmt: skip
_TURNED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_TEXTS: Final = {"startsWith": Ask.PREFIX, "endsWith": Ask.SUFFIX}


def alternatives(term: Term) -> tuple[tuple[Term, ...], ...]:
    """Split a condition into alternatives of conjuncts: the outermost ``||`` under ``&&``.

    ``c && (a || b)`` is ``(c && a) || (c && b)``, errors included. An ``||`` that is one
    atom stays one, and so does one that would make too many.
    """
    rows: list[tuple[Term, ...]] = [()]
    for conjunct in term.args if term.op == "and" else (term,):
        parts = conjunct.args if conjunct.op == "or" and atom_of(conjunct) is None else (conjunct,)
        if len(parts) * len(rows) > ENTRIES_MAX:
            parts = (conjunct,)
        flat = [part.args if part.op == "and" else (part,) for part in parts]
        rows = [(*row, *part) for row in rows for part in flat]
    return tuple(rows)


def atom_of(term: Term) -> Atom | None:
    """Return the atom that a conjunct is, None where it is none."""
    match term.op:
        case "not":
            inner = atom_of(term.args[0])
            if inner is None or inner.ask in (Ask.ABOVE, Ask.BELOW):
                return None
            return Atom(subject=inner.subject, ask=inner.ask, keys=inner.keys,
                        negated=not inner.negated)  # fmt: skip
        case "==":
            return _equal(*term.args)
        case "or":
            return _union(term)
        case "in":
            return _in(*term.args)
        case "has_label":
            return _member(term.args[0], term.args[1])
        case "exists":
            return _exists(term)
        case "startsWith" | "endsWith":
            subject, key = term.args
            return _atom(subject, _TEXTS[term.op], key)
        case "matches":
            return _atom(term.args[0], Ask.REGEX, term.args[1])
        case "holds" | "cidr_contains":
            return _atom(term.args[1], Ask.NETWORK, term.args[0])
        case "<" | "<=" | ">" | ">=":
            return _bound(term)
        case _:
            flag = term.op in ("fact", "has") and term.type == BOOL
            return Atom(subject=term, ask=Ask.EQUAL, keys=(True,)) if flag else None


def _constant(term: Term) -> bool:
    return term.op == "const"


def _atom(subject: Term, ask: Ask, key: Term) -> Atom | None:
    if _constant(subject) or not _constant(key) or not _is_subject(subject):
        return None
    if ask is Ask.REGEX and not isinstance(key.value, Pattern):
        return None
    if ask is Ask.NETWORK and not isinstance(key.value, Network | Networks):
        return None
    return Atom(subject=subject, ask=ask, keys=(key.value,))


def _is_subject(term: Term) -> bool:
    """Hold a subject to what reads facts and no variable, and counts no steps."""
    if term.op in ("var", "all", "exists", "exists_one", "filter", "transform", "concat_lists"):
        return False
    return term.op == "fact" or all(map(_is_subject, term.args))


def _equal(left: Term, right: Term) -> Atom | None:
    if _constant(left):
        left, right = right, left
    if left.type.kind not in _SCALARS or right.value != right.value:
        return None
    return _atom(left, Ask.EQUAL, right)


def _in(item: Term, items: Term) -> Atom | None:
    if _constant(item):
        return _member(items, item)
    known = items.op == "list" and all(map(_constant, items.args)) and items.args
    if not known or item.type.kind not in _SCALARS or not _is_subject(item):
        return None
    return Atom(subject=item, ask=Ask.EQUAL, keys=tuple(each.value for each in items.args))


def _member(items: Term, item: Term) -> Atom | None:
    if item.type.kind not in _SCALARS or items.op == "list":
        return None
    return _atom(items, Ask.MEMBER, item)


def _exists(term: Term) -> Atom | None:
    """Read ``list.exists(x, x == constant)`` as membership."""
    items, body = term.args
    if body.op != "==" or items.type.kind is not Kind.LIST:
        return None
    left, right = body.args
    if _constant(left):
        left, right = right, left
    is_variable = left.op == "var" and left.value == term.value
    return _member(items, right) if is_variable and _constant(right) else None


def _union(term: Term) -> Atom | None:
    """Read ``a == 1 || a == 2`` as one atom: same subject, same question, not negated."""
    atoms = [atom_of(arg) for arg in term.args]
    first = atoms[0]
    if first is None or first.ask in (Ask.ABOVE, Ask.BELOW):
        return None
    keys: list[object] = []
    for atom in atoms:
        if atom is None or atom.negated or (atom.subject, atom.ask) != (first.subject, first.ask):
            return None
        keys.extend(atom.keys)
    return Atom(subject=first.subject, ask=first.ask, keys=tuple(keys))


def _bound(term: Term) -> Atom | None:
    left, right = term.args
    op = term.op
    if _constant(left):
        left, right, op = right, left, _TURNED[op]
    bad = left.type.kind not in _BOUNDED or right.type.kind not in _BOUNDED
    if bad or not _constant(right) or not _is_subject(left) or right.value != right.value:
        return None
    ask = Ask.ABOVE if op in (">", ">=") else Ask.BELOW
    return Atom(subject=left, ask=ask, keys=(right.value,), strict=op in (">", "<"))
