"""What a guard is and what it may answer; the engine makes a decision of the answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from aesp_proxy.model.decision import Finding, Reason, Severity, Verdict
from aesp_proxy.model.event import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One guard's answer. No field that decides has a default but the strict ones.

    ``implicit`` marks a refusal for want of an entry (``default_action``, a path or tool on
    no list): a rule with effect ALLOW lifts it, and only it. What an entry forbids stays
    forbidden. ``behind`` is what the guard refuses besides: it stands where a grant lifts
    the answer itself.
    """

    verdict: Verdict
    reason: Reason
    severity: Severity
    message: str
    source: str = ""
    findings: tuple[Finding, ...] = ()
    remediation: tuple[str, ...] = ()
    implicit: bool = False
    behind: Answer | None = None


@dataclass(frozen=True, slots=True)
class RuleMatches:
    """The answers of the rules that match, each with its policy id: the first of each effect.

    ``allows`` tells whether one with effect ALLOW is among them; ``rules`` are all ids that
    matched, ``errors`` those that could not be evaluated.
    """

    answers: tuple[tuple[Answer, str], ...] = ()
    allows: bool = False
    rules: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


NO_RULES = RuleMatches()


class Guard(Protocol):
    """Answers for the kinds of event it knows and returns None for the others.

    ``grants`` tells an access guard, whose answer may let an event pass, from a content
    guard, whose answer can only add a refusal or a note: an event that no access guard
    answers for is refused, whatever content guards say.
    """

    @property
    def name(self) -> str:
        """The guard's name in policies, decisions and records."""
        ...

    @property
    def grants(self) -> bool:
        """Whether an answer of this guard may let an event pass."""
        ...

    def check(self, event: Event) -> Answer | None:
        """Answer for one event; None when the guard has nothing to say about it."""
        ...
