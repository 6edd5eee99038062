"""``aesp-proxy scan`` on a folder beside other scanners, each as a command of its own.

CPU time of the command and its children, the least of the rounds; a run on an empty folder
is taken off, so the rate is that of scanning. Every command has one process or thread to
scan with. The slow ones get a smaller folder of the same files, and one round.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Figures
from benchmarks.honest import MB, documents
from benchmarks.secret_peers import Peer, Told, peers

ROUNDS_MIN = 2
ROUNDS_MAX = 3
SMALL_BYTES = MB
SMALL_BYTES_QUICK = MB // 5
SOURCE_SHARE_QUICK = 0.2
SCANNING_PART_MIN = 0.1
"""A scan that takes less than this of the start is lost in it: then there is no rate."""
SLOW = ("detect-secrets", "CredSweeper")
PROGRAM = Path(sys.executable).with_name("aesp-proxy")


def ours(folder: Path) -> Told:
    """Scan a folder with one process, by all rules."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [PROGRAM, "scan", ".", "--no-ignore", "--jobs", "1", "--format", "json"],
        cwd=folder,
        capture_output=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in {0, 1}:
        raise harness.BenchError(f"aesp-proxy scan failed: {done.stderr.decode()[-200:]}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Told(files=Counter(), cpu_s=spent)


def measure_trees(
    options: harness.Options, llm: tuple[bytes, int], progress: Callable[[str], None]
) -> dict[str, Figures]:
    """Return start-up and rates on source, and on one file of chats; peers if they are there.

    ``llm`` is what the file is made of, and how many times.
    """
    rounds = min(max(options.rounds, ROUNDS_MIN), ROUNDS_MAX)
    found: dict[str, Peer] = {"aesp-proxy scan": ours, **peers(install=options.install)}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        sizes = _write(place, llm, quick=options.quick)
        ours(place / "empty")  # its rules are compiled by the first command that needs them
        return {
            f"{who}, files": _rates(place, sizes, who, peer, rounds, progress)
            for who, peer in found.items()
        }


def _write(place: Path, llm: tuple[bytes, int], *, quick: bool) -> dict[str, int]:
    small_bytes = SMALL_BYTES_QUICK if quick else SMALL_BYTES
    share = SOURCE_SHARE_QUICK if quick else 1.0
    kinds = ("python library", "packages", "npm tree")
    for folder in ("empty", "small", "source", "llm"):
        (place / folder).mkdir()
    text, times = llm
    with (place / "llm" / "chat.json").open("wb") as file:
        for _ in range(times):
            file.write(text)
    sizes = {"empty": 0, "small": 0, "source": 0, "llm": len(text) * times}
    for number, document in enumerate(documents(share=share, kinds=kinds)):
        name = f"{number}{Path(document.name).suffix or '.txt'}"
        for folder in ("source", *(["small"] if sizes["small"] < small_bytes else [])):
            data = document.data if folder == "source" else document.data[: 16 * 1024]
            (place / folder / name).write_bytes(data)
            sizes[folder] += len(data)
    return sizes


def _rates(
    place: Path,
    sizes: dict[str, int],
    who: str,
    peer: Peer,
    rounds: int,
    progress: Callable[[str], None],
) -> Figures:
    slow = who in SLOW
    spent = {}
    for folder in ("empty", "small") if slow else ("empty", "source", "llm"):
        progress(f"{who}, {folder}")
        spent[folder] = min(peer(place / folder).cpu_s for _ in range(1 if slow else rounds))
    figures = {"start_cpu_s": spent["empty"]}
    source = "small" if slow else "source"
    for kind, folder in (("source", source), ("llm", "llm")):
        scanning = spent.get(folder, 0.0) - spent["empty"]
        if scanning > SCANNING_PART_MIN * spent["empty"]:
            figures[f"{kind}_mb_s"] = sizes[folder] / MB / scanning
    return figures
