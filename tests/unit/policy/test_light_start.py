"""A policy without rules starts without the grammar of conditions and what compiles them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

POLICIES = Path(__file__).parents[3] / "policies"
LOAD = """
import sys
from pathlib import Path
from aesp_proxy.daemon.pack_files import read_packs
from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.decide.snapshot import build_snapshot

policy = load_policy(Path(sys.argv[1]).read_text("utf-8"), sys.argv[1])
snapshot = build_snapshot(policy, read_packs(), fingerprint_key=b"k" * 32, serial=1)
print(len(policy.rules), *sorted(sys.modules))
"""
HEAVY = {"lark", "celpy", "aesp_proxy.decide.rules", "aesp_proxy.decide.policy.cel.parse"}


def loaded(path: Path) -> tuple[int, set[str]]:
    """Return how many rules a policy has, and what is imported once it can decide."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True, check=True
    )
    rules, *modules = done.stdout.split()
    return int(rules), set(modules)


def test_a_policy_without_rules_imports_no_grammar() -> None:
    rules, modules = loaded(POLICIES / "baseline.yaml")
    assert rules == 0
    assert not modules & HEAVY


def test_conditions_are_read_with_the_grammar_alone(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(
        'version: "1.2.0"\nname: one\nguards: {egress_allowlist: {allow: ["example.com"]}}\n'
        "rules:\n  - policy_id: a\n"
        "    rule: {condition: \"request.host == 'example.com'\", effect: AUDIT}\n"
    )
    rules, modules = loaded(path)
    assert rules == 1
    assert "lark" in modules
    assert "celpy" not in modules
