"""Run every benchmark of this version, write the report, say which budgets hold.

Each runs in a process of its own with ``--json``. The exit code is 1 when a
budget is missed or a benchmark does not come off, so that neither goes unseen.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import harness, machine, report
from benchmarks.report import Part

NAMES = (
    "decide", "policy", "replay", "scan", "quality", "egress", "record", "aggregator", "log",
    "files", "watch", "events",
)  # fmt: skip
FOLDER = Path(__file__).resolve().parent
RUN_S_MAX = 900.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for, all by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in NAMES]:
        parser.error(f"no such benchmark: {', '.join(unknown)}")
    facts = machine.facts()
    parts = [run(name, quick=given.quick) for name in given.names or NAMES]
    path = report.write(FOLDER / "results", parts, facts)
    failed = False
    for part in parts:
        for line in _summary(part):
            sys.stdout.write(line + "\n")
        failed = failed or _failed(part)
    sys.stdout.write(f"report: {path}\n")
    return 1 if failed else 0


def run(name: str, *, quick: bool) -> Part:
    """Run one benchmark and return its part of the report."""
    if not (FOLDER / f"{name}.py").exists():
        return Part(name=name, result=None, reason="not in this version")
    sys.stderr.write(f"{name} ...\n")
    began = time.monotonic()
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", *(["--quick"] * quick)]
    try:
        done = subprocess.run(
            command,
            cwd=FOLDER.parent,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=RUN_S_MAX,
        )
        result = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return Part(name=name, result=None, reason=f"did not end within {RUN_S_MAX:.0f} s")
    except ValueError:
        return Part(name=name, result=None, reason=f"failed with exit code {done.returncode}")
    sys.stderr.write(f"{name} took {time.monotonic() - began:.0f} s\n")
    (FOLDER / "results").mkdir(exist_ok=True)
    (FOLDER / "results" / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    return Part(name=name, result=result)


def _summary(part: Part) -> list[str]:
    if part.result is None:
        return [f"{part.name}: {part.reason}"]
    lines = [harness.budget_line(budget) for budget in part.rows("budgets")]
    return [f"{part.name}:", *(f"  {line}" for line in lines or ["(no budgets)"])]


def _failed(part: Part) -> bool:
    if part.result is None:
        return part.reason != "not in this version"
    return any(not budget.get("ok") for budget in part.rows("budgets"))


if __name__ == "__main__":
    raise SystemExit(main())
