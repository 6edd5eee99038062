"""Every attack on files, by every backend, as every kind of user: whole runs, real kernels.

``file_attacks`` is the table: what is played, what each backend does not stop and why, and
who a backend is not to be had for. ``docs/file-attacks.md`` is written from it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import fanotify_lab
import file_attacks
import fuse_lab
import fuse_user
import pytest
import without_namespaces
from fanotify_lab import WATCHED, Lab
from file_attacks import ATTACKS, PATTERNS, PLAYED, USERS, harm, lines_of, reached

PYTHON = sys.executable
PROGRAM = Path(sys.executable).parent / "aesp-proxy"
TIME_S = 300
POLICY = f"""\
version: "1.2.0"
name: attacks
guards:
  egress_allowlist: {{default_action: block, allow: []}}
  forbidden_path: {{enabled: true, patterns: {list(PATTERNS)}}}
  secret_leak: {{enabled: false}}
"""
USER = 4242
RUNS = [(backend, user) for backend in ("fuse", "stage", "notify") for user in USERS]
BECOME = {
    "root": [],
    "user": [],
    "userns": ["/usr/bin/unshare", "--user", "--map-root-user"],
    "container": [PYTHON, without_namespaces.__file__, "docker"],
    "container-user": [PYTHON, without_namespaces.__file__, "docker"],
}
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it becomes every kind of user"),
    pytest.mark.timeout(TIME_S),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="aesp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def play(folder: Path, backend: str, user: str) -> subprocess.CompletedProcess[str]:
    """Run the attacks inside of a whole ``run``."""
    tree = folder / "p" / "tree"
    (folder / "home").mkdir()
    tree.mkdir(parents=True)
    file_attacks.build_all(tree)
    shutil.copy(file_attacks.__file__, folder / "p" / "attacks.py")
    (folder / "policy.yaml").write_text(POLICY)
    owner = 0 if user in ("root", "container") else USER
    for path in (folder, *folder.rglob("*")):
        os.lchown(path, owner, owner)
    words = [str(PROGRAM), "run", "--state", str(folder / "state")]
    words += ["--policy", str(folder / "policy.yaml"), "--files", backend]
    words += ["--allow-degraded"] if user.startswith("container") else []
    words += ["--", PYTHON, "-I", str(folder / "p" / "attacks.py"), str(tree)]
    words = [*BECOME[user], *words]
    if owner:
        words = [PYTHON, fuse_user.__file__, "666", *words]
    return subprocess.run(
        words,
        cwd=folder / "p",
        env={**os.environ, "HOME": str(folder / "home")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIME_S,
        check=False,
    )


@pytest.mark.parametrize(("backend", "user"), RUNS, ids=map("-".join, RUNS))
def test_every_attack_is_stopped_but_those_that_the_table_says(folder, backend, user):
    if backend == "fuse" and (missing := fuse_lab.why_not()):
        pytest.skip(f"no FUSE here: {missing}")
    ran = play(folder, backend, user)
    if user in PLAYED[backend]:
        assert (ran.returncode, ran.stdout) == (3, "")
        assert "aesp-proxy: " in ran.stderr
        assert "here" in ran.stderr
        return
    _judge(backend, user, folder / "p" / "tree", ran)


def _judge(backend: str, user: str, tree: Path, ran: subprocess.CompletedProcess[str]) -> None:
    rows = list(lines_of(ran.stdout))
    assert {one.name for one, _ in rows} == ATTACKS.keys(), ran.stderr
    assert [line for _, line in rows if "broken" in line] == []
    lines = {one.name: (line, harm(one, tree, line)) for one, line in rows}
    found = {name for name, (_, harmed) in lines.items() if harmed}
    wrong = found ^ reached(backend, user)
    assert not wrong, {name: lines[name] for name in wrong}


WATCHED_USERS = [user for user in USERS if user not in PLAYED["fanotify"]]


@pytest.fixture
def lab() -> Iterator[Lab]:
    if missing := fanotify_lab.unusable():
        pytest.skip(missing)
    with ExitStack() as stack:
        kept = tempfile.TemporaryDirectory(ignore_cleanup_errors=True, prefix="aesp")
        yield Lab(stack, Path(stack.enter_context(kept)))


@pytest.mark.parametrize("user", WATCHED_USERS)
def test_every_attack_of_who_is_watched_is_stopped_but_those_that_the_table_says(lab, user):
    file_attacks.build_all(lab.inside)
    for path in (lab.inside, *lab.inside.rglob("*")):
        os.lchown(path, WATCHED, WATCHED)
    lab.begin(policy=POLICY)
    become = [*BECOME[user], "--mount"] if user == "userns" else BECOME[user]
    ran = lab.run(WATCHED, *become, PYTHON, "-I", file_attacks.__file__, str(lab.tree))
    _judge("fanotify", user, lab.inside, ran)
