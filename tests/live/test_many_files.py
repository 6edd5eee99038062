"""A hundred thousand small files unpacked, listed and read by every backend; all are there after.

Minutes each (``-m long``). ``MANY_FILES`` is another number of them.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import fanotify_lab
import fuse_lab
import pytest
from fanotify_lab import WATCHED, Lab

PROGRAM = Path(sys.executable).parent / "aesp-proxy"
FILES = int(os.environ.get("MANY_FILES", "100000"))
TIME_S = 3600
POLICY = """\
version: "1.2.0"
name: many
guards:
  egress_allowlist: {default_action: block, allow: []}
  forbidden_path: {enabled: true, patterns: ["**/.env"]}
  secret_leak: {enabled: true}
"""
WORK = """
tar xf "$0" || exit 1
find src -type f | wc -l
grep -rl 'file number' src | wc -l
cat src/.env 2> /dev/null
rm -r src/d0
"""
LEFT = FILES - 100
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(TIME_S),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


def _pack(path: Path) -> None:
    with tarfile.open(path, "w") as packed:
        for number in range(FILES):
            entry = tarfile.TarInfo(f"src/d{number // 100}/f{number}")
            text = f"file number {number}\n".encode()
            entry.size, entry.mode = len(text), 0o644
            packed.addfile(entry, io.BytesIO(text))


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="aesp"))
    made.chmod(0o755)
    _pack(made / "src.tar")
    (made / "policy.yaml").write_text(POLICY)
    for name in ("p/src", "home"):
        (made / name).mkdir(parents=True)
    (made / "p" / "src" / ".env").write_text("THE-TOKEN")
    yield made
    shutil.rmtree(made, ignore_errors=True)


def _counted(tree: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(tree)) - 1  # the forbidden one


@pytest.mark.parametrize("backend", ["stage", "notify", "observe", "fuse"])
def test_a_hundred_thousand_files_are_made_read_and_kept(folder, backend):
    if backend == "fuse" and (missing := fuse_lab.why_not()):
        pytest.skip(f"no FUSE here: {missing}")
    options = ["--state", str(folder / "state"), "--policy", str(folder / "policy.yaml")]
    began = time.monotonic()

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(PROGRAM), *words],
            cwd=folder / "p",
            env={**os.environ, "HOME": str(folder / "home")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    run = ["run", *options, "--files", backend]
    ran = call(*run, "--", "sh", "-c", WORK, str(folder / "src.tar"))
    worked = time.monotonic()
    assert ran.returncode == 0, ran.stderr
    # What is forbidden is listed by those that hide nothing.
    seen = {"notify": FILES + 1, "observe": FILES + 1}.get(backend, FILES)
    read = "THE-TOKEN" if backend == "observe" else ""
    assert ran.stdout == f"{seen}\n{FILES}\n{read}", ran.stderr
    if backend == "stage":
        assert _counted(folder / "p" / "src") == 0
        listed = call("stage", "list", "--state", str(folder / "state")).stdout
        published = call("stage", "publish", *options, listed.split()[0])
        assert published.returncode == 0, published.stderr[-2000:]
    assert _counted(folder / "p" / "src") == LEFT
    assert call("audit", "verify", str(folder / "state")).returncode == 0
    ended = time.monotonic()
    print(f"{backend}: {FILES} files, worked {worked - began:.0f} s, after {ended - worked:.0f} s")


def test_a_hundred_thousand_files_of_who_is_watched_are_made_read_and_kept(folder):
    if missing := fanotify_lab.unusable():
        pytest.skip(missing)
    with ExitStack() as stack:
        kept = tempfile.TemporaryDirectory(ignore_cleanup_errors=True, prefix="aesp")
        lab = Lab(stack, Path(stack.enter_context(kept)))
        lab.put("src/.env", "THE-TOKEN")
        os.chown(lab.inside, WATCHED, WATCHED)
        shutil.copy(folder / "src.tar", lab.folder)
        lab.begin(policy=POLICY)
        began = time.monotonic()
        script = f"cd {lab.tree} && {WORK}"
        words = lab.command(WATCHED, "sh", "-c", script, str(lab.folder / "src.tar"))
        ran = subprocess.run(words, capture_output=True, text=True, check=False)
        worked = time.monotonic()
        assert ran.stdout == f"{FILES + 1}\n{FILES}\n", ran.stderr
        assert _counted(lab.inside / "src") == LEFT
        assert lab.reads("src/.env") == "EPERM"
        assert "was killed" not in lab.said
        print(f"fanotify: {FILES} files, worked {worked - began:.0f} s")
