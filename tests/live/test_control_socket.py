"""The control socket of the service, tried by another user of the machine."""

from __future__ import annotations

import os
import pwd
import socket
import tempfile
from pathlib import Path

import pytest
import trio

from aesp_proxy.daemon.service.answer import answer_questions
from aesp_proxy.daemon.service.run_dir import RunDir, socket_in

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it becomes another user")
NOBODY = pwd.getpwnam("nobody").pw_uid


def asked_as(uid: int, path: Path) -> bytes:
    """What a process of a user is told: an error's name, or what was sent."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setuid(uid)
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(20)
                sock.connect(str(path))
                sock.sendall(b'{"ask": "status"}\n')
                os.write(writer, b"sent:" + sock.recv(4096))
        except OSError as error:
            os.write(writer, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        answer = told.read()
    os.waitpid(child, 0)
    return answer


def told_to(uid: int, *, is_open: bool) -> bytes:
    async def play() -> bytes:
        async def status(question: object) -> dict[str, object]:
            return {"state": "running"}

        with (
            tempfile.TemporaryDirectory(prefix="aesp") as folder,
            RunDir(Path(folder) / "r") as run,
        ):
            if is_open:
                for path, mode in ((folder, 0o755), (run.path, 0o755)):
                    Path(path).chmod(mode)
                socket_in(run.path).chmod(0o666)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer_questions, run.listener, {"status": status})
                told = await trio.to_thread.run_sync(asked_as, uid, socket_in(run.path))
                nursery.cancel_scope.cancel()
        return told

    return trio.run(play)


def test_another_user_cannot_reach_it():
    assert told_to(NOBODY, is_open=False) == b"PermissionError"


def test_another_user_who_reaches_it_all_the_same_is_told_nothing():
    # Closed before it was asked, or after: which depends on who is quicker.
    cut = (b"sent:", b"ConnectionResetError", b"BrokenPipeError")
    assert told_to(NOBODY, is_open=True) in cut


def test_root_is_told():
    assert b"running" in told_to(0, is_open=False)
