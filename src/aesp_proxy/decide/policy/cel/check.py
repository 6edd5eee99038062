"""Nodes to terms: every name declared, every operation given its one meaning.

A condition that gets through here has type bool, reads declared facts only, and can fail
when it is evaluated in known ways only. Stricter than CEL where that costs a policy
nothing: no mixed lists, no ``null`` compared with what is never null, constant patterns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from aesp_proxy.decide.policy.cel.calls import call, equality, membership
from aesp_proxy.decide.policy.cel.errors import ExpressionError
from aesp_proxy.decide.policy.cel.nodes import Call, Ident, ListOf, Literal, MapOf, Node, Select
from aesp_proxy.decide.policy.cel.terms import COST_TOP, Term, nodes_max
from aesp_proxy.decide.policy.cel.types import (
    BOOL,
    BYTES,
    DYN,
    JSON_KINDS,
    LITERALS,
    STRING,
    Kind,
    Type,
    list_of,
    map_of,
)
from aesp_proxy.decide.policy.cel.values import coerced, constant
from aesp_proxy.decide.policy.facts import FACTS, ROOTS, Fact
from aesp_proxy.decide.policy.near import nearest

_MACROS: Final = {"all": "all", "exists": "exists", "exists_one": "exists_one",
                  "filter": "filter", "map": "transform"}  # fmt: skip
_LOOP_DEPTH_MAX: Final = 4

Known = Callable[[str], bool | None]
"""Of a fact: True where it is always known, None where sometimes, False where never."""


def check(node: Node, known: Known) -> Term:
    """Type a condition; raises ``ExpressionError`` with the place of what is wrong."""
    term = coerced(_Checker(known).term(node, {}), BOOL)
    if term is None:
        raise _wrong(node, "the condition does not say true or false")
    return term


class _Checker:
    def __init__(self, known: Known) -> None:
        self._known = known
        self._variables = 0

    def term(self, node: Node, scope: Mapping[str, Term]) -> Term:
        """Return the term of a node; ``scope`` holds the variables of the macros around it."""
        match node:
            case Literal():
                return constant(node.value, LITERALS[node.kind], node.place)
            case Ident() | Select():
                return self._name(node, scope)
            case ListOf():
                return self._list(node, scope)
            case MapOf():
                return self._map(node, scope)
            case Call():
                return self._call(node, scope)

    # names --------------------------------------------------------------------------

    def _name(self, node: Ident | Select, scope: Mapping[str, Term]) -> Term:
        if isinstance(node, Ident) and node.name in scope:
            return scope[node.name]
        dotted = _dotted(node)
        root = dotted.partition(".")[0]
        if dotted and root not in scope:
            if dotted in FACTS:
                return self._fact(FACTS[dotted], node)
            if isinstance(node, Ident) or not self._reaches_a_fact(node.operand):
                raise _undeclared(node, dotted, root)
        if isinstance(node, Ident):
            raise _undeclared(node, node.name, node.name)
        return self._field(self.term(node.operand, scope), node)

    def _reaches_a_fact(self, node: Node) -> bool:
        while isinstance(node, Select):
            if _dotted(node) in FACTS:
                return True
            node = node.operand
        return not isinstance(node, Ident) or node.name in FACTS

    def _fact(self, fact: Fact, node: Node) -> Term:
        if fact.missing:
            raise _wrong(node, f"{fact.name} cannot be read: {fact.missing}")
        known = self._known(fact.name)
        if known is False:
            raise _wrong(node, f"{fact.name} is never known for the actions of this rule")
        sized = fact.type.kind in (Kind.LIST, Kind.MAP, Kind.DYN)
        return Term(
            op="fact", type=fact.type, value=fact.name, fallible=known is None,
            size_max=fact.items_max if sized else fact.chars_max, place=node.place,
        )  # fmt: skip

    def _field(self, operand: Term, node: Select) -> Term:
        kind = operand.type.kind
        size_max = operand.size_max
        if kind is Kind.OBJECT:
            for name, type_ in operand.type.fields:
                if name == node.field:
                    return Term(op="field", type=type_, args=(operand,), value=name,
                                fallible=operand.fallible, cost=operand.cost + 1,
                                size_max=1_024, place=node.place)  # fmt: skip
            known = ", ".join(name for name, _ in operand.type.fields)
            raise _wrong(node, f"no field {node.field[:40]!a}", remedy=f"fields: {known}")
        if kind is Kind.MAP and operand.type.key == STRING and operand.type.item is not None:
            key = constant(node.field, STRING, node.place)
            return Term(op="value_of", type=operand.type.item, args=(operand, key), fallible=True,
                        cost=operand.cost + 1, size_max=size_max, place=node.place)  # fmt: skip
        if kind is Kind.DYN:
            return Term(op="dyn_field", type=DYN, args=(operand,), value=node.field, fallible=True,
                        cost=operand.cost + 1, size_max=size_max, place=node.place)  # fmt: skip
        raise _wrong(node, f"a {operand.type} has no field {node.field[:40]!a}")

    # values -------------------------------------------------------------------------

    def _list(self, node: ListOf, scope: Mapping[str, Term]) -> Term:
        items = tuple(self.term(item, scope) for item in node.items)
        type_ = _joined([item.type for item in items], node)
        return Term(op="list", type=list_of(type_), args=items,
                    fallible=any(item.fallible for item in items),
                    cost=1 + sum(item.cost for item in items), size_max=sum(map(nodes_max, items)),
                    place=node.place)  # fmt: skip

    def _map(self, node: MapOf, scope: Mapping[str, Term]) -> Term:
        flat = tuple(self.term(each, scope) for entry in node.entries for each in entry)
        key = _joined([term.type for term in flat[::2]], node) if flat else STRING
        if key.kind not in (Kind.STRING, Kind.INT, Kind.UINT, Kind.BOOL):
            raise _wrong(node, f"a map is not asked by {key}")
        return Term(op="map", type=map_of(key, _joined([t.type for t in flat[1::2]], node)),
                    args=flat, fallible=bool(flat), cost=1 + sum(term.cost for term in flat),
                    size_max=sum(map(nodes_max, flat)), place=node.place)  # fmt: skip

    # calls --------------------------------------------------------------------------

    def _call(self, node: Call, scope: Mapping[str, Term]) -> Term:
        if node.function == "has" and node.target is None:
            return self._has(node, scope)
        if node.target is not None and node.function in _MACROS and len(node.args) > 1:
            return self._macro(node, node.target, scope)
        given = node.args if node.target is None else (node.target, *node.args)
        args = tuple(self.term(arg, scope) for arg in given)
        match node.function:
            case "_&&_" | "_||_":
                return _logic(node, args)
            case "!_":
                (operand,) = _bools(node, args)
                return Term(op="not", type=BOOL, args=(operand,), fallible=operand.fallible,
                            cost=operand.cost + 1, place=node.place)  # fmt: skip
            case "_?_:_":
                return _choice(node, args)
            case "_==_" | "_!=_":
                return equality(node, args)
            case "@in":
                return membership(node, args)
            case _:
                return call(node, args, method=node.target is not None)

    def _has(self, node: Call, scope: Mapping[str, Term]) -> Term:
        asked = node.args[0] if len(node.args) == 1 else None
        if not isinstance(asked, Select):
            raise _wrong(node, "has() asks for a field", remedy="write has(request.user.roles)")
        dotted = _dotted(asked)
        if dotted in FACTS and dotted.partition(".")[0] not in scope:
            fact = FACTS[dotted]
            if fact.missing:
                raise _wrong(node, f"{fact.name} cannot be read: {fact.missing}")
            known = self._known(dotted)
            if known is not None:
                return constant(known, BOOL, node.place)
            return Term(op="has", type=BOOL, value=dotted, place=node.place)
        if dotted and dotted.partition(".")[0] not in scope and not self._reaches_a_fact(asked):
            raise _undeclared(asked, dotted, dotted.partition(".")[0])
        operand = self.term(asked.operand, scope)
        if operand.type.kind is Kind.MAP and operand.type.key == STRING:
            key = constant(asked.field, STRING, asked.place)
            return Term(op="in", type=BOOL, args=(key, operand), fallible=operand.fallible,
                        cost=operand.cost + 1, place=node.place)  # fmt: skip
        if operand.type.kind is Kind.DYN:
            return Term(op="dyn_has", type=BOOL, args=(operand,), value=asked.field, fallible=True,
                        cost=operand.cost + 1, place=node.place)  # fmt: skip
        raise _wrong(node, f"a {operand.type} has no fields that may be missing")

    def _macro(self, node: Call, target: Node, scope: Mapping[str, Term]) -> Term:
        variable = node.args[0]
        bodies = node.args[1:]
        if not isinstance(variable, Ident) or len(bodies) > (2 if node.function == "map" else 1):
            raise _wrong(node, f"{node.function}() takes a name and an expression")
        if variable.name in ROOTS:
            raise _wrong(variable, f"'{variable.name}' is a fact already; take another name")
        items = self.term(target, scope)
        if items.type.kind is Kind.DYN:
            items = Term(
                op="as_items",
                type=list_of(DYN),
                args=(items,),
                fallible=True,
                cost=items.cost + 1,
                size_max=items.size_max,
                place=items.place,
            )
        item = items.type.key if items.type.kind is Kind.MAP else items.type.item
        if item is None:
            raise _wrong(node, f"{node.function}() runs over a list or a map, not a {items.type}")
        self._variables += 1
        if len(scope) >= _LOOP_DEPTH_MAX:
            raise _wrong(node, f"loops nested deeper than {_LOOP_DEPTH_MAX}")
        number = self._variables
        nested = item.kind in (Kind.DYN, Kind.LIST, Kind.MAP)
        size_max = max(1_024, items.size_max) if nested else 1_024
        var = Term(op="var", type=item, value=number, size_max=size_max, place=variable.place)
        inner = {**scope, variable.name: var}
        return _loop(node, items, tuple(self.term(body, inner) for body in bodies), number)


def _loop(node: Call, items: Term, bodies: tuple[Term, ...], number: int) -> Term:
    kind = _MACROS[node.function]
    told = bodies if kind != "transform" else bodies[:-1]
    if kind != "transform" or told:
        bodies = (*_bools(node, told), *bodies[len(told) :])
    each = sum(body.cost for body in bodies) + 1
    type_ = BOOL
    if kind == "filter":
        type_ = items.type if items.type.kind is Kind.LIST else list_of(items.type.key or DYN)
    elif kind == "transform":
        type_ = list_of(bodies[-1].type)
    inside = nodes_max(bodies[-1]) if kind == "transform" else 1
    # Fallible always: the steps may run out.
    return Term(
        op=kind,
        type=type_,
        args=(items, *bodies),
        value=number,
        fallible=True,
        cost=min(items.cost + items.size_max * each, COST_TOP),
        size_max=min(items.size_max * inside, COST_TOP),
        place=node.place,
    )


def _logic(node: Call, args: tuple[Term, ...]) -> Term:
    op = "and" if node.function == "_&&_" else "or"
    flat: list[Term] = []
    for arg in _bools(node, args):
        flat.extend(arg.args if arg.op == op else (arg,))
    return Term(op=op, type=BOOL, args=tuple(flat), fallible=any(arg.fallible for arg in flat),
                cost=sum(arg.cost for arg in flat) + 1, place=node.place)  # fmt: skip


def _bools(node: Call, args: tuple[Term, ...]) -> tuple[Term, ...]:
    held = []
    for arg in args:
        term = coerced(arg, BOOL)
        if term is None:
            raise ExpressionError(
                f"a {arg.type} where true or false is due", line=arg.place.line,
                column=arg.place.column,
                remedy="compare it with something" if node.function != "map" else "",
            )  # fmt: skip
        held.append(term)
    return tuple(held)


def _choice(node: Call, args: tuple[Term, ...]) -> Term:
    (condition,) = _bools(node, args[:1])
    then, otherwise = args[1:]
    if then.type != otherwise.type:
        raise _wrong(node, f"the two sides of ?: are a {then.type} and a {otherwise.type}")
    return Term(
        op="if", type=then.type, args=(condition, then, otherwise),
        fallible=any(arg.fallible for arg in args),
        cost=condition.cost + max(then.cost, otherwise.cost) + 1,
        size_max=max(then.size_max, otherwise.size_max), place=node.place,
    )  # fmt: skip


def _joined(types: list[Type], node: Node) -> Type:
    """Return the type of the items of a list: one type, or dyn for several that JSON has."""
    if not types:
        return DYN
    if all(type_ == types[0] for type_ in types):
        return types[0]
    if all(type_.kind in JSON_KINDS and type_ != BYTES for type_ in types):
        return DYN
    mixed = ", ".join(sorted({str(type_) for type_ in types}))
    raise _wrong(node, f"values of different types in one list or map: {mixed}")


def _dotted(node: Node) -> str:
    """Return ``a.b.c`` of a chain of names, and nothing for anything else."""
    parts: list[str] = []
    while isinstance(node, Select):
        parts.append(node.field)
        node = node.operand
    if not isinstance(node, Ident):
        return ""
    return ".".join((node.name, *reversed(parts)))


def _undeclared(node: Node, dotted: str, root: str) -> ExpressionError:
    below = [name for name in FACTS if name.startswith(dotted + ".")]
    if below:
        return _wrong(node, f"{dotted[:60]} is no fact by itself",
                      remedy=f"facts: {', '.join(below[:12])}")  # fmt: skip
    near = nearest(dotted, FACTS) or nearest(root, ROOTS)
    remedy = f"did you mean '{near}'?" if near else f"facts begin with {', '.join(sorted(ROOTS))}"
    return _wrong(node, f"{dotted[:60]!a} is no fact", remedy=remedy)


def _wrong(node: Node, why: str, *, remedy: str = "") -> ExpressionError:
    return ExpressionError(why, line=node.place.line, column=node.place.column, remedy=remedy)
