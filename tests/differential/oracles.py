"""Three engines that are asked the same: ours, Google's C++, and cel-python's interpreter.

Each gives true, false or an error for an expression and the values of its facts. Facts are
flat variables for the others: how a policy's fact is reached is ours alone.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

import celpy
from cel_expr_python import cel
from cel_random import FACTS, flat, ours
from celpy import celtypes
from celpy.adapter import json_to_cel

from aesp_proxy.decide.policy.cel.condition import compile_condition, fresh_steps
from aesp_proxy.decide.policy.cel.errors import EvaluationError
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.errors import ConfigError


class Outcome(NamedTuple):
    """True or False, or None for an error with its text."""

    value: bool | None
    why: str = ""


class Facts:
    """The values of all facts, ready for each engine; None where unknown."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self.values = values
        self.slots = tuple(values[name] for name in FACTS)
        self.google = _ENV.Activation(google_data(values))
        self.python = python_data(values)


Asked = Callable[[Facts], Outcome]

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_SLOTS = {name: at for at, name in enumerate(FACTS, start=1)}
logging.getLogger("celpy").setLevel(logging.CRITICAL)


def moment(ns: object) -> dt.datetime:
    """Return a moment as Python holds it."""
    assert isinstance(ns, int)
    return _EPOCH + dt.timedelta(microseconds=ns // 1_000)


def own(text: str) -> Asked | None:
    """Compile with our engine; None where it refuses the expression."""
    try:
        condition = compile_condition(Sourced(ours(text), "f:1"), lambda _: None)
    except ConfigError:
        return None
    evaluate = condition.evaluator(_SLOTS)

    def ask(facts: Facts) -> Outcome:
        try:
            result = evaluate([fresh_steps(), *facts.slots])
        except EvaluationError as error:
            return Outcome(None, str(error))
        assert isinstance(result, bool)
        return Outcome(result)

    return ask


# Google's ------------------------------------------------------------------------------------

_TYPES = {
    "string": cel.Type.STRING,
    "int": cel.Type.INT,
    "double": cel.Type.DOUBLE,
    "bool": cel.Type.BOOL,
    "strings": cel.Type.List(cel.Type.STRING),
    "texts": cel.Type.Map(cel.Type.STRING, cel.Type.STRING),
    "time": cel.Type.TIMESTAMP,
    "dyn": cel.Type.DYN,
}
_ENV = cel.NewEnv(
    variables={
        **{name.replace(".", "_"): _TYPES[kind] for name, kind in FACTS.items()},
        **{"has_" + name.replace(".", "_"): cel.Type.BOOL for name in FACTS},
    }
)


def google(text: str) -> Asked | None:
    """Compile with Google's checker; None where it refuses."""
    try:
        expression = _ENV.compile(flat(text, "dyn"))
    except RuntimeError:
        return None
    if expression.return_type() not in (cel.Type.BOOL, cel.Type.DYN):
        return None

    def ask(facts: Facts) -> Outcome:
        try:
            result = expression.eval(facts.google)
        except RuntimeError as error:
            return Outcome(None, str(error))
        is_bool = result.type() == cel.Type.BOOL
        return Outcome(result.value()) if is_bool else Outcome(None, str(result.value()))

    return ask


def google_data(facts: Mapping[str, object]) -> dict[str, object]:
    """Return what is known as variables, and of every fact whether it is."""
    data: dict[str, object] = {}
    for name, kind in FACTS.items():
        value = facts[name]
        data["has_" + name.replace(".", "_")] = value is not None
        if value is not None:
            data[name.replace(".", "_")] = moment(value) if kind == "time" else value
    return data


# cel-python's --------------------------------------------------------------------------------

_CEL = celpy.Environment(runner_class=celpy.InterpretedRunner)


def python(text: str) -> Asked | None:
    """Compile with cel-python; None where its grammar refuses."""
    try:
        program = _CEL.program(_CEL.compile(flat(text)))
    except celpy.CELParseError:
        return None

    def ask(facts: Facts) -> Outcome:
        try:
            result = program.evaluate(facts.python)
        except Exception as error:  # noqa: BLE001 - CELEvalError, and what its functions let out
            return Outcome(None, f"{type(error).__name__}: {error.args[:1]}")
        is_bool = isinstance(result, celtypes.BoolType | bool)
        return Outcome(bool(result)) if is_bool else Outcome(None, f"a {type(result).__name__}")

    return ask


def python_data(facts: Mapping[str, object]) -> dict[str, object]:
    """Return what is known, in cel-python's types."""
    data: dict[str, object] = {}
    for name, kind in FACTS.items():
        value = facts[name]
        data["has_" + name.replace(".", "_")] = celtypes.BoolType(value is not None)
        if value is not None:
            flat_name = name.replace(".", "_")
            if kind == "time":
                data[flat_name] = celtypes.TimestampType(moment(value))
            else:
                data[flat_name] = json_to_cel(value)
    return data
