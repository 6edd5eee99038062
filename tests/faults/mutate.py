"""Put each bug of ``mutants.toml`` into a copy of the source and say which the tests miss.

``make mutate``, or ``python tests/faults/mutate.py WORD`` for those whose name holds a word. A
bug is found when its tests fail; one that they pass with is a survivor, and the exit code 1.
The tree itself is never touched: tests import the copy, which stands first on the path.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGE = "aesp_proxy"
TIMEOUT_S = 600


def table() -> list[dict[str, object]]:
    """Read the bugs."""
    mutants: list[dict[str, object]] = tomllib.loads((HERE / "mutants.toml").read_text())["mutant"]
    return mutants


def is_found(mutant: dict[str, object], copy: Path) -> bool:
    """Run the tests of one bug over the copy; whether they fail as tests fail."""
    path = copy / PACKAGE / str(mutant["file"])
    original = path.read_text()
    assert original.count(str(mutant["before"])) == 1, mutant["name"]
    path.write_text(original.replace(str(mutant["before"]), str(mutant["after"])))
    try:
        return run_tests(mutant["tests"], copy) == 1
    finally:
        path.write_text(original)


def run_tests(tests: object, copy: Path) -> int:
    """Run tests with the copy in place of the package; pytest's exit code."""
    assert isinstance(tests, list)
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        return subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, timeout=TIMEOUT_S,
            stderr=subprocess.DEVNULL, check=False,
        ).returncode  # fmt: skip
    except subprocess.TimeoutExpired:
        return 1  # a bug that makes them hang shows, too


def main(words: list[str]) -> int:
    """Try every bug, or those that are named; exit code 1 when one survives."""
    chosen = [m for m in table() if all(word in str(m["name"]) for word in words)]
    with tempfile.TemporaryDirectory(prefix="aesp-mutants-") as directory:
        copy = Path(directory)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "src" / PACKAGE, copy / PACKAGE, ignore=ignored)
        every = sorted({str(test) for m in chosen for test in m["tests"]})  # type: ignore[attr-defined]
        if run_tests(every, copy) != 0:
            print("the tests do not pass as they are")
            return 1
        survivors = [m for m in chosen if not said(m, is_found(m, copy))]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} bugs found")
    return 1 if survivors else 0


def said(mutant: dict[str, object], found: bool) -> bool:  # noqa: FBT001
    """Say how it went, and give it back."""
    print(f"{'found   ' if found else 'SURVIVES'}  {mutant['name']}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
