"""Every level of a scope proved: what it changes, and that it weakens nothing.

The law of levels has its say while files are joined; what it makes is compared again with
what stood above, by meaning and by deciding events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aesp_proxy.decide.policy.compile import Step
from aesp_proxy.decide.policy.effective import policy_of
from aesp_proxy.decide.policy.items import Changes, changes, items_of
from aesp_proxy.decide.policy.prove import Doubt, prove
from aesp_proxy.decide.policy.weakening import Weakening


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvedStep:
    """One file. ``events`` were decided with what stood above; none where no law holds."""

    step: Step
    changes: Changes
    doubts: tuple[Doubt, ...]
    events: int

    @property
    def weakenings(self) -> tuple[Weakening, ...]:
        """What the law of levels refuses."""
        return self.step.weakenings

    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return not self.step.weakenings and not self.doubts


Known = dict[tuple[tuple[str, str], ...], ProvedStep]
"""What is proved already, by the levels and files from the top down to it."""


def prove_steps(steps: Sequence[Step], known: Known | None = None) -> tuple[ProvedStep, ...]:
    """Prove the steps of one scope, from the top down.

    ``known`` keeps what is proved, for scopes that share their upper levels.
    """
    proved: list[ProvedStep] = []
    for at in range(len(steps)):
        name = tuple((step.level, step.file.where) for step in steps[: at + 1])
        found = None if known is None else known.get(name)
        if found is None:
            found = _proved(steps[at], steps[at - 1] if at else None)
            if known is not None:
                known[name] = found
        proved.append(found)
    return tuple(proved)


def _proved(step: Step, above: Step | None) -> ProvedStep:
    doubts: tuple[Doubt, ...] = ()
    events = 0
    if step.strict and above is not None:
        proof = prove(
            policy_of(above.tree, above.file.where), policy_of(step.tree, step.file.where)
        )
        doubts, events = proof.doubts, proof.events
    before = () if above is None else tuple(items_of(above.tree))
    made = changes(before, tuple(items_of(step.tree)))
    return ProvedStep(step=step, changes=made, doubts=doubts, events=events)
