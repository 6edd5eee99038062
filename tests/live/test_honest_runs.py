"""Honest programs in whole runs that stage, or only observe: all in one run, each unbroken.

The live view, held calls and the watch play them one by one (``honest_files.PLAYED``).
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from honest_files import HEAD, HONEST

PROGRAM = Path(sys.executable).parent / "aesp-proxy"
POLICY = """\
version: "1.2.0"
name: honest
guards:
  egress_allowlist: {default_action: block, allow: []}
  forbidden_path: {enabled: true, patterns: ["**/.env", "**/.ssh/**"]}
  secret_leak: {enabled: true}
"""
TIME_S = 110
KEPT = "echo kept > kept; mkdir -p d; echo deep > d/deep; "


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="aesp"))
    (made / "policy.yaml").write_text(POLICY)
    for name in ("p", "home"):
        (made / name).mkdir()
    (made / "p" / ".env").write_text("THE-TOKEN")
    yield made
    shutil.rmtree(made, ignore_errors=True)


def _script() -> str:
    """Run each program in a directory of its own, tell how it ended, and remove it."""
    lines = []
    for number, (needs, script) in enumerate(HONEST.values()):
        part = shlex.quote(f"cd {number} && {HEAD}{script}")
        missing = f"command -v {needs} > /dev/null || {{ echo {number} missing; false; }}"
        lines.append(
            f"if {missing}; then mkdir {number}; bash -c {part} > {number}.out 2>&1\n"
            f"code=$?; echo {number} $code; test $code = 0 || tail -5 {number}.out\n"
            f"rm -rf {number} {number}.out; fi"
        )
    return KEPT + "\n".join(lines)


@pytest.mark.parametrize("backend", ["stage", "observe"])
@pytest.mark.timeout(3 * TIME_S)
def test_honest_programs_are_unbroken_in_a_whole_run(folder, backend):
    options = ["--state", str(folder / "state"), "--policy", str(folder / "policy.yaml")]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        [str(PROGRAM), "run", *options, "--files", backend, "--", "bash", "-c", _script()],
        cwd=folder / "p",
        env={**os.environ, "HOME": str(folder / "home"), "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=3 * TIME_S,
        check=False,
    )
    said = ran.stdout.splitlines()
    ended = dict(zip(HONEST, range(len(HONEST)), strict=True))
    wrong = {
        name: number
        for name, number in ended.items()
        if f"{number} 0" not in said and f"{number} missing" not in said
    }
    assert not wrong, f"{wrong}\n{ran.stdout}\n{ran.stderr}"
    tree = sorted(str(each.relative_to(folder / "p")) for each in (folder / "p").rglob("*"))
    kept = [] if backend == "stage" else ["d", "d/deep", "kept"]
    assert tree == sorted([".env", *kept])
