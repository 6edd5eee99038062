"""Peers that a package index has: fetched once into ``.cache/``, never into our environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.peers import AbsentError

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "bench"
FETCH_S_MAX = 180.0


def python_program(name: str, requirement: str, *, install: bool) -> Path:
    """Return a console script of a PyPI package, in an environment of its own."""
    folder = CACHE / name
    program = folder / "bin" / name
    if not program.exists():
        _may(install)
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(folder / "bin" / "python"), "-m", "pip", "-q", "install", requirement])
    return program


def node_package(package: str, version: str, *, install: bool) -> Path:
    """Return the folder of an npm package."""
    folder = CACHE / f"{package.rpartition('/')[2]}-{version}"
    found = folder / "node_modules" / package
    if not shutil.which("node"):
        message = "it needs node, which is not here"
        raise AbsentError(message)
    if not found.exists():
        _may(install)
        if not shutil.which("npm"):
            message = "it needs npm to be fetched, which is not here"
            raise AbsentError(message)
        folder.mkdir(parents=True, exist_ok=True)
        words = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
        _run([*words, "--prefix", str(folder), f"{package}@{version}"])
    return found


def _may(install: bool) -> None:  # noqa: FBT001 - the only word it takes
    if not install:
        message = "it is not here and fetching was not allowed"
        raise AbsentError(message)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=FETCH_S_MAX
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"it cannot be fetched: {error}"
        raise AbsentError(message) from error
    if done.returncode:
        message = f"it cannot be fetched: {done.stderr.strip()[-300:]}"
        raise AbsentError(message)
