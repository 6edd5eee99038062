"""One condition: read, typed, bounded, ready to be evaluated and to be told apart.

``compile_condition`` is the whole way of an expression; everything that is wrong with it is
a ``ConfigError`` with the place in the policy's file. The functions are made when they are
first asked for: what the index decides is never evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aesp_proxy.decide.policy.cel.check import Known, check
from aesp_proxy.decide.policy.cel.emit import Evaluator, emit
from aesp_proxy.decide.policy.cel.errors import ExpressionError
from aesp_proxy.decide.policy.cel.parse import parse
from aesp_proxy.decide.policy.cel.runtime import STEPS_MAX
from aesp_proxy.decide.policy.cel.terms import COST_TOP, Term, asked_of, conjuncts_of
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.errors import ConfigError

COST_MAX: Final = 200_000
"""Steps that a condition may take in the worst case; a step is about a tenth of a microsecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A condition, checked. ``conjuncts`` are its parts at the outermost ``&&``."""

    text: Sourced[str]
    term: Term

    @property
    def conjuncts(self) -> tuple[Term, ...]:
        """The parts that must all hold."""
        return conjuncts_of(self.term)

    @property
    def facts(self) -> frozenset[str]:
        """The facts that it reads or asks for."""
        return asked_of(self.term)

    @property
    def cost(self) -> int:
        """The worst case, in steps."""
        return self.term.cost

    def evaluator(self, slot_of: Mapping[str, int]) -> Evaluator:
        """Compile it over slots; see ``emit``."""
        return emit(self.term, slot_of)

    def text_of(self, conjunct: Term) -> str:
        """Return the words of a conjunct, by its place in the text."""
        starts = sorted(_offset(self.text.value, each) for each in self.conjuncts)
        begin = _offset(self.text.value, conjunct)
        later = [start for start in starts if start > begin]
        piece = self.text.value[begin : later[0] if later else None]
        return " ".join(piece.strip().removesuffix("&&").split())


def compile_condition(text: Sourced[str], known: Known) -> Condition:
    """Compile one condition; raises ``ConfigError`` with FILE:LINE:COL.

    ``known`` tells of a fact whether it is always, sometimes (None) or never known where
    the condition is evaluated.
    """
    try:
        term = _bounded(check(parse(text.value), known))
    except RecursionError:
        raise ConfigError("bad condition: nested too deep", where=place_of(text, 1, 1)) from None
    except ExpressionError as error:
        raise ConfigError(
            f"bad condition: {error.message}",
            where=place_of(text, error.line, error.column),
            remedy=error.remedy,
        ) from None
    return Condition(text=text, term=term)


def _bounded(term: Term) -> Term:
    if term.cost > COST_MAX:
        raise ExpressionError(
            f"the worst case is {_told(term.cost)} steps, {COST_MAX} are allowed",
            line=term.place.line,
            column=term.place.column,
            remedy="loop over less, or loop once",
        )
    return term


def _told(cost: int) -> str:
    return str(cost) if cost < COST_TOP else f"over {COST_TOP}"


def place_of(text: Sourced[str], line: int, column: int) -> str:
    """Return FILE:LINE:COL in the policy of a place inside a text of it.

    A text in quotes begins one column further; a block begins on the line after its sign,
    where the column is not known better than by the text.
    """
    line, column = max(line, 1), max(column, 1)
    file, _, first = text.source.rpartition(":")
    if not first.isdigit():
        return text.where
    if text.style == "block":
        return f"{file}:{int(first) + line}:{column}"
    if line > 1:
        return f"{file}:{int(first) + line - 1}:{column}"
    quoted = 1 if text.style in ("single", "double") else 0
    return f"{file}:{first}:{text.column + quoted + column - 1}"


def fresh_steps() -> list[int]:
    """Return slot 0 of an event."""
    return [STEPS_MAX]


def _offset(text: str, term: Term) -> int:
    """Return where a term begins: its leftmost place, before the brackets around it."""
    line, column = min(_places(term), default=(1, 1))
    at = sum(len(each) for each in text.split("\n")[: line - 1]) + (line - 1) + column - 1
    while at and text[at - 1] in "(!- ":
        at -= 1
    return at


def _places(term: Term) -> list[tuple[int, int]]:
    found = [(term.place.line, term.place.column)] if term.place.line else []
    for arg in term.args:
        found.extend(_places(arg))
    return found
