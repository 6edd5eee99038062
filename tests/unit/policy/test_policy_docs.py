"""The policy guide says what the schema says, and its first policy does what it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from aesp_proxy.decide.policy import schema
from aesp_proxy.decide.policy.load import load_policy

GUIDE = (Path(__file__).parents[3] / "docs" / "policy.md").read_text()


def section(name: str) -> str:
    return GUIDE.partition(f"## `{name}`")[2].partition("\n## ")[0]


@pytest.mark.parametrize("guard", ["egress_allowlist", "forbidden_path", "secret_leak", "mcp_tool"])
def test_every_key_has_a_row(guard: str) -> None:
    rows = [line for line in section(guard).splitlines() if line.startswith("|")]
    for name in schema.GUARDS[guard].keys:
        assert any(f"`{name}`" in row.split("|")[1] for row in rows), name


def test_the_first_policy_of_the_guide_loads() -> None:
    text = GUIDE.partition("```yaml\n")[2].partition("```")[0]
    policy = load_policy(text, "my.yaml")
    assert policy.warnings == ()
    assert policy.egress is not None
    assert [rule.text for rule in policy.egress.allow] == ["api.anthropic.com"]
