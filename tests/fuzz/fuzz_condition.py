"""Fuzz target: any text as a condition is refused with a place, or has a value or an error of ours.

What compiles is evaluated over known and unknown facts; no error may tell a fact's value.
"""

from __future__ import annotations

import contextlib
from ipaddress import ip_address

from aesp_proxy.decide.policy.cel.atoms import alternatives, atom_of
from aesp_proxy.decide.policy.cel.condition import Condition, compile_condition, fresh_steps
from aesp_proxy.decide.policy.cel.errors import EvaluationError
from aesp_proxy.decide.policy.cel.types import Kind, Type
from aesp_proxy.decide.policy.facts import FACTS
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.context import Level

_SECRET = "hunter2\udcff"
_NAMES = sorted(FACTS)
_SLOT_OF = {name: at for at, name in enumerate(_NAMES, start=1)}
_VALUES: dict[Kind, object] = {
    Kind.STRING: _SECRET,
    Kind.INT: 2**63 - 1,
    Kind.DOUBLE: float("nan"),
    Kind.BOOL: True,
    Kind.LIST: (_SECRET, "a"),
    Kind.MAP: {_SECRET: _SECRET, "a": "b"},
    Kind.DYN: {"a": [_SECRET, 10**400, None, 1.5], _SECRET: {}},
    Kind.TIMESTAMP: -62_135_596_800 * 10**9,
    Kind.LEVEL: Level.SECRET,
    Kind.ADDRESS: ip_address("fd00::1"),
}


class FindingError(AssertionError):
    """A promise that did not hold."""


def fuzz_one(data: bytes) -> None:
    """Run one input; anything but a value or an error of ours is a finding."""
    text = data.decode("utf-8", "surrogateescape")
    for style in ("plain", "double", "block"):
        try:
            condition = compile_condition(Sourced(text, "f:1", 1, style), lambda _: None)
        except ConfigError as error:
            if not str(error).startswith("f:") or "\n" in str(error):
                raise FindingError(str(error)) from error
            continue
        _run(condition)


def _run(condition: Condition) -> None:
    for conjuncts in alternatives(condition.term):
        for conjunct in conjuncts:
            atom_of(conjunct)
    for conjunct in condition.conjuncts:
        condition.text_of(conjunct)
    evaluate = condition.evaluator(_SLOT_OF)
    for known in (True, False):
        values = [_value(FACTS[name].type) if known else None for name in _NAMES]
        with contextlib.suppress(EvaluationError):
            try:
                result = evaluate([fresh_steps(), *values])
            except EvaluationError as error:
                if "hunter2" in str(error):
                    raise FindingError(str(error)) from error
                raise
            if not isinstance(result, bool):
                raise FindingError(condition.text.value)


def _value(type_: Type) -> object:
    if type_.kind is Kind.LIST and type_.item is not None and type_.item.kind is Kind.OBJECT:
        return ({name: _SECRET for name, _ in type_.item.fields},)
    return _VALUES[type_.kind]
