"""The rules of a policy, typed; their conditions are read by ``decide.rules``."""

from __future__ import annotations

from aesp_proxy.decide.policy.policy import Effect, RuleItem
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.decide.policy.table import Table
from aesp_proxy.errors import ConfigError


def rule_items(tables: tuple[Table, ...]) -> tuple[RuleItem, ...]:
    """Return the rules of checked tables, in their order."""
    return tuple(_item(table) for table in tables)


def _item(table: Table) -> RuleItem:
    body = table.table("rule")
    name = table.text("policy_id")
    condition = None if body is None else body.text("condition")
    effect = None if body is None else body.text("effect")
    if body is None or name is None or condition is None or effect is None:
        # The schema requires them all.
        raise ConfigError("a rule is not whole", where=table.where("policy_id"))
    return RuleItem(
        policy_id=name,
        version=_plain(table.text("version")),
        description=_plain(table.text("description")),
        applies_to=table.texts("applies_to") or (),
        enabled=table.flag("enabled", default=True),
        condition=condition,
        effect=Effect(effect.value),
        actions=body.texts("actions") or (),
        parameters=body.pairs("parameters"),
    )


def _plain(text: Sourced[str] | None) -> str:
    return "" if text is None else text.value
