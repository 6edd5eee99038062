"""``.ci/setup.sh`` finds an interpreter by running it, not by its name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / ".ci/setup.sh"
# Where sh, dirname and the like live, without any Python of a version we take.
TOOLS = ("sh", "dirname", "env")


# What the dynamic loader may need to find Python at all.
LOADER = {name: text for name, text in os.environ.items() if name.startswith("LD_LIBRARY")}


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in TOOLS:
        for place in ("/usr/bin", "/bin"):
            if (Path(place) / name).exists() and not (folder / name).exists():
                (folder / name).symlink_to(Path(place) / name)
    return folder


def put(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def find(path: str, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(SCRIPT), "--find"],
        env={**LOADER, "PATH": path, "HOME": str(home), **more},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def found(path: str, home: Path, **more: str) -> str:
    ran = find(path, home, **more)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


GOOD = f'exec "{sys.executable}" "$@"'
OLD = 'case "$*" in *version_info*) exit 1;; esac; echo /old/python3'
SHIM = 'echo "pyenv: version 3.12 is not installed (set by .python-version)" >&2; exit 127'


def test_a_python_on_the_path_is_taken(tools, tmp_path):
    put(tmp_path / "bin/python3.12", GOOD)
    assert found(f"{tmp_path}/bin:{tools}", tmp_path) == sys.executable


def test_a_shim_that_fails_is_passed_over_for_the_next_on_the_path(tools, tmp_path):
    for name in ("python3.12", "python3.13", "python3", "python"):
        put(tmp_path / "shims" / name, SHIM)
    put(tmp_path / "bin/python3", GOOD)
    assert found(f"{tmp_path}/shims:{tmp_path}/bin:{tools}", tmp_path) == sys.executable


def test_a_version_that_pyenv_has_is_found_behind_its_failing_shims(tools, tmp_path):
    put(tmp_path / "shims/python3", SHIM)
    put(tmp_path / ".pyenv/versions/3.12.4/bin/python3", GOOD)
    assert found(f"{tmp_path}/shims:{tools}", tmp_path) == sys.executable


def test_a_version_that_uv_brought_is_found(tools, tmp_path):
    place = ".local/share/uv/python/cpython-3.13.1-linux-x86_64-gnu/bin/python3"
    put(tmp_path / place, GOOD)
    assert found(str(tools), tmp_path) == sys.executable


def test_an_older_python_is_passed_over(tools, tmp_path):
    put(tmp_path / "old/python3", OLD)
    put(tmp_path / "new/python3.13", GOOD)
    assert found(f"{tmp_path}/old:{tmp_path}/new:{tools}", tmp_path) == sys.executable


def test_the_one_that_was_named_comes_first(tools, tmp_path):
    named = put(tmp_path / "mine/python", GOOD)
    put(tmp_path / "bin/python3.12", "echo /other; exit 0")
    assert found(f"{tmp_path}/bin:{tools}", tmp_path, PYTHON=str(named)) == sys.executable


@pytest.mark.skipif(
    any(Path("/usr/bin", name).exists() for name in ("python3.12", "python3.13")),
    reason="this machine has one where the script always looks",
)
def test_when_there_is_none_it_says_what_to_do(tools, tmp_path):
    put(tmp_path / "old/python3", OLD)
    ran = find(f"{tmp_path}/old:{tools}", tmp_path)
    assert ran.returncode == 3
    assert "no Python 3.12 or 3.13 found" in ran.stderr
    assert "PYTHON=" in ran.stderr
