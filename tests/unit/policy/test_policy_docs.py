"""The policy guide says what the schema says, and its first policy does what it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from aesp_proxy.cli.policy.suite_files import SuiteRunner
from aesp_proxy.daemon.policy_files import read_policy
from aesp_proxy.decide.policy import schema
from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.decide.rules import Rules

GUIDE = (Path(__file__).parents[3] / "docs" / "policy.md").read_text()


def section(name: str) -> str:
    return GUIDE.partition(f"## `{name}`")[2].partition("\n## ")[0]


@pytest.mark.parametrize("guard", sorted(schema.GUARDS))
def test_every_key_has_a_row(guard: str) -> None:
    rows = [line for line in section(guard).splitlines() if line.startswith("|")]
    for name in schema.GUARDS[guard].keys:
        assert any(f"`{name}`" in row.split("|")[1] for row in rows), name


def blocks(language: str) -> list[str]:
    return [block.partition("```")[0] for block in GUIDE.split(f"```{language}\n")[1:]]


def test_every_policy_of_the_guide_loads(tmp_path: Path) -> None:
    policies = [block for block in blocks("yaml") if block.startswith("version:")]
    assert len(policies) >= 3
    for number, text in enumerate(policies):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        Rules(read_policy(path).rules)


def test_the_suite_of_the_guide_passes_on_the_rule_before_it(tmp_path: Path) -> None:
    (rule,) = [block for block in blocks("yaml") if "wiki.office-hours" in block]
    (suite,) = [block for block in blocks("yaml") if block.startswith("now:")]
    (tmp_path / "wiki.yaml").write_text(rule)
    (tmp_path / "wiki.test.yaml").write_text(suite)
    result = SuiteRunner(None, "").run(tmp_path / "wiki.test.yaml")
    assert [case.mismatches for case in result.results] == [(), ()]


def test_the_first_policy_of_the_guide_loads() -> None:
    text = GUIDE.partition("```yaml\n")[2].partition("```")[0]
    policy = load_policy(text, "my.yaml")
    assert policy.warnings == ()
    assert policy.egress is not None
    assert [rule.text for rule in policy.egress.allow] == ["api.anthropic.com"]
