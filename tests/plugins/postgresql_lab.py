"""Debian's PostgreSQL, started by the test: a cluster of its own, on a socket and loopback.

It runs as an ordinary user where the test is root, keeps ``fsync`` on, and can be killed
and started again. Everything is gone at the end.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

WAIT_S = 30.0
PASSWORD = "of the lab"
_FOUND = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
BIN = _FOUND[-1].parent if _FOUND else None
needs_postgresql = pytest.mark.skipif(BIN is None, reason="PostgreSQL's server is not installed")


class Cluster:
    """One server: ``url(NAME)`` for a new database on its socket, ``port`` on loopback."""

    def __init__(self, folder: Path, *options: str) -> None:
        """Make its files below ``folder``; ``options`` are more of initdb's."""
        assert BIN is not None
        self.folder = folder
        self.port = _free_port()
        self._as = _ordinary_user()
        self._process: subprocess.Popen[bytes] | None = None
        if self._as:
            os.chown(folder, int(self._as["user"]), int(self._as["group"]))
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        self._run(
            BIN / "initdb",
            *("-D", folder / "data", "-U", "aesp", "--no-instructions", "--locale=C"),
            *("--encoding=UTF8", "--auth-local=trust", "--auth-host=scram-sha-256"),
            f"--pwfile={folder / 'password'}",
            *options,
        )

    def start(self, *settings: str) -> None:
        """Start it, with ``NAME=VALUE`` beside its own settings; return when it answers."""
        assert BIN is not None
        given = (
            f"unix_socket_directories={self.folder}",
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            "shared_buffers=16MB",
            "max_connections=60",
            "autovacuum=off",
            *settings,
        )
        with (self.folder / "log").open("ab") as out:
            self._process = subprocess.Popen(
                [BIN / "postgres", "-D", self.folder / "data", *(f"--{each}" for each in given)],
                stdout=out,
                stderr=out,
                cwd="/",
                **self._as,
            )
        end_s = time.monotonic() + WAIT_S
        while True:
            try:
                psycopg.connect(self.url("postgres")).close()
            except psycopg.OperationalError:
                said = (self.folder / "log").read_text("utf-8", "replace")[-2000:]
                assert self._process.poll() is None, said
                assert time.monotonic() < end_s, said
                select.select([], [], [], 0.02)
            else:
                return

    def kill(self) -> None:
        """Kill the server and every process it has started, as a power cut of it would."""
        assert self._process is not None
        children = _children_of(self._process.pid)
        # All are stopped first, so that none sees the others go.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in (self._process.pid, *children):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        self._process.wait()
        end_s = time.monotonic() + WAIT_S
        while any(Path(f"/proc/{pid}").exists() for pid in children):
            assert time.monotonic() < end_s
            select.select([], [], [], 0.005)
        self._process = None

    def restart(self) -> None:
        """Start it again after :meth:`kill`."""
        self.start()

    def revive(self) -> None:
        """Wait until it answers again; one that has ended is started, as its supervisor would."""
        end_s = time.monotonic() + WAIT_S
        while True:
            assert self._process is not None
            if self._process.poll() is not None:
                self.start()
                return
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url("postgres")).close()
                return
            assert time.monotonic() < end_s
            select.select([], [], [], 0.02)

    def stop(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def url(self, name: str) -> str:
        return f"postgresql://aesp@/{name}?host={self.folder}&port={self.port}"

    def new_database(self) -> str:
        """Make an empty database; return its address on the socket."""
        name = f"d{secrets.token_hex(6)}"
        self.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def emptied(self, url: str) -> str:
        """Have the stores of a database empty, as if it were new: that is far quicker."""
        names = [
            row[0]
            for row in self.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'aesp_proxy'"
                " AND tablename NOT IN ('layout', 'positions', 'origins')",
                url=url,
            )
        ]
        if names:
            deletes = "; ".join(f"DELETE FROM aesp_proxy.{name}" for name in names)
            last = (
                "DELETE FROM aesp_proxy.origins; UPDATE aesp_proxy.positions SET last = 0;"
                "ALTER TABLE aesp_proxy.dead_letters ALTER COLUMN id RESTART"
            )
            self.execute(f"{deletes}; {last}", url=url)
        return url

    def execute(self, sql: str, *, url: str = "") -> list[Any]:
        """Run a statement of the test's own."""
        with psycopg.connect(url or self.url("postgres"), autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def _run(self, *command: object) -> None:
        done = subprocess.run(
            [str(each) for each in command], capture_output=True, check=False, cwd="/", **self._as
        )
        assert done.returncode == 0, done.stderr.decode("utf-8", "replace")


@contextlib.contextmanager
def running_cluster(*options: str, small: str = "", small_mb: int = 0) -> Iterator[Cluster]:
    """Give a server that runs; stop and remove it.

    ``options`` are initdb's. What ``small`` names (``data``: all of it, ``wal``: its log) lies on
    a disk of its own, of ``small_mb``, at ``folder/disk``.
    """
    # Not pytest's folder: the server's user could not reach it, and a socket's path is short.
    folder = Path(tempfile.mkdtemp(prefix="aesp-pg-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        if small:
            stack.enter_context(_small_disk(folder, small, small_mb))
        if small == "wal":
            options = (*options, f"--waldir={folder / 'disk' / small}")
        cluster = Cluster(folder, *options)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


@contextlib.contextmanager
def _small_disk(folder: Path, name: str, size_mb: int) -> Iterator[None]:
    """Have ``folder/NAME`` lie on a file system of its own, taken away again."""
    disk = folder / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=755", "aesp-test", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        (disk / name).mkdir(mode=0o700)
        user = _ordinary_user()
        os.chown(disk / name, int(user["user"]), int(user["group"]))
        (folder / name).symlink_to(disk / name)
        yield
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def _ordinary_user() -> dict[str, Any]:
    """Return how to become a user that the server consents to run as."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise AssertionError("there is no ordinary user")


def _children_of(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
