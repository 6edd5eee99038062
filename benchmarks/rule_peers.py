"""Other engines with the same rules: each takes an event to the ids of what matches.

cel-python interpreted and cel-expr-python evaluate every rule, as they do where nothing is
in front of them; Cedar is asked once and tells the policies that decide. Turning an event
into what the engine takes is part of the call. An engine that is not installed is None.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.rule_set import Asked, Written, cedar_request, events_of, facts_of, nested

Engine = Callable[[Asked], frozenset[str]]


def cel_python(rules: Sequence[Written]) -> Engine | None:
    """Evaluate every rule with cel-python's interpreter, one program a rule."""
    try:
        celpy: Any = importlib.import_module("celpy")
    except ImportError:
        return None
    env = celpy.Environment()
    programs = [(rule.policy_id, env.program(env.compile(rule.cel))) for rule in rules]
    to_cel = celpy.json_to_cel

    def ask(asked: Asked) -> frozenset[str]:
        facts = to_cel(nested(facts_of(asked)))
        return frozenset(name for name, program in programs if program.evaluate(facts))

    return ask


def cel_expr_python(rules: Sequence[Written]) -> Engine | None:
    """Evaluate every rule with Google's C++ engine: declared flat variables, one activation."""
    try:
        cel: Any = importlib.import_module("cel_expr_python.cel")
    except ImportError:
        return None
    types, strings = cel.Type, cel.Type.List(cel.Type.STRING)
    of_fact = {
        "request.port": types.INT,
        "request.time": types.TIMESTAMP,
        "request.user.roles": strings,
        "request.user.groups": strings,
        "request.user.mfa_verified": types.BOOL,
        "session.labels": strings,
        "session.risk_score": types.DOUBLE,
    }
    names = list(facts_of(events_of(1, 1)[0]))
    env = cel.NewEnv(variables={name: of_fact.get(name, types.STRING) for name in names})
    programs = [(rule.policy_id, env.compile(rule.cel)) for rule in rules]

    def ask(asked: Asked) -> frozenset[str]:
        given = env.Activation(facts_of(asked))
        return frozenset(name for name, program in programs if program.eval(given).value() is True)

    return ask


def cedar(rules: Sequence[Written]) -> Engine | None:
    """Ask Cedar once, with policies and entities read beforehand."""
    try:
        cedarpy: Any = importlib.import_module("cedarpy")
    except ImportError:
        return None
    text = "permit(principal, action, resource);\n" + "\n".join(rule.cedar for rule in rules)
    policies = cedarpy.PolicySet.from_str(text)
    entities = cedarpy.Entities.from_json_str("[]")

    def ask(asked: Asked) -> frozenset[str]:
        answer = cedarpy.is_authorized(cedar_request(asked), policies, entities)
        if answer.diagnostics.errors:
            raise RuntimeError(str(answer.diagnostics.errors[0]))
        # Its names count from policy0, which is the permit.
        found = answer.diagnostics.reasons if not answer.allowed else ()
        return frozenset(f"r{int(name.removeprefix('policy')) - 1}" for name in found)

    return ask


ENGINES: dict[str, Callable[[Sequence[Written]], Engine | None]] = {
    "cel_python": cel_python,
    "cel_expr_python": cel_expr_python,
    "cedarpy": cedar,
}
