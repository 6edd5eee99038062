"""Calls and operators given their one meaning among the ways a name may be called."""

from __future__ import annotations

from aesp_proxy.decide.policy.cel.errors import ExpressionError
from aesp_proxy.decide.policy.cel.nodes import Call
from aesp_proxy.decide.policy.cel.operations import OPERATIONS, PREPARED, ZONED, Operation
from aesp_proxy.decide.policy.cel.prepared import Network, Networks, prepare, time_zone
from aesp_proxy.decide.policy.cel.runtime import TEXT_MAX
from aesp_proxy.decide.policy.cel.terms import Term, chars_max, nodes_max
from aesp_proxy.decide.policy.cel.types import (
    ADDRESS,
    BOOL,
    DYN,
    INT,
    LEVEL,
    NULL,
    Kind,
    Type,
)
from aesp_proxy.decide.policy.cel.values import coerced, filled
from aesp_proxy.decide.policy.near import nearest

_CHARS_A_STEP = 256
_WORDS = {
    "_<_": "<", "_<=_": "<=", "_>_": ">", "_>=_": ">=", "_+_": "+", "_-_": "-", "_*_": "*",
    "_/_": "/", "_%_": "%", "-_": "-", "_==_": "==", "_!=_": "!=", "@in": "in", "_[_]": "[]",
}  # fmt: skip


def call(node: Call, args: tuple[Term, ...], *, method: bool) -> Term:
    """Return the term of a function, method or operator; raises ``ExpressionError``."""
    if node.function == "_[_]":
        return _index(node, args)
    if node.function == "_+_" and len(args) == 2:
        left, right = args
        joined = _lists(node, (filled(left, right.type), filled(right, left.type)))
        if joined is not None:
            return joined
    ways = OPERATIONS.get(node.function)
    if ways is None:
        near = nearest(node.function, OPERATIONS)
        raise _wrong(node, f"no function is named {node.function[:40]!a}",
                     remedy=f"did you mean '{near}'?" if near else "")  # fmt: skip
    called = [way for way in ways
              if way.method == method or node.function.startswith(("_", "-"))]  # fmt: skip
    for way in called:
        if _is_exact(way, args):
            return _term(node, way, args)
    held = [(way, terms) for way in called if (terms := _held(way, args)) is not None]
    # Of several ways the value would have to choose when it is evaluated: the policy says which.
    if len(held) == 1:
        return _term(node, *held[0])
    word = _WORDS.get(node.function, f"{node.function}()")
    types = " and ".join(str(arg.type) for arg in args) or "nothing"
    how = " as a method" if method else ""
    raise _wrong(node, f"{word} is not defined for {types}{how}", remedy=_conversion(args))


def _is_exact(way: Operation, args: tuple[Term, ...]) -> bool:
    if len(args) != len(way.params):
        return False
    pairs = zip(args, way.params, strict=True)
    return all(arg.type.kind is due if isinstance(due, Kind) else arg.type == due
               for arg, due in pairs)  # fmt: skip


def _held(way: Operation, args: tuple[Term, ...]) -> tuple[Term, ...] | None:
    if len(args) != len(way.params):
        return None
    if DYN in way.params and way.op != "dyn" and not any(arg.type == DYN for arg in args):
        return None
    held = []
    for arg, due in zip(args, way.params, strict=True):
        if isinstance(due, Kind):
            term = arg if arg.type.kind is due else None
        elif due == ADDRESS and arg.op == "const":
            term = None  # a constant text may be a network, which is no address
        else:
            term = coerced(arg, due)
        if term is None:
            return None
        held.append(term)
    # Of "dyn < 1" the way that asks when evaluated is right, not "as_int(dyn) < 1".
    mixed = any(arg.type == DYN for arg in args) and way.params != (DYN, DYN)
    if mixed and len(args) > 1 and way.op in ("<", "<=", ">", ">="):
        return None
    return tuple(held)


def _term(node: Call, way: Operation, args: tuple[Term, ...]) -> Term:
    args = _with_constants(node, way, args)
    cost = 1 + sum(arg.cost for arg in args)
    cost += sum(chars_max(args[index]) // _CHARS_A_STEP for index in way.each)
    size = sum(chars_max(args[index]) for index in way.grows)
    if way.result.kind is Kind.STRING and not way.grows:
        size = 64
    return Term(
        op=way.op, type=way.result, args=args, cost=cost, size_max=min(size, TEXT_MAX),
        fallible=not way.pure or any(arg.fallible for arg in args), place=node.place,
    )  # fmt: skip


def _with_constants(node: Call, way: Operation, args: tuple[Term, ...]) -> tuple[Term, ...]:
    """Make the argument ready that an operation wants ready at load."""
    index = PREPARED.get(way.op, 1 if way.op in ZONED else -1)
    if index < 0:
        return args
    given = args[index]
    if given.op != "const" or not isinstance(given.value, str):
        what = "time zone" if way.op in ZONED else "pattern"
        raise _wrong(node, f"the {what} of {node.function}() is a text written out")
    try:
        made: object = time_zone(given.value) if way.op in ZONED else prepare(way.op, given.value)
    except ExpressionError as error:
        raise ExpressionError(error.message, line=given.place.line, column=given.place.column,
                              remedy=error.remedy) from None  # fmt: skip
    ready = Term(op="const", type=given.type, value=made, place=given.place)
    return (*args[:index], ready, *args[index + 1 :])


def _lists(node: Call, args: tuple[Term, ...]) -> Term | None:
    if args[0].type.kind is not Kind.LIST or args[0].type != args[1].type:
        return None
    size = sum(arg.size_max for arg in args)
    return Term(op="concat_lists", type=args[0].type, args=args, fallible=True,
                cost=1 + size + sum(arg.cost for arg in args), size_max=size,
                place=node.place)  # fmt: skip


def _index(node: Call, args: tuple[Term, ...]) -> Term:
    operand, index = args
    kind = operand.type.kind
    op, result = "", operand.type.item
    if kind is Kind.LIST:
        held = coerced(index, INT)
        op = "item_at"
    elif kind is Kind.MAP and operand.type.key is not None:
        held = coerced(index, operand.type.key)
        op = "value_of"
    elif kind is Kind.DYN:
        held, op, result = coerced(index, DYN), "dyn_item", DYN
    else:
        held = None
    if held is None or result is None:
        raise _wrong(node, f"a {operand.type} is not asked by a {index.type}")
    return Term(op=op, type=result, args=(operand, held), fallible=True,
                cost=1 + operand.cost + held.cost, size_max=operand.size_max,
                place=node.place)  # fmt: skip


def equality(node: Call, args: tuple[Term, ...]) -> Term:
    """Return the term of ``==`` or ``!=``: within one type, or asked when evaluated."""
    left, right = args
    special = LEVEL if LEVEL in (left.type, right.type) else None
    special = ADDRESS if ADDRESS in (left.type, right.type) else special
    if special is not None:
        left, right = _both(node, left, right, special)
        if special == ADDRESS:
            term = _address_equality(node, left, right)
            return _negated(term) if node.function == "_!=_" else term
    elif left.type != right.type:
        left, right = filled(left, right.type), filled(right, left.type)
    if special is None and left.type != right.type:
        if DYN not in (left.type, right.type):
            remedy = "null is no value of it; ask has()" if NULL in (left.type, right.type) else ""
            raise _wrong(node, f"a {left.type} never equals a {right.type}",
                         remedy=remedy or _conversion(args))  # fmt: skip
        left, right = _both(node, left, right, DYN)
    op = "==" if left.type.kind not in (Kind.DYN, Kind.LIST, Kind.MAP, Kind.OBJECT) else "equal"
    # Two lists are compared item by item, two texts as one.
    work = min(left.size_max, right.size_max) // _CHARS_A_STEP
    work = work if op == "==" else min(nodes_max(left), nodes_max(right))
    term = Term(
        op=op,
        type=BOOL,
        args=(left, right),
        fallible=left.fallible or right.fallible,
        cost=1 + left.cost + right.cost + work,
        place=node.place,
    )
    return _negated(term) if node.function == "_!=_" else term


def _negated(term: Term) -> Term:
    return Term(op="not", type=BOOL, args=(term,), fallible=term.fallible, cost=term.cost + 1,
                place=term.place)  # fmt: skip


def _address_equality(node: Call, left: Term, right: Term) -> Term:
    """An address equals a network when it lies in it; a constant is a network."""
    if right.op != "const":
        left, right = right, left
    if right.op == "const" and isinstance(right.value, Network):
        return Term(op="holds", type=BOOL, args=(right, left), fallible=left.fallible,
                    cost=left.cost + 1, place=node.place)  # fmt: skip
    return Term(op="==", type=BOOL, args=(left, right), fallible=left.fallible or right.fallible,
                cost=left.cost + right.cost + 1, place=node.place)  # fmt: skip


def _both(node: Call, left: Term, right: Term, due: Type) -> tuple[Term, Term]:
    a, b = coerced(left, due), coerced(right, due)
    if a is None or b is None:
        raise _wrong(node, f"a {left.type} never equals a {right.type}")
    return a, b


def membership(node: Call, args: tuple[Term, ...]) -> Term:
    """Return the term of ``in``: an item in a list, a key in a map, an address in networks."""
    item, items = args
    fallible = item.fallible or items.fallible
    cost = 1 + item.cost + items.cost + items.size_max
    if item.type == ADDRESS and items.op == "list":
        held = tuple(_held_item(node, each, ADDRESS) for each in items.args)
        networks = [each.value for each in held if isinstance(each.value, Network)]
        if len(networks) == len(held):
            ready = Term(op="const", type=items.type, value=Networks(tuple(networks)),
                         place=items.place)  # fmt: skip
            return Term(op="holds", type=BOOL, args=(ready, item), fallible=item.fallible,
                        cost=cost, place=node.place)  # fmt: skip
        raise _wrong(node, "addresses stand written out in such a list")
    if item.type == LEVEL and items.op == "list":
        held = tuple(_held_item(node, each, LEVEL) for each in items.args)
        items = Term(op="list", type=items.type, args=held, fallible=items.fallible,
                     cost=items.cost, size_max=items.size_max, place=items.place)  # fmt: skip
        return Term(op="in", type=BOOL, args=(item, items), fallible=fallible, cost=cost,
                    place=node.place)  # fmt: skip
    if items.type.kind in (Kind.LIST, Kind.MAP):
        due = items.type.item if items.type.kind is Kind.LIST else items.type.key
        if (due is not None and due not in (DYN, item.type)) or item.type == DYN:
            due = DYN
        if due == DYN or due is None:
            return _asked(node, item, items, cost)
        plain = item.type.kind not in (Kind.LIST, Kind.MAP, Kind.OBJECT)
        return Term(op="in" if plain else "dyn_in", type=BOOL, args=(item, items),
                    fallible=fallible, cost=cost, place=node.place)  # fmt: skip
    if items.type == DYN:
        return _asked(node, item, items, cost)
    raise _wrong(node, f"'in' asks a list or a map, not a {items.type}")


def _asked(node: Call, item: Term, items: Term, cost: int) -> Term:
    held, asked = coerced(item, DYN), items if items.type == DYN else coerced(items, DYN)
    if held is None or asked is None or (DYN not in (item.type, items.type)
                                         and items.type.item != DYN):  # fmt: skip
        raise _wrong(node, f"a {item.type} is never in a {items.type}")
    return Term(op="dyn_in", type=BOOL, args=(held, asked), fallible=True, cost=cost,
                place=node.place)  # fmt: skip


def _held_item(node: Call, term: Term, due: Type) -> Term:
    held = coerced(term, due)
    if held is None:
        raise _wrong(node, f"a {term.type} in a list of {due}")
    return held


def _conversion(args: tuple[Term, ...]) -> str:
    kinds = {arg.type.kind for arg in args}
    if kinds == {Kind.INT, Kind.DOUBLE}:
        return "write the number as 1.0, or convert with double()"
    if Kind.DYN in kinds:
        return "convert with int(), double() or string()"
    if Kind.LEVEL in kinds or Kind.ADDRESS in kinds:
        return "the other side is a text written out"
    return ""


def _wrong(node: Call, why: str, *, remedy: str = "") -> ExpressionError:
    return ExpressionError(why, line=node.place.line, column=node.place.column, remedy=remedy)
