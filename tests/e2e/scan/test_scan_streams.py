"""What a scan reads from and writes to may end, fill up, be a terminal, or be no file at all."""

from __future__ import annotations

import os
import pty
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from scan_lab import Call, token

PROGRAM = Path(sys.executable).with_name("aesp-proxy")
MANY = 230


@pytest.fixture
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Give an environment in which what is compiled is kept with that of the other tests."""
    return os.environ | {
        "XDG_CACHE_HOME": str(tmp_path_factory.getbasetemp() / "cache"),
        "XDG_STATE_HOME": str(tmp_path_factory.getbasetemp() / "no-state"),
        "COLUMNS": "30",
    }


@pytest.fixture
def many(folder: Path) -> Path:
    for number in range(MANY):
        (folder / f"{number:03}").write_text(f"{token(number)}\n")
    return folder


class TestOutput:
    def test_a_pipe_is_written_into_and_stays(self, scan: Call, folder: Path):
        (folder / "a").write_text(token(1))
        os.mkfifo(folder / "pipe")
        read: list[bytes] = []
        reader = threading.Thread(target=lambda: read.append((folder / "pipe").read_bytes()))
        reader.start()
        done = scan("a", "--output", "pipe")
        reader.join()
        assert done.returncode == 1
        assert b"github-pat" in read[0]
        assert stat.S_ISFIFO((folder / "pipe").stat().st_mode)

    def test_a_device_is_written_into_and_stays(self, scan: Call, folder: Path):
        (folder / "a").write_text(token(1))
        (folder / "null").symlink_to("/dev/null")
        (folder / "full").symlink_to("/dev/full")
        assert scan("a", "--output", "null").returncode == 1
        done = scan("a", "--output", "full")
        assert done.returncode == 3
        assert "/dev/full: cannot be written: No space left on device" in done.stderr
        for name in ("null", "full"):
            assert (folder / name).is_symlink()
            assert stat.S_ISCHR(Path("/dev", name).stat().st_mode)

    def test_of_a_link_the_file_is_written(self, scan: Call, folder: Path):
        (folder / "a").write_text(token(1))
        (folder / "link").symlink_to("there")
        assert scan("a", "--output", "link").returncode == 1
        assert (folder / "link").is_symlink()
        assert "github-pat" in (folder / "there").read_text()

    def test_a_report_that_does_not_fit_leaves_the_old_one(
        self, many: Path, environment: dict[str, str]
    ):
        (many / "old").write_text("old")
        done = subprocess.run(
            [PROGRAM, "scan", "001", "--format", "sarif", "--output", "old"],
            cwd=many, env=environment, capture_output=True, check=False, text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000)),
        )  # fmt: skip
        assert done.returncode == 3
        assert "old: cannot be written: File too large" in done.stderr
        assert (many / "old").read_text() == "old"
        assert len(list(many.iterdir())) == MANY + 1

    def test_standard_output_that_is_full_is_said(self, many: Path, environment: dict[str, str]):
        with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
            done = subprocess.run(
                [PROGRAM, "scan", "001"], cwd=many, env=environment, check=False,
                stdout=full, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
        assert done.returncode == 4
        assert "No space left on device" in done.stderr

    def test_nobody_who_reads_any_more_ends_it_as_a_signal_would(
        self, many: Path, environment: dict[str, str]
    ):
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(
            [PROGRAM, "scan", "001"], cwd=many, env=environment, check=False,
            stdout=write, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        os.close(write)
        assert done.returncode == 141
        assert "fault" not in done.stderr


def _on_a_terminal(folder: Path, environment: dict[str, str], *arguments: str) -> str:
    """Return what a person sees who has only standard error on a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, "scan", *arguments],
        cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    seen = b"".join(_until_closed(ours))
    assert process.wait() == 1
    return seen.decode()


def _until_closed(descriptor: int) -> Iterator[bytes]:
    with os.fdopen(descriptor, "rb", buffering=0) as terminal:
        while True:
            try:
                part = terminal.read(4096)
            except OSError:  # the other side is closed
                return
            yield part


def test_a_bar_is_for_a_person_who_waits_for_many(many: Path, environment: dict[str, str]):
    seen = _on_a_terminal(many, environment, ".", "--jobs", "1")
    assert "scanning files" in seen
    assert "100%" in seen
    assert f"{MANY} files" in seen
    done = subprocess.run(
        [PROGRAM, "scan", "."], cwd=many, env=environment, capture_output=True, check=False
    )
    assert b"scanning" not in done.stderr
    assert b"\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("jobs", "number", "code"),
    [("1", signal.SIGINT, 130), ("2", signal.SIGINT, 130), ("2", signal.SIGKILL, -9)],
    ids=str,
)
def test_however_it_is_ended_its_processes_end_too(
    many: Path, environment: dict[str, str], jobs: str, number: int, code: int
):
    os.mkfifo(many / "pipe")
    process = subprocess.Popen(
        [PROGRAM, "scan", ".", "pipe", "--jobs", jobs], cwd=many, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    with (many / "pipe").open("wb"):  # opens when it reads the pipe, which never ends
        os.kill(process.pid, number)
        _, told = process.communicate(timeout=60)  # until none of them holds its streams
    assert process.returncode == code
    assert told.strip() == b""
