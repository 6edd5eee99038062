"""What only root can set up: files of other users, and a program run as one of them."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes files of others")

PROGRAM = Path(sys.executable).parent / "aesp-proxy"
NOBODY = pwd.getpwnam("nobody").pw_uid


def start(state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROGRAM), "run", "--state", str(state), "--", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_state_directory_of_another_user_is_not_used(tmp_path):
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    os.chown(state, NOBODY, -1)
    ran = start(state, "touch", str(tmp_path / "started"))
    assert ran.returncode == 3
    assert "is another user's" in ran.stderr
    assert not (tmp_path / "started").exists()


def test_a_state_directory_on_a_read_only_file_system_is_told(tmp_path):
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro,mode=700", "none", str(state)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount here: {mounted.stderr.decode().strip()}")
    try:
        ran = start(state, "touch", str(tmp_path / "started"))
    finally:
        subprocess.run(["umount", str(state)], check=True)
    assert ran.returncode == 3
    assert "Read-only file system" in ran.stderr
    assert not (tmp_path / "started").exists()


def test_a_full_disk_stops_the_start_and_not_with_a_traceback(tmp_path):
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "none", str(state)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount here: {mounted.stderr.decode().strip()}")
    try:
        ran = start(state, "touch", str(tmp_path / "started"))
    finally:
        subprocess.run(["umount", str(state)], check=True)
    assert ran.returncode == 3
    assert "No space left on device" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "started").exists()
