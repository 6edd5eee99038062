"""What changes between two policies in meaning, each change with a witness that was decided.

A change of an entry, a rule or a value is a claim until an event is found that the two
policies decide differently; it is decided by both before it is told. A change that cannot
make a difference, because something else says the same, is text only, and said so. Where
nothing was found either way, that is said too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from aesp_proxy.decide.engine import decide
from aesp_proxy.decide.policy.cel.terms import Term, asked_of
from aesp_proxy.decide.policy.policy import Policy
from aesp_proxy.decide.policy.witness import Demand
from aesp_proxy.decide.policy.witness_event import Witness
from aesp_proxy.decide.snapshot import Snapshot, build_snapshot
from aesp_proxy.model.context import Context
from aesp_proxy.model.decision import Decision
from aesp_proxy.model.event import Event


class Direction(StrEnum):
    """What a change does."""

    WEAKER = "weaker"
    STRICTER = "stricter"
    OTHER = "other"
    TEXT = "text"
    UNPROVED = "unproved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change. ``what`` is added, removed or changed; ``item`` the entry, rule or value.

    ``source`` is FILE:LINE of it, in the policy that has it. With a ``witness`` go the two
    decisions; without one ``why`` says what is known.
    """

    key: str
    what: str
    item: str
    source: str
    direction: Direction
    why: str = ""
    witness: Witness | None = None
    before: Decision | None = None
    after: Decision | None = None


Owed = Callable[[Decision], bool]
"""Tells whether a decision is that of an item."""

Search = Callable[[Direction | None], Witness | None]
"""Looks for an event that is decided differently in a direction; None is any way at all."""


class Pair:
    """Two policies, compiled without the secret scanner, to decide events by both."""

    def __init__(self, before: Policy, after: Policy) -> None:
        self.before, self.after = before, after
        self._old, self._new = _compiled(before), _compiled(after)
        snapshots = (self._old, self._new)
        rules = [rule for each in snapshots if each.rules is not None for rule in each.rules.rules]
        terms = dict.fromkeys(rule.condition.term for rule in rules)
        # The conditions of all rules of both, and the facts that they read.
        self.terms: tuple[Term, ...] = tuple(terms)
        self.facts = frozenset().union(*map(asked_of, self.terms))

    def decided(self, event: Event, context: Context) -> tuple[Decision, Decision]:
        """Decide an event by both."""
        return decide(event, self._old, context), decide(event, self._new, context)

    def differs(
        self,
        facts: frozenset[str],
        *,
        direction: Direction | None = None,
        owed_to: Owed | None = None,
    ) -> Demand:
        """Return the demand that the two decide differently, in a direction or in any way.

        Without a direction another reason is a difference too. ``owed_to`` tells of a decision
        whether it is that of the item in question, so that no other change is taken for it.
        """

        def met(event: Event, context: Context) -> bool:
            old, new = self.decided(event, context)
            if owed_to is not None and not (owed_to(old) or owed_to(new)):
                return False
            if direction is not None:
                return direction_of(old, new) is direction
            return (old.verdict, old.reason, old.guard) != (new.verdict, new.reason, new.guard)

        return Demand(facts=facts, met=met, costly=True)

    def proved(self, change: Change, witness: Witness | None) -> Change | None:
        """Return a change with its witness decided; None where it makes no difference."""
        if witness is None:
            return None
        old, new = self.decided(witness.event, witness.context)
        if (old.verdict, old.reason, old.guard) == (new.verdict, new.reason, new.guard):
            return None
        return replace(
            change,
            witness=witness,
            before=old,
            after=new,
            direction=direction_of(old, new),
            why="",
        )

    def searched(self, change: Change, search: Search) -> Iterator[Change]:
        """Yield a change in each direction that it has, else as another reason, else as it is.

        A rule that says something else may let pass here and refuse there: both are told.
        """
        found = False
        for direction in (Direction.WEAKER, Direction.STRICTER):
            proved = self.proved(change, search(direction))
            if proved is not None:
                found = True
                yield proved
        if not found:
            yield self.proved(change, search(None)) or change

    def first_proved(
        self, change: Change, witnesses: Iterable[Witness], owed_to: Owed
    ) -> Change | None:
        """Return a change proved by the first that differs by verdict, else by reason."""
        weak = None
        for witness in witnesses:
            proved = self.proved(change, witness)
            if proved is None or proved.before is None or proved.after is None:
                continue
            if not (owed_to(proved.before) or owed_to(proved.after)):
                continue
            if proved.before.verdict is not proved.after.verdict:
                return proved
            weak = weak or proved
        return weak


def direction_of(before: Decision, after: Decision) -> Direction:
    """Tell whether the second of two decisions is the weaker or the stricter one."""
    old, new = before.verdict, after.verdict
    if old.passes == new.passes:
        return Direction.OTHER
    return Direction.WEAKER if new.passes else Direction.STRICTER


def _compiled(policy: Policy) -> Snapshot:
    off = replace(policy, secrets=replace(policy.secrets, enabled=False))
    return build_snapshot(off, (), fingerprint_key=b"", serial=0)
