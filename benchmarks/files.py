"""What guarding files costs: programs inside ``run`` with each backend, beside the same outside.

Every variant is a shell in a copy of one tree: 3,000 small files under git and one large.
``native`` is outside; ``walls`` is ``run`` that leaves files alone (namespaces, Landlock,
seccomp): the floor of the others. The same commands run in each, in turn, in one run. The
first round warms caches, and what is scanned once is scanned there: it is told apart as
``first_``. Peers of the FUSE view (pyfuse3, mfusepy) need libfuse3 on the machine, and a
compiler; where that is not there they are named, and not measured.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

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
POLICY: Final = """\
version: "1.2.0"
name: bench
guards:
  egress_allowlist: {default_action: block, allow: []}
  forbidden_path:
    enabled: true
    patterns: ["**/.env", "**/.ssh/**", "**/secret/**", "**/*.pem", "**/.aws/**", "**/id_*"]
  secret_leak: {enabled: true}
"""
BACKENDS: Final = {"walls": "none", "fuse": "fuse", "stage": "stage", "notify": "notify"}
FILES: Final = 3000
BUSY_LOAD: Final = 1.0
# What is timed inside, as the time of many calls is not that of their shell.
OPENS: Final = """
import os, time
path, least, status = "src/d0/f0.py", 9.0, 9.0
for _ in range(5):
    began = time.perf_counter()
    for _ in range(2000): os.close(os.open(path, os.O_RDONLY))
    least = min(least, (time.perf_counter() - began) / 2000)
    began = time.perf_counter()
    for _ in range(5000): os.stat(path)
    status = min(status, (time.perf_counter() - began) / 5000)
print("measured", least * 1e6, status * 1e6)
"""
COMMANDS: Final = {
    "git_status_ms": "git status --short > /dev/null",
    "grep_ms": "grep -r zzzz src > /dev/null || true",
    "find_ms": "find . > /dev/null",
    "tar_x_ms": "tar xf ../src.tar -C x",
    "rm_ms": "rm -r x/*",
    "read_ms": "cat large > /dev/null",
    "write_ms": "dd if=/dev/zero of=written bs=1M count=32 2> /dev/null; rm -f written",
}


class Shell:
    """One variant: a shell that is told what to do, line by line."""

    def __init__(self, words: Sequence[str], tree: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [*words, "sh"],
            cwd=tree,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate("exit\n", timeout=60)

    def ask(self, line: str) -> tuple[float, list[str]]:
        """Run a line; return its seconds and what it printed."""
        if self._process.stdin is None or self._process.stdout is None:
            raise BenchError("a shell without pipes")
        began = time.perf_counter()
        self._process.stdin.write(f"{line}\necho .\n")
        said: list[str] = []
        for text in self._process.stdout:
            if text == ".\n":
                return time.perf_counter() - began, said
            said.append(text)
        error = self._process.stderr.read() if self._process.stderr else ""
        raise BenchError(f"a shell ended: {error.strip().splitlines()[-1:]}")


def make_tree(folder: Path, large_bytes: int) -> Path:
    """Make the tree of which each variant gets a copy."""
    tree = folder / "tree"
    for number in range(FILES):
        place = tree / "src" / f"d{number // 50}"
        place.mkdir(parents=True, exist_ok=True)
        text = f"import os\n\n\ndef function_{number}():\n    return os.getpid() + {number}\n" * 8
        (place / f"f{number}.py").write_text(text)
    git = ["git", "-c", "user.name=n", "-c", "user.email=n@example", "-C", str(tree)]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"], ["gc", "-q"]):
        subprocess.run([*git, *words], check=True)
    subprocess.run(["tar", "cf", "src.tar", "-C", "tree", "src"], cwd=folder, check=True)
    (tree / ".git" / "info" / "exclude").write_text("x/\nlarge\nwritten\n")
    (tree / "x").mkdir()
    with (tree / "large").open("wb") as file:
        file.write(b"\0" * large_bytes)
    return tree


def shells(
    folder: Path, tree: Path, notes: list[str], stack: ExitStack
) -> Iterator[tuple[str, Shell]]:
    """Start every variant that this machine has, each in its own copy."""
    policy = folder / "policy.yaml"
    policy.write_text(POLICY)
    home = folder / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home)}
    cache: Path | None = None
    for name in ("native", *BACKENDS):
        own = folder / name
        own.mkdir()
        shutil.copytree(tree, own / "tree", symlinks=True)
        shutil.copy(folder / "src.tar", own)
        words: list[str] = []
        if name != "native":
            state = own / "state"
            if cache is not None and cache.exists():
                shutil.copytree(cache, state / "cache")
            words = [str(PROGRAM), "run", "--quiet", "--policy", str(policy), "--state", str(state)]
            words += ["--files", BACKENDS[name], "--set", f"files.hide={home}", "--"]
            cache = state / "cache"
        shell = stack.enter_context(Shell(words, own / "tree", environment))
        try:
            shell.ask("true")
        except BenchError as error:
            notes.append(f"{name} is not measured: {error}")
            continue
        yield name, shell


def measure(shell: Shell) -> Figures:
    """Run every command once, and many openings."""
    found = {name: shell.ask(line)[0] * 1e3 for name, line in COMMANDS.items()}
    _, said = shell.ask(f"{sys.executable} -I -c '{OPENS}'")
    _, opens, status = said[-1].split()
    return {**found, "open_us": float(opens), "stat_us": float(status)}


def judge(result: Result) -> None:
    """Work out the ratios, and hold the budgets against them."""
    figures = result.figures
    for name in figures:
        for figure in figures[name]:
            if name != "native" and (value := ratio(figures, figure, name, "native")) is not None:
                result.ratios[f"{name} {figure}"] = value

    def times(name: str, figure: str, limit: float) -> Budget:
        value = ratio(figures, figure, name, "native")
        return Budget(name=f"{name}: {figure}, times native", value=value, limit=limit)

    def opens(name: str) -> float | None:
        ours, native = figures.get(name), figures.get("native")
        return ours["open_us"] - native["open_us"] if ours and native else None

    reading = ratio(figures, "read_ms", "native", "fuse")
    result.budgets = [
        Budget(name="fuse: open, us over native", value=opens("fuse"), limit=3.0),
        times("fuse", "grep_ms", 2.0),
        times("fuse", "git_status_ms", 5.0),
        Budget(name="fuse: sequential read", value=reading, limit=0.9, at_least=True),
        *(times("stage", figure, 1.3) for figure in ("grep_ms", "git_status_ms", "tar_x_ms")),
        Budget(name="notify: open, us over native", value=opens("notify"), limit=25.0),
        times("notify", "tar_x_ms", 1.5),
    ]


def run(given: Options) -> Result:
    """Measure everything."""
    result = Result(name="files", run={"seed": given.seed, "rounds": given.rounds})
    if ctypes.util.find_library("fuse3") is None:
        result.notes.append("pyfuse3 and mfusepy are not measured: there is no libfuse3 here")
    if (load := os.getloadavg()[0]) > BUSY_LOAD:
        result.notes.append(f"the machine was busy (load {load:.1f}): questions to a process wait")
    large = (128 if given.quick else 1024) << 20
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name, ExitStack() as stack:
        folder = Path(name)
        started = dict(shells(folder, make_tree(folder, large), result.notes, stack))
        for variant, shell in started.items():
            first = measure(shell)
            result.figures[variant] = {f"first_{key}": value for key, value in first.items()}
        variants = {key: (lambda shell=shell: measure(shell)) for key, shell in started.items()}
        order = random.Random(given.seed)
        taken = rounds_of(variants, rounds=given.rounds, order=order, summary=median_of)
        for variant, figures in taken.items():
            result.figures[variant] |= figures
    judge(result)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, judge, print; 1 when a budget is missed."""
    given = options("files", rounds=5, seconds=1.0, arguments=arguments or sys.argv[1:])
    return show(run(given), as_json=given.json)


if __name__ == "__main__":
    raise SystemExit(main())
