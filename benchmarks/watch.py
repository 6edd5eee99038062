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
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks import file_work
from benchmarks.file_work import BUSY_LOAD, POLICY, PYTHON, Shell
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


def measure(shell: Shell, large_bytes: int) -> Figures:
    """Run every command once, and many openings."""

    def fails(what: str) -> None:
        raise BenchError(what)

    found = file_work.measure(shell, large_bytes, fails)
    _, said = shell.ask(f"{PYTHON} -I -c '{REOPENS}'")
    return {**found, "reopen_us": float(said[-1].split()[1])}


class Memory:
    """Two file systems in memory in a mount namespace of their own: ``free`` and ``held``."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        folder.chmod(0o755)
        words = ["unshare", "--mount", "sh", "-c", HOLD, str(folder)]
        holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        stack.enter_context(holder)
        stack.callback(holder.kill)
        if holder.stdout is None or holder.stdout.readline() != b"held\n":
            raise BenchError("no file systems of its own could be mounted")
        self._enter = ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt"]
        self._inside = Path(f"/proc/{holder.pid}/root{folder}")

    def put(self, name: str, place: str, uid: int) -> list[str]:
        """Give a user a copy of the tree in there; return the words that work in it."""
        own = self._inside / place / name
        file_work.copy(self._folder, own)
        subprocess.run(["chown", "-R", f"{uid}:{uid}", str(own)], check=True)
        user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        move = ["sh", "-c", f'cd {self._folder}/{place}/{name}/tree && exec "$@"', "sh"]
        return [*self._enter, *user, *move]

    def watch(self, stack: ExitStack) -> None:
        """Have what is ``held`` watched for a while."""
        watch(self._enter, self._folder, stack)


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
        memory = Memory(folder, stack)
        file_work.make_tree(folder, large)
        started = {
            variant: memory.put(variant, place, uid)
            for variant, place, uid in (
                ("native", "free", WATCHED),
                ("watched", "held", WATCHED),
                ("others", "held", OTHER),
            )
        }
        memory.watch(stack)
        environment = {**os.environ, "HOME": "/nonexistent"}
        shells = {
            variant: stack.enter_context(Shell(words, Path("/"), environment))
            for variant, words in started.items()
        }
        for variant, shell in shells.items():
            first = measure(shell, large)
            result.figures[variant] = {f"first_{key}": value for key, value in first.items()}
        variants = {
            key: (lambda shell=shell: measure(shell, large)) for key, shell in shells.items()
        }
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
