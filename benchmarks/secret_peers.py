"""Other scanners of secrets, each given a folder: what files it tells of, and its CPU time.

They are installed into an environment of their own under ``.cache/bench``, as their pins
would not agree with ours. None is allowed to ask the network: detect-secrets and kingfisher
would verify what they find. Versions are pinned; a peer that cannot be had is named.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / ".cache" / "bench" / "secret-peers"
PINS = ("detect-secrets==1.5.0", "credsweeper==1.19.5", "kingfisher-bin==2.14.0")
RUN_S_MAX = 240.0


class AbsentError(Exception):
    """The peers cannot be had; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How many findings a peer has in each file (by name), and the CPU seconds it took."""

    files: Counter[str]
    cpu_s: float


Peer = Callable[[Path], Told]


def peers(*, install: bool) -> dict[str, Peer]:
    """Return the peers; AbsentError when they are not there and may not be fetched."""
    if not (PLACE / "bin" / "kingfisher").exists():
        if not install:
            raise AbsentError("not installed, and not to be (--no-install)")
        _install()
    return {
        "detect-secrets": _detect_secrets,
        "CredSweeper": _credsweeper,
        "kingfisher": _kingfisher,
    }


def _install() -> None:
    found = [ROOT / ".uv/bin/uv", ROOT / ".uv/lib/bin/uv"]
    uv = next((str(path) for path in found if path.exists()), shutil.which("uv"))
    if uv is None:
        raise AbsentError("there is no uv to install them with")
    python = PLACE / "bin" / "python"
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(PLACE)],
        [uv, "pip", "install", "--quiet", "--python", str(python), *PINS],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(PLACE, ignore_errors=True)
            last = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
            raise AbsentError(f"they cannot be installed: {last[0]}")


def _run(
    folder: Path, name: str, *arguments: str, codes: tuple[int, ...] = (0,)
) -> tuple[str, float]:
    """Run a peer in the folder; return its output and the CPU time of it and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(
        [str(PLACE / "bin" / name), *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=RUN_S_MAX)
        except subprocess.TimeoutExpired as error:
            raise AbsentError(f"{name} was not done after {RUN_S_MAX:.0f} s") from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode not in codes:
        raise AbsentError(f"{name} failed with exit code {process.returncode}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return output, spent


def _detect_secrets(folder: Path) -> Told:
    output, cpu_s = _run(folder, "detect-secrets", "scan", "--all-files", "--no-verify", ".")
    files: Counter[str] = Counter()
    for name, found in json.loads(output)["results"].items():
        files[name] += len(found)
    return Told(files=files, cpu_s=cpu_s)


def _credsweeper(folder: Path) -> Told:
    report = folder.with_name(folder.name + ".credsweeper.json")
    report.unlink(missing_ok=True)
    _, cpu_s = _run(
        folder, "credsweeper", "--path", ".", "--depth", "3", "--pedantic", "--no-stdout",
        "--save-json", str(report),
    )  # fmt: skip
    found = json.loads(report.read_text()) if report.exists() else []
    lines = (line for each in found for line in each["line_data_list"][:1])
    return Told(files=Counter(_named(line["path"]) for line in lines), cpu_s=cpu_s)


def _kingfisher(folder: Path) -> Told:
    # 200 and 205 say that something was found.
    output, cpu_s = _run(
        folder, "kingfisher", "scan", ".", "--no-validate", "--no-update-check", "--no-dedup",
        "--git-history", "none", "--jobs", "1", "--confidence", "low", "--format", "json",
        codes=(0, 200, 205),
    )  # fmt: skip
    # Its report is an object, and behind it a summary.
    files: Counter[str] = Counter()
    decoder, at = json.JSONDecoder(), 0
    while (at := len(output) - len(output[at:].lstrip())) < len(output):
        report, at = decoder.raw_decode(output, at)
        found = report.get("findings")
        if isinstance(found, list):
            files.update(_named(each["finding"]["path"]) for each in found)
    return Told(files=files, cpu_s=cpu_s)


def _named(path: str) -> str:
    """Return the file's own name: of what was found in an archive, the archive's."""
    first = path.removeprefix("./").split("!")[0].split("|")[0]
    return next((part for part in Path(first).parts if part not in (".", "/")), first)
