"""A tree seen through FUSE: mounted in a namespace of a child's own, served by a process.

``FuseLab`` serves with a gate over a policy in a few lines. Programs run inside with the
tree as their directory; the host looks at it directly.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from file_lab import FILES_POLICY, TOKEN_RULES, Recorded, file_gate, files_snapshot

from aesp_proxy.intercept.fuse.serve import serve_trees, view_of
from aesp_proxy.intercept.other_names import OtherNames
from aesp_proxy.launch.isolation import capabilities, fuse_mount, kernel, mounts, seccomp

HERE = Path(__file__)
TIME_S = 60


def why_not() -> str:
    """Say why there is no FUSE here for this user; empty when there is."""
    child = subprocess.run(
        [sys.executable, str(HERE), "probe"], capture_output=True, text=True, check=False
    )
    return child.stderr.strip().splitlines()[-1] if child.returncode else ""


class FuseLab:
    """A served tree. ``root`` is the host's path of it."""

    def __init__(
        self,
        root: Path,
        *,
        policy: str = FILES_POLICY,
        covers: Mapping[str, str] | None = None,
        reading_refuses: bool = True,
        content_bytes_max: int = 64 << 20,
    ) -> None:
        self.root = root
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._inside = subprocess.Popen(
            [sys.executable, str(HERE), "inside", str(root), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        _, (device,), _, _ = socket.recv_fds(self._ours, 100, 1)
        self.records = Path(tempfile.mkdtemp()) / "records"
        more = [reading_refuses, content_bytes_max]
        said = json.dumps([str(root), device, policy, dict(covers or {}), *more])
        self.server = subprocess.Popen(
            [sys.executable, str(HERE), "serve", said, str(self.records)], pass_fds=[device]
        )
        os.close(device)

    def start(self, words: Sequence[str], **options: object) -> subprocess.Popen[str]:
        """Start a program inside, with no privilege left."""
        told = [sys.executable, str(HERE), "enter", str(self._inside.pid), str(self.root), *words]
        return subprocess.Popen(
            told, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
        )

    def run(
        self, *words: str, time_s: float = TIME_S, **options: object
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside to its end."""
        with self.start(words, stdin=subprocess.DEVNULL, **options) as process:
            try:
                out, err = process.communicate(timeout=time_s)
            except subprocess.TimeoutExpired:
                self.server.kill()  # what waits for it cannot be killed itself
                process.kill()
                raise
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def sh(self, script: str, **options: object) -> subprocess.CompletedProcess[str]:
        """Run a script of the shell inside."""
        return self.run("sh", "-c", script, **options)

    def recorded(self) -> list[str]:
        """Return what was recorded, a line each."""
        return (
            self.records.read_text(errors="surrogateescape").splitlines()
            if self.records.exists()
            else []
        )

    def close(self) -> None:
        """End everything."""
        self.server.kill()
        self.server.wait()
        self._inside.kill()
        self._inside.wait()
        self._ours.close()


@contextlib.contextmanager
def fuse_lab(root: Path, **options: object) -> Iterator[FuseLab]:
    """Serve a tree for a while."""
    lab = FuseLab(root, **options)
    try:
        yield lab
    finally:
        lab.close()


class _Written(Recorded):
    """Records as lines of a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("a", buffering=1, errors="surrogateescape")

    def append(self, record):
        found = super().append(record)
        self._file.write(f"{record.action} {record.reason} {record.resource}\n")
        return found


def _inside(tree: str, channel: int) -> None:
    os.unshare(os.CLONE_NEWNS)
    mounts.make_private()
    made = fuse_mount.make(tree)
    fuse_mount.attach(made)
    with socket.socket(fileno=channel) as link:
        socket.send_fds(link, [b"fuse"], [made.device])
        os.close(made.device)
        link.recv(1)


def _serve(said: str, records: str) -> None:
    tree, device, policy, covers, refuses, bytes_max = json.loads(said)
    snapshot = files_snapshot(policy, TOKEN_RULES)
    gate = file_gate(
        snapshot,
        _Written(Path(records)),
        reading_refuses=refuses,
        content_bytes_max=bytes_max,
    )

    def reload(*_: object) -> None:
        from file_lab import file_judge

        text = Path(f"{records}.policy").read_text()
        gate.swap(file_judge(files_snapshot(text, TOKEN_RULES)))
        view.refresh()

    names = OtherNames(gate, [tree], entries_max=1_000_000, apart=list(covers or ()))
    view = view_of(tree, device, gate, covers=covers, other_names=names)
    signal.signal(signal.SIGUSR1, reload)
    serve_trees([view], None, lambda: True, names)


def _enter(pid: str, root: str, words: list[str]) -> None:
    with Path(f"/proc/{pid}/ns/mnt").open("rb") as space:
        os.setns(space.fileno(), os.CLONE_NEWNS)
    os.chdir(root)
    capabilities.give_up_all()
    seccomp.enforce(own_network=True, own_processes=True)
    kernel.close_on_exec_from(3)
    os.execvp(words[0], words)


def _probe() -> None:
    os.unshare(os.CLONE_NEWNS)
    mounts.make_private()
    with tempfile.TemporaryDirectory() as folder:
        os.close(fuse_mount.make(folder).device)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["inside", tree, channel]:
            _inside(tree, int(channel))
        case ["serve", said, records]:
            _serve(said, records)
        case ["enter", pid, root, *words]:
            _enter(pid, root, words)
        case ["probe"]:
            _probe()
