"""What `run` takes by itself to guard files, and says of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).parent / "aesp-proxy"
POLICY = """\
version: "1.2.0"
name: files
guards:
  egress_allowlist: {allow: [one.test]}
  secret_leak: {enabled: false}
"""
FORBIDS = '  forbidden_path: {patterns: ["**/.env"]%s}\n'


class Place:
    """A project with a forbidden file, and a home beside it."""

    def __init__(self, folder: Path) -> None:
        self.project, self.home, self.state = (folder / name for name in ("p", "h", "s"))
        self.project.mkdir()
        self.home.mkdir()
        (self.project / ".env").write_text("THE-TOKEN\n")

    def run(self, policy: str, *words: str) -> subprocess.CompletedProcess[str]:
        (self.project / "policy.yaml").write_text(policy)
        environment = {k: v for k, v in os.environ.items() if k != "AESP_FILES_BACKEND"}
        named = ["--policy", "policy.yaml", "--state", str(self.state), "--allow-degraded"]
        return subprocess.run(
            [str(PROGRAM), "run", *named, *words, "--", "cat", ".env"],
            cwd=self.project,
            env=environment | {"HOME": str(self.home)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_policy_that_speaks_of_files_is_enforced_without_being_asked(place):
    ran = place.run(POLICY + FORBIDS % "")
    assert ran.returncode == 1, ran.stderr
    assert ran.stdout == ""
    assert f"({place.project}:{place.home})" in ran.stderr
    assert any(f"files: {name}: every" in ran.stderr for name in ("fuse", "notify"))


def test_a_policy_that_says_nothing_of_files_leaves_them_alone(place):
    ran = place.run(POLICY)
    assert (ran.returncode, ran.stdout) == (0, "THE-TOKEN\n"), ran.stderr
    assert "files:" not in ran.stderr


def test_none_leaves_them_alone_but_not_where_the_policy_requires_a_guard(place):
    ran = place.run(POLICY + FORBIDS % "", "--files", "none")
    assert (ran.returncode, ran.stdout) == (0, "THE-TOKEN\n"), ran.stderr
    ran = place.run(POLICY + FORBIDS % ", require: enforce", "--files", "none")
    assert ran.stdout == ""
    assert ran.returncode != 0


def test_who_only_observes_sees_what_the_command_did_first(place):
    ran = place.run(POLICY + FORBIDS % "", "--files", "observe")
    assert (ran.returncode, ran.stdout) == (0, "THE-TOKEN\n"), ran.stderr
    seen = subprocess.run(
        [str(PROGRAM), "audit", "tail", "--state", str(place.state), "--json"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    opened = [json.loads(line) for line in seen.splitlines() if "/.env" in line]
    assert [record["action"] for record in opened] == ["file.open"], seen
    assert "not stopped" in opened[0]["message"]
