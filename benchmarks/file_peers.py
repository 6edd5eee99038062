"""File systems of others beside ours: pass-through views that decide nothing.

mfusepy and pyfuse3 are installed under ``.cache/bench/file-peers``, in no environment of
ours: the one needs libfuse3 (Debian: libfuse3-3), the other its headers, pkg-config and a C
compiler besides (libfuse3-dev pkg-config gcc), as it has no wheel. A peer is mounted in a
mount namespace of its own, so that nothing is left behind.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.harness import BenchError

ROOT: Final = Path(__file__).resolve().parents[1]
PLACE: Final = ROOT / ".cache" / "bench" / "file-peers"
PROGRAMS: Final = Path(__file__).parent / "peers"
PINS: Final = {"mfusepy": "mfusepy==3.1.1", "pyfuse3": "pyfuse3==3.5.0"}
MOUNTED_S: Final = 20.0


def landlock(own: Path) -> list[str]:
    """Return the words before a command that confine it to a folder, and nothing else."""
    return [sys.executable, str(PROGRAMS / "landlock_floor.py"), str(own)]


def missing(name: str, *, install: bool) -> str:
    """Say why a peer is not there, and what would bring it; empty when it is. May fetch it."""
    if ctypes.util.find_library("fuse3") is None:
        return "there is no libfuse3 here (Debian: apt install libfuse3-dev pkg-config gcc)"
    python = PLACE / "bin" / "python"
    if _has(python, name):
        return ""
    if not install:
        return f"not installed, and not to be now: a whole run without --no-install does {name}"
    found = [ROOT / ".uv/bin/uv", ROOT / ".uv/lib/bin/uv"]
    uv = next((str(path) for path in found if path.exists()), shutil.which("uv"))
    if uv is None:
        return "there is no uv to install it with"
    if not python.exists():
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(PLACE)], check=False)
    words = [uv, "pip", "install", "-q", "--python", str(python), PINS[name]]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode or not _has(python, name):
        return "it does not install: it needs libfuse3-dev, pkg-config and gcc, and the registry"
    return ""


def _has(python: Path, name: str) -> bool:
    if not python.exists():
        return False
    return subprocess.run([python, "-c", f"import {name}"], check=False, capture_output=True
                          ).returncode == 0  # fmt: skip


@contextlib.contextmanager
def shown(name: str, own: Path) -> Iterator[Sequence[str]]:
    """Show ``own/tree`` through a peer for a while; yield the words that enter the view.

    BenchError when it does not mount.
    """
    place = own / "shown"
    place.mkdir()
    program = [str(PLACE / "bin" / "python"), str(PROGRAMS / f"{name}_through.py")]
    apart = ["unshare", "--mount", "--propagation=private"]
    log = own / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen([*apart, *program, str(own / "tree"), str(place)], stderr=output) as held,
    ):
        try:
            _wait_until_mounted(held, place, log)
            enter = ["nsenter", f"--mount=/proc/{held.pid}/ns/mnt"]
            yield [*enter, "sh", "-c", 'cd "$0" && exec "$@"', str(place)]
        finally:
            held.kill()


def _wait_until_mounted(held: subprocess.Popen[bytes], place: Path, log: Path) -> None:
    until = time.monotonic() + MOUNTED_S
    while held.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError):
            if f" {place} " in Path(f"/proc/{held.pid}/mountinfo").read_text():
                return
        time.sleep(0.02)
    said = os.fsdecode(log.read_bytes()).strip().splitlines()[-1:]
    raise BenchError(f"it does not mount: {' '.join(said) or 'no word of it'}")
