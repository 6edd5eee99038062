"""Parts of a condition that read nothing: their value is known before any event."""

from __future__ import annotations

from aesp_proxy.decide.policy.cel.emit import emit
from aesp_proxy.decide.policy.cel.errors import EvaluationError
from aesp_proxy.decide.policy.cel.runtime import STEPS_MAX
from aesp_proxy.decide.policy.cel.terms import Term, asked_of


def constant_of(term: Term) -> bool | None:
    """Return what a part is whatever happens; None where that depends, or is an error."""
    if term.op == "const":
        return term.value if isinstance(term.value, bool) else None
    if asked_of(term):
        return None
    try:
        return emit(term, {})(([STEPS_MAX],)) is True
    except EvaluationError:
        return None
