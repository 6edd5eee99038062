"""Constants as terms, and a term held to a type that is due."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from aesp_proxy.decide.policy.cel.errors import ExpressionError
from aesp_proxy.decide.policy.cel.nodes import Place
from aesp_proxy.decide.policy.cel.prepared import level, network
from aesp_proxy.decide.policy.cel.terms import Term, chars_max
from aesp_proxy.decide.policy.cel.types import ADDRESS, DYN, JSON_KINDS, LEVEL, Kind, Type

_HELD: Final = {
    Kind.BOOL: "as_bool",
    Kind.INT: "as_int",
    Kind.DOUBLE: "as_double",
    Kind.STRING: "as_string",
}


def constant(value: object, type_: Type, place: Place) -> Term:
    """Return the term of a constant."""
    size = len(value) if isinstance(value, str | bytes) else 0
    return Term(op="const", type=type_, value=value, cost=1, size_max=size, place=place)


def coerced(term: Term, due: Type) -> Term | None:
    """Hold a term to the type that is due; None where it can never have it.

    A dyn is asked when it is evaluated. A constant text becomes a level or a network where
    those are due.
    """
    if term.type == due:
        return term
    if term.type == DYN and due.kind in _HELD:
        return Term(op=_HELD[due.kind], type=due, args=(term,), fallible=True, cost=term.cost + 1,
                    size_max=chars_max(term), place=term.place)  # fmt: skip
    if due == DYN and term.type.kind in JSON_KINDS and _is_json(term.type):
        return Term(op="dyn", type=DYN, args=(term,), fallible=term.fallible, cost=term.cost,
                    size_max=term.size_max, place=term.place)  # fmt: skip
    if due in (LEVEL, ADDRESS) and term.op == "const" and isinstance(term.value, str):
        return _special(term, term.value, due)
    return None


def filled(term: Term, due: Type) -> Term:
    """Give ``[]`` and ``{}`` written out the type that is due; any other term stays as it is."""
    empty = term.op in ("list", "map") and not term.args and term.type.kind is due.kind
    return replace(term, type=due) if empty else term


def _special(term: Term, text: str, due: Type) -> Term:
    try:
        value = level(text) if due == LEVEL else network(text)
    except ExpressionError as error:
        raise ExpressionError(error.message, line=term.place.line, column=term.place.column,
                              remedy=error.remedy) from None  # fmt: skip
    return Term(op="const", type=due, value=value, place=term.place)


def _is_json(type_: Type) -> bool:
    if type_.kind not in JSON_KINDS:
        return False
    return all(part is None or _is_json(part) for part in (type_.item, type_.key))
