"""One condition asked by itself, over facts given by name with ``__`` for a dot."""

from __future__ import annotations

from aesp_proxy.decide.policy.cel.condition import Condition, compile_condition, fresh_steps
from aesp_proxy.decide.policy.facts import FACTS
from aesp_proxy.decide.policy.sourced import Sourced

NAMES = sorted(FACTS)
SLOTS = {name: at for at, name in enumerate(NAMES, start=1)}


def read(
    text: str, *, source: str = "p.yaml:7", column: int = 1, style: str = "plain"
) -> Condition:
    """Compile a condition for which any fact may be unknown."""
    return compile_condition(Sourced(text, source, column, style), lambda _: None)


def ask(text: str, **facts: object) -> object:
    """Return the value of a condition; raises ``EvaluationError``."""
    known = {name.replace("__", "."): value for name, value in facts.items()}
    slots = [fresh_steps(), *(known.get(name) for name in NAMES)]
    return read(text).evaluator(SLOTS)(slots)
