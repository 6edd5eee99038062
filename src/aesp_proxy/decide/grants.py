"""What approved exceptions lift, in force or not at the time of the event."""

from __future__ import annotations

from collections.abc import Iterable

from aesp_proxy.decide.answer import Answer
from aesp_proxy.model.event import Event
from aesp_proxy.model.grant import Grant


class Grants:
    """The grants of a policy, by kind."""

    def __init__(self, grants: Iterable[Grant]) -> None:
        self._grants = tuple(grants)

    def lifted(self, answer: Answer, event: Event) -> Answer | None:
        """Return the answer instead of a refusal that a grant lifts; None where none does."""
        return None
