"""The work whose cost ``files`` and ``watch`` tell: a tree, and what programs do in it.

A variant is a shell in a copy of the tree. Each line must end with 0: a variant that refuses
what is asked for has failed, it is not fast. It then has no such figure, and that is told.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from benchmarks.harness import BenchError, Figures

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
FILES: Final = 3000
PACKAGES, FILES_OF_A_PACKAGE = 30, 20
BUSY_LOAD: Final = 1.0
# That of this environment may lie where another user may not look.
PYTHON: Final = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
# What is timed inside, as the time of many calls is not that of their shell.
OPENS: Final = """
import os, time
path, least, status = "src/d0/f0.py", 9.0, 9.0
for _ in range(5):
    began = time.perf_counter()
    for _ in range(1000): os.close(os.open(path, os.O_RDONLY))
    least = min(least, (time.perf_counter() - began) / 1000)
    began = time.perf_counter()
    for _ in range(5000): os.stat(path)
    status = min(status, (time.perf_counter() - began) / 5000)
print("measured", least * 1e6, status * 1e6)
"""
COMMANDS: Final = {
    "git_status_ms": "git status --short > /dev/null",
    "grep_ms": "grep -r zzzz src > /dev/null || test $? = 1",
    "find_ms": "find src > /dev/null",
    "tar_x_ms": "tar xf ../src.tar -C x",
    "rm_ms": "rm -r x/*",
    "npm_ms": "(cd app && npm install --offline --no-audit --no-fund --ignore-scripts --silent"
    ' --cache "$PWD/.npm" > /dev/null)',
    "read_ms": "cat large > /dev/null",
    "write_ms": "for n in $(seq {parts}); do dd if=../part of=x/$n bs=1M status=none; done",
}
# These are short and change nothing: the least of three is told.
AGAIN: Final = ("git_status_ms", "grep_ms", "find_ms", "read_ms")
# What is not timed, and leaves the tree as it was.
AFTER: Final = "rm -rf x/* app/.npm app/node_modules app/package-lock.json"
PART_BYTES: Final = 32 << 20  # what is written is vetted whole: files, not one of 1 GiB


class FailedError(BenchError):
    """A line did not do what it should; the shell goes on."""


class Shell:
    """One variant: a shell that is told what to do, line by line."""

    def __init__(self, words: Sequence[str], tree: Path, environment: Mapping[str, str]) -> None:
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
        """Run a line; return its seconds and what it printed. FailedError when it fails."""
        if self._process.stdin is None or self._process.stdout is None:
            raise BenchError("a shell without pipes")
        began = time.perf_counter()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{line}\necho . $?\n")
        said: list[str] = []
        for text in self._process.stdout:
            if text.startswith(". "):
                if text != ". 0\n":
                    raise FailedError(f"exit code {text[2:-1]}")
                return time.perf_counter() - began, said
            said.append(text)
        error = self._process.stderr.read() if self._process.stderr else ""
        raise BenchError(f"a shell ended: {' '.join(error.strip().splitlines()[-1:])}")


def make_tree(folder: Path, large_bytes: int, *, files: int = FILES) -> Path:
    """Make the tree of which each variant gets a copy, and beside it what is copied in."""
    tree = folder / "tree"
    for number in range(files):
        place = tree / "src" / f"d{number // 50}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"f{number}.py").write_text(_source(number) * 8)
    git = ["git", "-c", "user.name=n", "-c", "user.email=n@example", "-C", str(tree)]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"], ["gc", "-q"]):
        subprocess.run([*git, *words], check=True)
    third = [f"src/d{number}" for number in range(max(1, files // 150))]
    subprocess.run(["tar", "cf", "src.tar", "-C", "tree", *third], cwd=folder, check=True)
    (tree / ".git" / "info" / "exclude").write_text("x/\nlarge\napp/\npackages/\n")
    (tree / "x").mkdir()
    _make_packages(tree, PACKAGES * files // FILES)
    text = "".join(_source(number) for number in range(PART_BYTES // 60)).encode()
    (folder / "part").write_bytes(text[:PART_BYTES])
    with (tree / "large").open("wb") as file:
        for _ in range(large_bytes // PART_BYTES):
            file.write(text[:PART_BYTES])
    return tree


def _source(number: int) -> str:
    return f"import os\n\n\ndef function_{number}():\n    return os.getpid() + {number}\n"


def _make_packages(tree: Path, packages: int) -> None:
    """Make an application, and what it depends on as npm packs it: nothing is fetched."""
    (tree / "packages").mkdir()
    (tree / "app").mkdir()
    wanted = {f"p{number}": f"file:../packages/p{number}.tgz" for number in range(packages)}
    for name in wanted:
        with tarfile.open(tree / "packages" / f"{name}.tgz", "w:gz", compresslevel=1) as packed:
            manifest = json.dumps({"name": name, "version": "1.0.0", "main": "f0.js"})
            texts = {"package.json": manifest}
            for number in range(FILES_OF_A_PACKAGE):
                texts[f"lib{number % 3}/f{number}.js"] = f"exports.f{number} = {number}\n" * 30
            for path, text in texts.items():
                entry = tarfile.TarInfo(f"package/{path}")
                entry.size, entry.mode = len(text), 0o644
                packed.addfile(entry, io.BytesIO(text.encode()))
    application = {"name": "app", "version": "1.0.0", "dependencies": wanted}
    (tree / "app" / "package.json").write_text(json.dumps(application))


def copy(folder: Path, own: Path, *, link_large: bool = False) -> Path:
    """Give a variant its copy, and what lies beside it; return the tree.

    ``link_large``: the large file is the very one, for who only reads it.
    """
    own.mkdir(parents=True, exist_ok=True)
    skipped = shutil.ignore_patterns("large") if link_large else None
    shutil.copytree(folder / "tree", own / "tree", symlinks=True, ignore=skipped)
    if link_large:
        os.link(folder / "tree" / "large", own / "tree" / "large")
    for name in ("src.tar", "part"):
        shutil.copy(folder / name, own)
    return own / "tree"


def measure(shell: Shell, large_bytes: int, failed: Callable[[str], None]) -> Figures:
    """Run every command once, and many openings; leave the tree as it was."""
    found: Figures = {}
    for name, line in COMMANDS.items():
        if name == "npm_ms" and shutil.which("npm") is None:
            continue
        whole = line.replace("{parts}", str(large_bytes // PART_BYTES))
        try:
            times = 3 if name in AGAIN else 1
            found[name] = min(shell.ask(whole)[0] for _ in range(times)) * 1e3
        except FailedError as error:
            failed(f"{name.rpartition('_')[0]} fails: {error}")
    _, said = shell.ask(f"{PYTHON} -I -c '{OPENS}'")
    _, opens, status = said[-1].split()
    shell.ask(AFTER)
    return {**found, "open_us": float(opens), "stat_us": float(status)}
