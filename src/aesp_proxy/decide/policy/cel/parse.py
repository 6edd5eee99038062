"""Text to nodes, by cel-python's grammar (LALR, linear time).

Strings are decoded and numbers bounded here, so that no later step meets a literal that
has no value. What the grammar knows and conditions do not (messages, names with a leading
dot) is refused with its place.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final, cast

from aesp_proxy.decide.policy.cel.errors import ExpressionError
from aesp_proxy.decide.policy.cel.grammar import parser
from aesp_proxy.decide.policy.cel.lexical import look
from aesp_proxy.decide.policy.cel.literals import literal
from aesp_proxy.decide.policy.cel.nodes import (
    Call,
    Ident,
    ListOf,
    MapOf,
    Node,
    Place,
    Select,
)

if TYPE_CHECKING:
    from lark import Token, Tree

_NODES_DEEP_MAX = 64
_OPERATORS: Final = {
    "relation_lt": "_<_",
    "relation_le": "_<=_",
    "relation_ge": "_>=_",
    "relation_gt": "_>_",
    "relation_eq": "_==_",
    "relation_ne": "_!=_",
    "relation_in": "@in",
    "addition_add": "_+_",
    "addition_sub": "_-_",
    "multiplication_mul": "_*_",
    "multiplication_div": "_/_",
    "multiplication_mod": "_%_",
    "unary_not": "!_",
    "unary_neg": "-_",
}
_CHAINS: Final = {"conditionalor": "_||_", "conditionaland": "_&&_"}
_RESERVED: Final = frozenset(
    [
        "as",
        "break",
        "const",
        "continue",
        "else",
        "false",
        "for",
        "function",
        "if",
        "import",
        "in",
        "let",
        "loop",
        "namespace",
        "null",
        "package",
        "return",
        "true",
        "var",
        "void",
        "while",
    ]
)


@lru_cache(maxsize=256)
def parse(text: str) -> Node:
    """Parse one expression; raises ``ExpressionError`` with line and column inside it."""
    look(text)
    # Imported where it is used: a policy without rules starts without a grammar.
    from lark.exceptions import UnexpectedInput  # noqa: PLC0415

    try:
        tree = parser().parse(text)
    except UnexpectedInput as error:
        line, column = error.line, error.column
        if line < 1 or column < 1 or getattr(getattr(error, "token", None), "type", "") == "$END":
            line, column = text.count("\n") + 1, max(len(text) - text.rfind("\n") - 1, 1)
            why = "the expression ends too early"
        else:
            why = "not an expression from here on"
        raise ExpressionError(why, line=line, column=column) from None
    return _Builder().node(tree, 0)


class _Builder:
    """Walks lark's tree. Levels of the grammar that hold one child cost no depth."""

    def node(self, tree: Tree[Token], depth: int) -> Node:
        tree = _innermost(tree)
        if depth > _NODES_DEEP_MAX:
            raise _refused(tree, f"nested deeper than {_NODES_DEEP_MAX} operations")
        kind = str(tree.data)
        build: Callable[[Tree[Token], int], Node] | None = getattr(self, f"_{kind}", None)
        if build is None:
            raise _refused(tree, "a form that conditions do not have")
        return build(tree, depth + 1)

    def _expr(self, tree: Tree[Token], depth: int) -> Node:
        args = tuple(self.node(child, depth) for child in _trees(tree))
        return Call(function="_?_:_", target=None, args=args, place=_place(tree))

    def _conditionalor(self, tree: Tree[Token], depth: int) -> Node:
        return self._chain(tree, depth)

    def _conditionaland(self, tree: Tree[Token], depth: int) -> Node:
        return self._chain(tree, depth)

    def _chain(self, tree: Tree[Token], depth: int) -> Node:
        """Flatten ``a && b && c``: the tree is deep on its left, the node is flat."""
        kind, parts = str(tree.data), []
        while str(tree.data) == kind and len(tree.children) == 2:
            left, right = _trees(tree)
            parts.append(self.node(right, depth))
            tree = left if str(left.data) == kind else _innermost(left)
            if len(tree.children) == 1:
                tree = _innermost(tree)
        parts.append(self.node(tree, depth))
        place = parts[-1].place
        return Call(function=_CHAINS[kind], target=None, args=tuple(reversed(parts)), place=place)

    def _relation(self, tree: Tree[Token], depth: int) -> Node:
        return self._binary(tree, depth)

    def _addition(self, tree: Tree[Token], depth: int) -> Node:
        return self._binary(tree, depth)

    def _multiplication(self, tree: Tree[Token], depth: int) -> Node:
        return self._binary(tree, depth)

    def _binary(self, tree: Tree[Token], depth: int) -> Node:
        operator, right = _trees(tree)
        (left,) = _trees(operator)
        args = (self.node(left, depth), self.node(right, depth))
        name = _OPERATORS[str(operator.data)]
        return Call(function=name, target=None, args=args, place=_place(tree))

    def _unary(self, tree: Tree[Token], depth: int) -> Node:
        operator, operand = _trees(tree)
        name = _OPERATORS[str(operator.data)]
        args = (self.node(operand, depth),)
        return Call(function=name, target=None, args=args, place=_place(tree))

    def _member_dot(self, tree: Tree[Token], depth: int) -> Node:
        field = _token(tree, 1)
        operand = self.node(_trees(tree)[0], depth)
        return Select(operand=operand, field=str(field), place=_place(tree))

    def _member_dot_arg(self, tree: Tree[Token], depth: int) -> Node:
        name = _token(tree, 1)
        below = _trees(tree)
        target = self.node(below[0], depth)
        args = self._list(below[1], depth) if len(below) > 1 else ()
        place = Place(name.line or 1, name.column or 1)
        return Call(function=str(name), target=target, args=args, place=place)

    def _member_index(self, tree: Tree[Token], depth: int) -> Node:
        args = tuple(self.node(child, depth) for child in _trees(tree))
        return Call(function="_[_]", target=None, args=args, place=_place(tree))

    def _ident_arg(self, tree: Tree[Token], depth: int) -> Node:
        below = _trees(tree)
        args = self._list(below[0], depth) if below else ()
        return Call(function=str(_token(tree, 0)), target=None, args=args, place=_place(tree))

    def _ident(self, tree: Tree[Token], _depth: int) -> Node:
        name = str(_token(tree, 0))
        if name in _RESERVED:
            raise _refused(tree, f"'{name}' is a reserved word")
        return Ident(name=name, place=_place(tree))

    def _list_lit(self, tree: Tree[Token], depth: int) -> Node:
        below = _trees(tree)
        return ListOf(items=self._list(below[0], depth) if below else (), place=_place(tree))

    def _map_lit(self, tree: Tree[Token], depth: int) -> Node:
        below = _trees(tree)
        flat = self._list(below[0], depth) if below else ()
        entries = tuple(zip(flat[::2], flat[1::2], strict=True))
        return MapOf(entries=entries, place=_place(tree))

    def _literal(self, tree: Tree[Token], _depth: int) -> Node:
        token = _token(tree, 0)
        return literal(token.type, str(token), _place(tree))

    def _list(self, tree: Tree[Token], depth: int) -> tuple[Node, ...]:
        return tuple(self.node(child, depth) for child in _trees(tree))


def _innermost(tree: Tree[Token]) -> Tree[Token]:
    """Step down through levels that only pass one child on, iteratively."""
    passing = ("expr", "conditionalor", "conditionaland", "relation", "addition",
               "multiplication", "unary", "member", "primary", "paren_expr")  # fmt: skip
    while str(tree.data) in passing and len(tree.children) == 1:
        below = tree.children[0]
        if isinstance(below, str):
            break
        tree = below
    return tree


def _trees(tree: Tree[Token]) -> list[Tree[Token]]:
    return [child for child in tree.children if not isinstance(child, str)]


def _token(tree: Tree[Token], index: int) -> Token:
    child = tree.children[index]
    if not isinstance(child, str):
        raise _refused(tree, "a form that conditions do not have")
    return child


def _place(tree: Tree[Token]) -> Place:
    """Return the place of the first token below; the grammar drops signs, so (0, 0) for none."""
    below: object = tree
    while not isinstance(below, str):
        children = cast("Tree[Token]", below).children
        if not children:
            return Place(0, 0)
        below = (
            children[0] if isinstance(children[0], str) or children[0].children else children[-1]
        )
    token = cast("Token", below)
    return Place(token.line or 0, token.column or 0)


def _refused(tree: Tree[Token], why: str) -> ExpressionError:
    place = _place(tree)
    return ExpressionError(why, line=place.line, column=place.column)
