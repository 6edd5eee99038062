"""``run --files fuse``, as root and as an ordinary user: walls and ends (attacks have a file)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import fuse_user
import other_user
import pytest
from fuse_lab import why_not

MISSING = "needs root: it becomes an ordinary user" if os.geteuid() else why_not()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"no FUSE here: {MISSING}")
PROGRAM = Path(sys.executable).parent / "aesp-proxy"
POLICY = """\
version: "1.2.0"
name: live
guards:
  egress_allowlist: {default_action: block, allow: []}
  forbidden_path: {enabled: true, patterns: ["**/.env", "**/.ssh/**", "**/secret/**", "**/caf\\u00e9.key"]}
  secret_leak: {enabled: false}
"""  # noqa: E501


class Place:
    """A project and a home directory of one user, and how to run something there."""

    def __init__(self, folder: Path, *, user: int, mode: str = "666") -> None:
        self.folder, self.user, self.mode = folder, user, mode
        self.project, self.home, self.state = (
            folder / each for each in ("p", "home", "home/state")
        )
        (self.home / ".ssh").mkdir(parents=True)
        (self.home / ".ssh" / "id").write_text("THE-KEY")
        (self.home / "notes").write_text("notes\n")
        self.project.mkdir()
        (self.project / ".env").write_text("THE-TOKEN")
        (self.project / "policy.yaml").write_text(POLICY)
        (self.project / "good").write_text("good\n")
        os.link(self.project / ".env", self.home / "other-name")

    def words(self, *command: str) -> list[str]:
        walls = ["--policy", str(self.project / "policy.yaml"), "--state", str(self.state)]
        run = [str(PROGRAM), "run", "--files", "fuse", *walls, "--", *command]
        if self.user == 0:
            return run
        return [sys.executable, fuse_user.__file__, self.mode, *run]

    def own(self) -> None:
        """Have everything belong to the user."""
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, self.user, self.user, follow_symlinks=False)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        self.own()
        return subprocess.run(
            self.words(*command),
            cwd=self.project,
            env={**os.environ, "HOME": str(self.home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )


def _open_to_all(folder: Path) -> None:
    """Let other users reach a folder of pytest's, below that of all temporary files."""
    while folder != Path(tempfile.gettempdir()):
        folder.chmod(0o755)
        folder = folder.parent


@pytest.fixture(params=[0, other_user.USER], ids=["root", "user"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    _open_to_all(tmp_path)
    return Place(tmp_path / "own", user=request.param)


def test_home_project_and_own_files_are_as_they_should_be(place: Place):
    script = """
        pwd; cat good ~/notes ~/state/ca/ca-cert.pem > /dev/null && echo read
        cat .env ~/.ssh/id ~/other-name ~/state/keys/* /proc/1/cwd/.env 2>/dev/null
        ls -A . ~ ~/state; echo more >> good; echo x >> policy.yaml; mv policy.yaml q
        echo new > ~/new; mv ~/new moved; cat moved; rm -r ~/state
    """
    ran = place.run("sh", "-c", script)
    lines = ran.stdout.splitlines()
    assert lines[:2] == [str(place.project), "read"], ran.stderr
    assert "THE-" not in ran.stdout
    assert ".env" not in lines
    assert ".ssh" not in lines
    assert "other-name" not in lines
    assert "keys" not in lines
    assert lines[-1] == "new"
    assert (place.project / "good").read_text() == "good\nmore\n"
    assert (place.project / "policy.yaml").read_text() == POLICY
    assert (place.state / "audit").is_dir()
    assert "files: fuse: every lookup" in ran.stderr


def test_a_killed_guard_ends_the_command_and_says_why(place: Place):
    place.own()
    with subprocess.Popen(
        place.words("sh", "-c", "echo started; while cat good > /dev/null; do :; done; sleep 60"),
        cwd=place.project,
        env={**os.environ, "HOME": str(place.home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout
        assert running.stdout.readline() == "started\n"
        guard = guard_of(running.pid)
        assert guard, "no file guard"
        os.kill(guard, signal.SIGKILL)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 4
    assert "the file guard was killed by SIGKILL" in err


def guard_of(pid: int) -> int:
    """Find the file guard below a process."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_bytes()
        if b"aesp_proxy.daemon.file_guard" in words:
            return int(child)
        if (found := guard_of(int(child))) != 0:
            return found
    return 0


def test_who_may_not_open_the_device_is_told_exactly(tmp_path: Path):
    _open_to_all(tmp_path)
    place = Place(tmp_path / "own", user=other_user.USER, mode="600")
    ran = place.run("true")
    assert ran.returncode == 3
    assert "cannot guard files by fuse here: Permission denied" in ran.stderr
    assert "/dev/fuse" in ran.stderr
