"""What guarding files costs: programs inside ``run`` with each backend, beside the same outside.

Every variant is a shell in a copy of one tree: 3,000 small files under git, a tar of 1,000,
30 packages that npm installs, one large file. ``native`` is outside; ``walls`` is ``run``
that leaves files alone (namespaces, Landlock, seccomp): the floor of the others;
``landlock`` is Landlock alone. ``mfusepy`` and ``pyfuse3`` are file systems in Python that
decide nothing (``file_peers``). ``fanotify`` is a watched user on a file system in memory,
and ``memory`` the same where nobody watches: its native. The same work (``file_work``) is
done in each, in turn, in one run. The first round warms caches, and what is scanned once is
scanned there: it is told apart as ``first_``. What is not there is named, and not measured.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import file_peers, file_work
from benchmarks.file_work import BUSY_LOAD, COMMANDS, POLICY, Shell
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
from benchmarks.watch import WATCHED, Memory

PROGRAM: Final = Path(sys.executable).parent / "aesp-proxy"
BACKENDS: Final = {
    "walls": "none", "observe": "observe", "fuse": "fuse", "stage": "stage", "notify": "notify",
}  # fmt: skip
NATIVE: Final = {"fanotify": "memory"}
KNOWN: Final = ("landlock", *BACKENDS, *file_peers.PINS, "fanotify")
RUN_S: Final = 330.0
"""No round but the first begins that would end later than this."""


class Lab:
    """The variants that this machine has, each in its own copy."""

    def __init__(self, folder: Path, given: Options, stack: ExitStack) -> None:
        self.notes: list[str] = []
        self.shells: dict[str, Shell] = {}
        self._folder, self._given, self._stack = folder, given, stack
        self._policy, home = folder / "policy.yaml", folder / "home"
        self._policy.write_text(POLICY)
        home.mkdir()
        self._home = home
        self._environment = {**os.environ, "HOME": str(home)}
        self._cache: Path | None = None

    def start(self, name: str, words: Callable[[Path], Sequence[str]]) -> None:
        """Start one; a note where that does not come off."""
        own = self._folder / name
        stack = self._stack.enter_context(ExitStack())
        try:
            tree = file_work.copy(self._folder, own, link_large=name not in BACKENDS)
            shell = stack.enter_context(Shell(words(own), tree, self._environment))
            shell.ask("true")
        except BenchError as error:
            self.notes.append(f"{name} is not measured: {error}")
            return
        self.shells[name] = shell

    def run(self, own: Path) -> Sequence[str]:
        """Return the words of ``run`` with a backend; compiled rules are taken along."""
        state = own / "state"
        if self._cache is not None and self._cache.exists():
            import shutil

            shutil.copytree(self._cache, state / "cache")
        self._cache = state / "cache"
        words = [str(PROGRAM), "run", "--quiet", "--policy", str(self._policy)]
        words += ["--state", str(state), "--files", BACKENDS[own.name]]
        return [*words, "--set", f"files.hide={self._home}", "--"]

    def peer(self, own: Path) -> Sequence[str]:
        """Mount a peer's view; return the words that work in it."""
        if why := file_peers.missing(
            own.name, install=self._given.install and not self._given.quick
        ):
            raise BenchError(why)
        return self._stack.enter_context(file_peers.shown(own.name, own))

    def start_watched(self) -> None:
        """Start what is watched, and the same in memory where nobody watches."""
        if os.geteuid():
            self.notes.append("fanotify is not measured: it needs root")
            return
        try:
            memory = Memory(self._folder, self._stack)
            words = {
                "memory": memory.put("memory", "free", WATCHED),
                "fanotify": memory.put("fanotify", "held", WATCHED),
            }
            memory.watch(self._stack)
        except (BenchError, OSError) as error:
            self.notes.append(f"fanotify is not measured: {str(error)[:200]}")
            return
        environment = {**os.environ, "HOME": "/nonexistent"}
        for name, each in words.items():
            self.shells[name] = self._stack.enter_context(Shell(each, Path("/"), environment))

    def measure(self, name: str, large: int) -> Figures:
        """Measure one once; what it does not do is a note, and so is that it has ended."""

        def failed(what: str) -> None:
            self.notes.append(f"{name}: {what}")

        try:
            return file_work.measure(self.shells[name], large, failed)
        except BenchError as error:
            failed(str(error))
            del self.shells[name]
            return {}


def start_all(lab: Lab, only: Sequence[str]) -> None:
    """Start every variant, or those that are asked for; ``native`` always."""
    lab.start("native", lambda _: [])
    words: dict[str, Callable[[Path], Sequence[str]]] = {"landlock": file_peers.landlock}
    words |= dict.fromkeys(BACKENDS, lab.run)
    words |= dict.fromkeys(file_peers.PINS, lab.peer)
    for name, make in words.items():
        if not only or name in only:
            lab.start(name, make)
    if not only or "fanotify" in only:
        lab.start_watched()


def judge(result: Result, only: Sequence[str] = ()) -> None:
    """Work out the ratios, and hold the budgets against them."""
    figures = result.figures
    for name in figures:
        native = NATIVE.get(name, "native")
        for figure in figures[name]:
            value = ratio(figures, figure, name, native)
            if name not in ("native", "memory") and value is not None:
                result.ratios[f"{name} {figure}"] = value

    def times(name: str, figure: str, limit: float) -> Budget:
        value = ratio(figures, figure, name, NATIVE.get(name, "native"))
        return Budget(name=f"{name}: {figure}, times native", value=value, limit=limit)

    def opens(name: str, limit: float) -> Budget:
        taken = [figures.get(each, {}).get("open_us") for each in (name, "native")]
        value = None if None in taken else taken[0] - taken[1]  # type: ignore[operator]
        return Budget(name=f"{name}: open, us over native", value=value, limit=limit)

    reading = ratio(figures, "read_ms", "native", "fuse")
    result.budgets = [
        opens("fuse", 3.0),
        times("fuse", "grep_ms", 2.0),
        times("fuse", "git_status_ms", 5.0),
        Budget(name="fuse: sequential read", value=reading, limit=0.9, at_least=True),
        *(times("fanotify", each, 1.3) for each in ("open_us", "grep_ms", "git_status_ms")),
        *(times("stage", each, 1.3) for each in COMMANDS),
        opens("notify", 25.0),
        times("notify", "tar_x_ms", 1.5),
    ]
    if only:
        result.budgets = [each for each in result.budgets if each.name.split(":")[0] in only]


def run(given: Options, only: Sequence[str] = ()) -> Result:
    """Measure everything, or the variants that are asked for."""
    began = time.monotonic()
    result = Result(name="files", run={"seed": given.seed, "rounds": given.rounds})
    if (load := os.getloadavg()[0]) > BUSY_LOAD:
        result.notes.append(f"the machine was busy (load {load:.1f}): questions to a process wait")
    if shutil.which("npm") is None:
        result.notes.append(
            "npm_ms is not measured: there is no npm here (Debian: apt install npm)"
        )
    large, files = (64 << 20, 600) if given.quick else (1 << 30, file_work.FILES)
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name, ExitStack() as stack:
        folder = Path(name)
        _say("making the tree")
        file_work.make_tree(folder, large, files=files)
        lab = Lab(folder, given, stack)
        start_all(lab, only)
        firsts, *taken = rounds(lab, large, given, began)
    result.notes += dict.fromkeys(lab.notes)
    for variant, first in firsts.items():
        later = median_of([each[variant] for each in taken if variant in each]) or first
        result.figures[variant] = {f"first_{key}": value for key, value in first.items()} | later
    if len(taken) < given.rounds:
        result.notes.append(f"{len(taken)} rounds of {given.rounds}: more would take too long")
    judge(result, only)
    return result


def variants_of(lab: Lab, large: int) -> dict[str, Callable[[], Figures]]:
    """Return what measures each variant."""
    return {name: partial(lab.measure, name, large) for name in lab.shells}


def rounds(lab: Lab, large: int, given: Options, began: float) -> Iterator[dict[str, Figures]]:
    """Measure a first round and the others, while there is time for one like the last."""
    order = random.Random(given.seed)
    for number in range(given.rounds + 1):
        start = time.monotonic()
        _say(f"round {number} of {given.rounds}, {start - began:.0f} s")
        yield rounds_of(variants_of(lab, large), rounds=1, order=order, progress=_say)
        now = time.monotonic()
        if now - began + (now - start) > RUN_S:
            return


def _say(what: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"files: {what}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, judge, print; 1 when a budget is missed."""
    # Ended by another, it takes mounts and copies away all the same.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    words = list(arguments or sys.argv[1:])
    only = [word for word in words if not word.startswith("-") and word in KNOWN]
    rest = [word for word in words if word not in only]
    epilog = f"Names of variants measure these beside native only: {', '.join(KNOWN)}."
    given = options("files", rounds=5, seconds=1.0, arguments=rest, epilog=epilog)
    result = run(given, only)
    if not given.json:
        sys.stdout.write("\n".join(table(result)) + "\n")
    return show(result, as_json=given.json)


def table(result: Result) -> Iterator[str]:
    """Yield what each variant takes, and how many times its native that is."""
    names = list(result.figures)
    yield f"{'':<14}" + "".join(f"{name:>17}" for name in names)
    for figure in (*COMMANDS, "open_us", "stat_us"):
        cells = []
        for name in names:
            value = result.figures[name].get(figure)
            times = result.ratios.get(f"{name} {figure}")
            said = "-" if value is None else f"{value:.4g}"
            cells.append(said + (f" x{times:.2f}" if times is not None else ""))
        yield f"{figure:<14}" + "".join(f"{cell:>17}" for cell in cells)


if __name__ == "__main__":
    raise SystemExit(main())
