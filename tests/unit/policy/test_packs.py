"""Every pack has a suite that it passes and that tries every rule; overlays name controls."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aesp_proxy.cli.policy.suite_files import SUITE_ENDING, SuiteRunner, find_suites
from aesp_proxy.daemon.policy_files import lone_parents, read_text
from aesp_proxy.daemon.policy_overlay import read_overlay
from aesp_proxy.decide.policy.effective import policy_of
from aesp_proxy.decide.policy.levels import strictly_joined
from aesp_proxy.decide.policy.load import joined_chain, read_chain
from aesp_proxy.decide.policy.stated import read_stated
from aesp_proxy.errors import ConfigError

PACKS = Path(__file__).parents[3] / "policies"
EXAMPLE = PACKS / "examples"
SUITES = find_suites([PACKS])
LONE = ["baseline", "coding-agent", "ci", "strict", "permissive-observe"]
CONTROLS = {
    "hipaa": r"45 CFR 164\.\d{3}\(",
    "soc2": r"\b(CC\d\.\d|C1\.1)\b",
    "gdpr": r"\bArt\. \d+",
    "fedramp": r"\b[A-Z]{2}-\d+",
    "pci-dss": r"\breq\. \d+\.\d+",
    "iso27001": r"\bA\.\d\.\d+",
}
# Keys of guards, rules and settings; a key may share the comment of the one above it.
ENTRIES = re.compile(r"^    \w+:|^  - policy_id:|^  (session_timeout_secs|verbose_logging):")


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> SuiteRunner:
    return SuiteRunner(tmp_path_factory.mktemp("state") / "cache")


def test_the_set_is_whole() -> None:
    named = {path.relative_to(PACKS).with_suffix("").as_posix() for path in PACKS.glob("*.yaml")}
    assert {name for name in named if not name.endswith(".test")} == set(LONE)
    overlays = {path.stem for path in (PACKS / "compliance").glob("*.yaml")}
    assert {name for name in overlays if not name.endswith(".test")} == set(CONTROLS)


def test_every_pack_has_its_suite() -> None:
    packs = [*PACKS.glob("*.yaml"), *(PACKS / "compliance").glob("*.yaml")]
    alone = [
        pack.name
        for pack in packs
        if not pack.name.endswith(SUITE_ENDING)
        and not pack.with_name(pack.stem + SUITE_ENDING).is_file()
    ]
    assert alone == []


@pytest.mark.parametrize("suite", SUITES, ids=lambda path: path.relative_to(PACKS).as_posix())
def test_every_suite_passes_and_tries_every_rule(runner: SuiteRunner, suite: Path) -> None:
    result = runner.run(suite)
    assert [(case.case.where, case.mismatches) for case in result.failures] == []
    assert result.covered.rule_gaps == ()
    assert result.covered.conjunct_gaps == ()


@pytest.mark.parametrize("framework", CONTROLS)
def test_a_comment_above_each_list_and_rule_names_the_control(framework: str) -> None:
    lines = (PACKS / "compliance" / f"{framework}.yaml").read_text().splitlines()
    bare = [
        f"{at + 1}: {line.strip()}"
        for at, line in enumerate(lines)
        if ENTRIES.match(line)
        and not is_within_a_rule(lines, at)
        and not re.search(CONTROLS[framework], comment_above(lines, at))
    ]
    assert bare == []


def is_within_a_rule(lines: list[str], at: int) -> bool:
    return lines[at].startswith("    ") and lines.index("rules:") < at


def comment_above(lines: list[str], at: int) -> str:
    """Return the comment above a line, or above the keys of the same guard before it."""
    at -= 1
    while ENTRIES.match(lines[at]):
        at -= 1
    last = at
    while lines[at].lstrip().startswith("#"):
        at -= 1
    return "\n".join(lines[at + 1 : last + 1])


@pytest.mark.parametrize("pack", ["baseline", "coding-agent", "ci", "strict"])
def test_all_overlays_together_lie_over_a_pack_that_refuses_by_default(pack: str) -> None:
    path = PACKS / f"{pack}.yaml"
    tree, _ = joined_chain(read_chain(read_text(path), str(path), lone_parents(path, str(path))))
    for framework in sorted(CONTROLS):
        place = PACKS / "compliance" / f"{framework}.yaml"
        join = strictly_joined(tree, read_stated(read_text(place), str(place)))
        assert [weakening.message for weakening in join.weakenings] == []
        tree = join.tree
    rules = {rule.policy_id.value for rule in policy_of(tree, "joined").rules}
    assert {f"{framework}.transmission.tls" for framework in CONTROLS} <= rules


def test_an_overlay_that_would_weaken_what_it_lies_over_is_refused(tmp_path: Path) -> None:
    weak = tmp_path / "weak.yaml"
    weak.write_text(
        'version: "1.2.0"\nname: w\n'
        "guards: {egress_allowlist: {additional_allow: [evil.example]}}\n"
    )
    with pytest.raises(ConfigError, match=r"evil\.example"):
        read_overlay(weak, PACKS / "strict.yaml")


def test_what_an_overlay_extends_and_lies_over_is_joined_once(tmp_path: Path) -> None:
    (tmp_path / "above.yaml").write_text((PACKS / "strict.yaml").read_text())
    child = tmp_path / "child.yaml"
    child.write_text('version: "1.2.0"\nname: child\nextends: above\n')
    policy = read_overlay(child, tmp_path / "above.yaml")
    assert [Path(layer.path).name for layer in policy.layers] == ["above.yaml", "child.yaml"]
