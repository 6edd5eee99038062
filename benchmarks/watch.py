"""What watching files costs: the same programs of a watched user, of another, and with no watch.

Each variant is a shell in a copy of one tree, all on file systems in memory that are made
for it in a mount namespace: ``native`` on one that nobody watches, ``watched`` and
``others`` on one that is, the second as a user who is not. The same commands run in each,
in turn. The first round is what is asked for the first time, and what is scanned once; it
is told apart as ``first_``. ``reopened`` is a file that changes before each opening, so
that the kernel keeps nothing of it. Needs root.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.files import BUSY_LOAD, COMMANDS, OPENS, POLICY, Shell, make_tree
from benchmarks.harness import (
    BenchError,
    Budget,
    Figures,
    Options,
    Result,
    median_of,
    options,
    ratio,
    rounds_of,
    show,
)

PROGRAM: Final = Path(sys.executable).parent / "aesp-proxy"
WATCHED, OTHER = 4242, 4343
START_S: Final = 90
# The interpreter of this environment may lie where other users may not look.
PYTHON: Final = "/usr/bin/python3"
REOPENS: Final = """
import os, time
path, taken = "reopened", 0.0
file = os.open(path, os.O_RDWR | os.O_CREAT)
for _ in range(1000):
    os.pwrite(file, b"x", 0)
    began = time.perf_counter()
    os.close(os.open(path, os.O_RDONLY))
    taken += time.perf_counter() - began
print("measured", taken / 1000 * 1e6)
"""
HOLD: Final = """
mount --make-rprivate / && for each in free held; do
    mkdir -p "$0/$each" && mount -t tmpfs -o mode=777 none "$0/$each"
done && echo held && cat
"""


def measure(shell: Shell) -> Figures:
    """Run every command once, and many openings."""
    found = {name: shell.ask(line)[0] * 1e3 for name, line in COMMANDS.items()}
    _, said = shell.ask(f"{PYTHON} -I -c '{OPENS}'")
    _, opens, status = said[-1].split()
    _, said = shell.ask(f"{PYTHON} -I -c '{REOPENS}'")
    reopens = float(said[-1].split()[1])
    return {**found, "open_us": float(opens), "stat_us": float(status), "reopen_us": reopens}


def watch(enter: Sequence[str], folder: Path, stack: ExitStack) -> None:
    """Start watching, and wait until opens are answered."""
    (folder / "policy.yaml").write_text(POLICY)
    log = folder / "log"
    words = ["files", "watch", "--users", str(WATCHED), "--trees", str(folder / "held")]
    words += ["--policy", str(folder / "policy.yaml"), "--set", f"state_dir={folder}/state"]
    with log.open("wb") as output:
        process = subprocess.Popen([*enter, str(PROGRAM), *words], stderr=output)
    stack.callback(process.wait, 20)
    stack.callback(process.terminate)
    end = time.monotonic() + START_S
    while "are answered by" not in log.read_text():
        if process.poll() is not None or time.monotonic() > end:
            raise BenchError(f"no watch: {log.read_text().strip()}")
        time.sleep(0.05)


def judge(result: Result) -> None:
    """Work out the ratios, and hold the budgets against them."""
    figures = result.figures
    for name in ("watched", "others"):
        for figure in figures[name]:
            if (value := ratio(figures, figure, name, "native")) is not None:
                result.ratios[f"{name} {figure}"] = value
    result.budgets = [
        Budget(
            name=f"watched: {figure}, times native",
            value=ratio(figures, figure, "watched", "native"),
            limit=1.3,
        )
        for figure in ("open_us", "grep_ms", "git_status_ms")
    ]


def run(given: Options) -> Result:
    """Measure everything."""
    result = Result(name="watch", run={"seed": given.seed, "rounds": given.rounds})
    if os.geteuid():
        raise BenchError("it asks the kernel to wait for its answers: run it as root")
    if (load := os.getloadavg()[0]) > BUSY_LOAD:
        result.notes.append(f"the machine was busy (load {load:.1f}): questions to a process wait")
    large = (64 if given.quick else 256) << 20
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", HOLD, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        stack.enter_context(holder)
        stack.callback(holder.kill)
        if holder.stdout is None or holder.stdout.readline() != b"held\n":
            raise BenchError("no file systems of its own could be mounted")
        enter = ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt"]
        inside = Path(f"/proc/{holder.pid}/root{name}")
        tree = make_tree(folder, large)
        started = {}
        for variant, place, uid in (
            ("native", "free", WATCHED),
            ("watched", "held", WATCHED),
            ("others", "held", OTHER),
        ):
            own = inside / place / variant
            own.mkdir()
            shutil.copytree(tree, own / "tree", symlinks=True)
            shutil.copy(folder / "src.tar", own)
            subprocess.run(["chown", "-R", f"{uid}:{uid}", str(own)], check=True)
            user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
            move = ["sh", "-c", f'cd {name}/{place}/{variant}/tree && exec "$@"', "sh"]
            started[variant] = [*enter, *user, *move]
        watch(enter, folder, stack)
        environment = {**os.environ, "HOME": "/nonexistent"}
        shells = {
            variant: stack.enter_context(Shell(words, Path("/"), environment))
            for variant, words in started.items()
        }
        for variant, shell in shells.items():
            first = measure(shell)
            result.figures[variant] = {f"first_{key}": value for key, value in first.items()}
        variants = {key: (lambda shell=shell: measure(shell)) for key, shell in shells.items()}
        order = random.Random(given.seed)
        taken = rounds_of(variants, rounds=given.rounds, order=order, summary=median_of)
        for variant, figures in taken.items():
            result.figures[variant] |= figures
    judge(result)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, judge, print; 1 when a budget is missed."""
    given = options("watch", rounds=5, seconds=1.0, arguments=arguments or sys.argv[1:])
    return show(run(given), as_json=given.json)


if __name__ == "__main__":
    raise SystemExit(main())
