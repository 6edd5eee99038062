"""Policies, snapshots and rules made of a few lines, for the tests of the tools."""

from __future__ import annotations

import textwrap
from dataclasses import replace

from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.decide.policy.policy import Effect, Policy, RuleItem
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.decide.snapshot import Snapshot, build_snapshot

HEAD = "version: '1.2.0'\nname: test\n"


def policy_of(text: str, where: str = "p.yaml") -> Policy:
    """Load a policy whose head is left out."""
    return load_policy(HEAD + textwrap.dedent(text), where)


def snapshot_of(policy: Policy) -> Snapshot:
    """Compile a policy without the secret scanner."""
    off = replace(policy, secrets=replace(policy.secrets, enabled=False))
    return build_snapshot(off, (), fingerprint_key=b"k" * 32, serial=1)


def rule_item(
    condition: str,
    *,
    effect: Effect = Effect.DENY,
    applies_to: tuple[str, ...] = (),
    actions: tuple[str, ...] = (),
    policy_id: str = "r",
    line: int = 1,
) -> RuleItem:
    """Make a rule as a policy states it."""

    def at(text: str) -> Sourced[str]:
        return Sourced(text, f"p.yaml:{line}")

    return RuleItem(
        policy_id=at(policy_id),
        version="",
        description="",
        applies_to=tuple(map(at, applies_to)),
        enabled=True,
        condition=at(condition),
        effect=effect,
        actions=tuple(map(at, actions)),
        parameters=(),
    )
