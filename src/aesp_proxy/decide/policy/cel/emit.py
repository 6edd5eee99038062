"""Terms to Python: one function over the slots of an event.

The text that is compiled holds names of ours, operators and the numbers of slots and
constants, nothing of the expression: constants are objects in the function's globals. The
globals hold ``runtime`` and no builtins but the six below, so that a fault in this module
reaches nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from aesp_proxy.decide.policy.cel import conversions, moments, prepared, runtime
from aesp_proxy.decide.policy.cel.operations import OPERATIONS
from aesp_proxy.decide.policy.cel.terms import Term

Slots = Sequence[object]
"""The values of an event's facts by slot, None where unknown; slot 0 is the steps left."""

Evaluator = Callable[[Slots], object]

_LOOPS: Final = {"all": "loop_all", "exists": "loop_exists", "exists_one": "loop_one",
                 "filter": "loop_filter"}  # fmt: skip
_CODE: Final[Mapping[str, str]] = {
    **{way.op: way.code for ways in OPERATIONS.values() for way in ways},
    "==": "({0} == {1})",
    "equal": "equal({0}, {1})",
    "in": "({0} in {1})",
    "dyn_in": "dyn_in({0}, {1})",
    "holds": "{0}.holds({1})",
    "not": "(not {0})",
    "if": "({1} if {0} else {2})",
    "item_at": "item_at({0}, {1})",
    "value_of": "value_of({0}, {1})",
    "dyn_item": "dyn_item({0}, {1})",
    "concat_lists": "concat_lists({0}, {1}, s[0])",
    **{name: f"{name}({{0}})" for name in ("as_bool", "as_int", "as_double", "as_string",
                                           "as_items")},
}  # fmt: skip
_MODULES: Final = (conversions, moments, prepared, runtime)
_GLOBALS: Final[Mapping[str, object]] = {
    **{
        name: value
        for module in _MODULES
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    },
    "__builtins__": {"len": len, "str": str, "float": float, "abs": abs, "bool": bool,
                     "True": True},
}  # fmt: skip


def emit(term: Term, slot_of: Mapping[str, int]) -> Evaluator:
    """Compile a term; ``slot_of`` gives the slot of each fact that it reads.

    The function returns the value or raises ``EvaluationError``; its loops count down the
    one number in slot 0.
    """
    writer = _Writer(slot_of)
    body = writer.code(term)
    function: Evaluator = compiled(f"lambda s: {body}", "<condition>", writer.constants)
    return function


def compiled(text: str, name: str, names: Mapping[str, object]) -> Any:  # noqa: ANN401 - the caller names the type
    """Compile a text of ours, a ``lambda``, with these names beside those of ``runtime``."""
    return eval(compile(text, name, "eval"), {**_GLOBALS, **names})  # noqa: S307 - see above


class _Writer:
    def __init__(self, slot_of: Mapping[str, int]) -> None:
        self._slot_of = slot_of
        self.constants: dict[str, object] = {}

    def code(self, term: Term) -> str:
        """Return Python for a term."""
        match term.op:
            case "const":
                return self._constant(term.value)
            case "fact":
                return self._fact(term)
            case "has":
                return f"(s[{self._slot_of[str(term.value)]}] is not None)"
            case "var":
                return f"v{term.value}"
            case "and" | "or":
                return self._logic(term)
            case "list":
                return self._list(term)
            case "map":
                pairs = zip(term.args[::2], term.args[1::2], strict=True)
                told = ", ".join(f"({self.code(k)}, {self.code(v)})" for k, v in pairs)
                return f"map_of_pairs({told})"
            case "field":
                return f"{self.code(term.args[0])}[{self._constant(term.value)}]"
            case "dyn_field" | "dyn_has":
                return f"{term.op}({self.code(term.args[0])}, {self._constant(term.value)})"
            case "transform" | "all" | "exists" | "exists_one" | "filter":
                return self._loop(term)
            case _:
                return _CODE[term.op].format(*(self.code(arg) for arg in term.args))

    def _constant(self, value: object) -> str:
        if value is True or value is False:
            return str(value)
        name = f"k{len(self.constants)}"
        self.constants[name] = value
        return name

    def _fact(self, term: Term) -> str:
        slot = f"s[{self._slot_of[str(term.value)]}]"
        if not term.fallible:
            return slot
        return f"({slot} if {slot} is not None else absent({self._constant(term.value)}))"

    def _logic(self, term: Term) -> str:
        """Write ``&&`` and ``||``: what cannot fail first, so that it ends the matter early."""
        word, function = ("and", "every") if term.op == "and" else ("or", "some")
        sure = [self.code(arg) for arg in term.args if not arg.fallible]
        unsure = [f"lambda: {self.code(arg)}" for arg in term.args if arg.fallible]
        if len(unsure) == 1 and not sure:
            return f"({unsure[0].removeprefix('lambda: ')})"
        if unsure:
            one = len(unsure) == 1
            sure.append(unsure[0].removeprefix("lambda: ") if one
                        else f"{function}({', '.join(unsure)})")  # fmt: skip
        return f"({f' {word} '.join(sure)})"

    def _list(self, term: Term) -> str:
        plain = all(arg.op == "const" for arg in term.args)
        if plain:
            return self._constant(tuple(arg.value for arg in term.args))
        return f"({', '.join(self.code(arg) for arg in term.args)},)" if term.args else "()"

    def _loop(self, term: Term) -> str:
        items, *bodies = term.args
        codes = [f"lambda v{term.value}: {self.code(body)}" for body in bodies]
        if term.op == "transform":
            wanted = codes[0] if len(codes) > 1 else "None"
            return f"loop_map({self.code(items)}, {wanted}, {codes[-1]}, s[0])"
        return f"{_LOOPS[term.op]}({self.code(items)}, {codes[0]}, s[0])"


def loops(term: Term) -> bool:
    """Tell whether evaluating a term counts steps."""
    if term.op in ("all", "exists", "exists_one", "filter", "transform", "concat_lists"):
        return True
    return any(loops(arg) for arg in term.args)
