"""Odd names and files behind every backend, under a policy of 10,000 patterns: as without one.

Names that are not UTF-8, the longest paths, loops of links, devices, pipes, sockets, files
that change while they are read, directories that go: what is allowed comes out as the
kernel has it, and what is forbidden is refused.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import fanotify_lab
import fuse_lab
import odd_files
import pytest
from isolation_probe import probe

PYTHON = sys.executable
PROGRAM = Path(PYTHON).parent / "aesp-proxy"
TIME_S = 170
PATTERNS = ['"**/.env"', *(f'"**/never-{number}/*.k{number}"' for number in range(4_999))]
EXCEPTIONS = [f'"/nowhere/{number}/**/*.k{number}"' for number in range(5_000)]  # as many as may be
POLICY = f"""\
version: "1.2.0"
name: odd
guards:
  egress_allowlist: {{default_action: block, allow: []}}
  forbidden_path:
    enabled: true
    patterns: [{", ".join(PATTERNS)}]
    exceptions: [{", ".join(EXCEPTIONS)}]
  secret_leak: {{enabled: false}}
"""
FORBIDDEN = {
    "fuse": {"not_utf8_forbidden": "ENOENT", "long_forbidden": "EACCES",
             "device_forbidden": "EPERM"},
    "stage": {"not_utf8_forbidden": "ENOENT", "device_forbidden": "EPERM"},
    "notify": {"not_utf8_forbidden": "EACCES", "long_forbidden": "EACCES",
               "device_forbidden": "EPERM"},
    "observe": {"device_forbidden": "EPERM"},
    "fanotify": {"not_utf8_forbidden": "EPERM", "long_forbidden": "EPERM",
                 "device_forbidden": "EPERM"},
}  # fmt: skip
WHY_NOT = {
    "fuse": fuse_lab.why_not(),
    "stage": "no walls" if probe().missing() else "",
    "fanotify": fanotify_lab.unusable(),
}


def play(folder: Path, backend: str) -> subprocess.CompletedProcess[str]:
    """Try the cases in a whole run of a backend."""
    tree = folder / "p"
    for each in (tree, folder / "home"):
        each.mkdir()
    odd_files.prepare(str(tree))
    (folder / "policy.yaml").write_text(POLICY)
    words = [str(PROGRAM), "run", "--state", str(folder / "s"), "--allow-degraded"]
    words += ["--policy", str(folder / "policy.yaml"), "--files", backend]
    return subprocess.run(
        [*words, "--", PYTHON, "-I", odd_files.__file__, str(tree)],
        cwd=tree,
        env={**os.environ, "HOME": str(folder / "home")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIME_S,
        check=False,
    )


def watched(folder: Path, stack: ExitStack) -> subprocess.CompletedProcess[str]:
    """Try them as a user who is watched."""
    lab = fanotify_lab.Lab(stack, folder)
    odd_files.prepare(str(lab.inside))
    for path in (lab.inside, *lab.inside.rglob("*")):
        os.lchown(path, fanotify_lab.WATCHED, fanotify_lab.WATCHED)
    lab.begin(policy=POLICY)
    return lab.run(fanotify_lab.WATCHED, PYTHON, "-I", odd_files.__file__, str(lab.tree))


@pytest.fixture(scope="module")
def native() -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="aesp") as folder:
        odd_files.prepare(folder)
        words = [PYTHON, "-I", odd_files.__file__, folder]
        return json.loads(subprocess.run(words, capture_output=True, check=True).stdout)


@pytest.mark.parametrize("backend", FORBIDDEN)
def test_what_is_odd_comes_out_as_without_a_guard_but_for_what_is_forbidden(native, backend):
    if WHY_NOT.get(backend):
        pytest.skip(f"no {backend} here: {WHY_NOT[backend]}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(
            tempfile.TemporaryDirectory(prefix="aesp", ignore_cleanup_errors=True)))  # fmt: skip
        ran = watched(folder, stack) if backend == "fanotify" else play(folder, backend)
        assert ran.returncode == 0, ran.stderr
        told = json.loads(ran.stdout)
    assert told == {**native, **FORBIDDEN[backend]}
