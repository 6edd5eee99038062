"""The CEL rules of a policy as one thing that is asked for an event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aesp_proxy.decide.answer import Answer
from aesp_proxy.decide.policy.policy import RuleItem
from aesp_proxy.model.context import Context
from aesp_proxy.model.decision import Finding
from aesp_proxy.model.event import Event


@dataclass(frozen=True, slots=True)
class RuleMatches:
    """The answers of the rules that match, each with its policy id.

    ``allows`` tells whether one with effect ALLOW is among them; ``rules`` are all ids that
    matched, ``errors`` those that matched because they could not be evaluated.
    """

    answers: tuple[tuple[Answer, str], ...] = ()
    allows: bool = False
    rules: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


NO_RULES = RuleMatches()


class Rules:
    """Compiled rules; immutable."""

    def __init__(self, items: Sequence[RuleItem]) -> None:
        self._items = tuple(items)

    def matches(self, event: Event, context: Context, findings: tuple[Finding, ...]) -> RuleMatches:
        """Return what the rules answer for one event."""
        raise NotImplementedError
