"""What a command under ``aesp-proxy run`` can do past the proxy: one run for all probes.

A probe is the Python code of a case. It is executed by the command; whether ``through`` is
true afterwards is its answer, an exception is another. It may use the environment:
``LAB_TCP`` and ``LAB_UDP`` (ports of servers on loopback that answer), ``LAB_UNIX`` (path of a
Unix socket that answers), ``LAB_SECRET`` (a file that the policy forbids), ``LAB_POLICY``,
``LAB_STATE``, ``LAB_SCRATCH`` (a directory to write in).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from isolation_probe import run_options

PROGRAM = Path(sys.executable).parent / "aesp-proxy"
_TIME_S = 40
_RUNNER = """
import json, sys
told = {}
for name, code in json.load(open(sys.argv[1])).items():
    space = {}
    try:
        exec(code, space)
        told[name] = "through" if space.get("through") else "not through"
    except Exception as error:
        told[name] = f"{type(error).__name__}: {error}"
json.dump(told, open(sys.argv[2], "w"))
"""


def run_probes(codes: dict[str, str], directory: Path, policy: Path) -> dict[str, str]:
    """Run all probes in one command under enforcement; returns what each one found."""
    asked, told = directory / "probes.json", directory / "told.json"
    asked.write_text(json.dumps(codes), "utf-8")
    own_policy = directory / "policy.yaml"
    own_policy.write_bytes(policy.read_bytes())
    secret = directory / "secret-file"
    secret.write_text("a secret", "utf-8")
    with ExitStack() as stack:
        environment = os.environ | {
            "LAB_TCP": stack.enter_context(_answering(socket.SOCK_STREAM)),
            "LAB_UDP": stack.enter_context(_answering(socket.SOCK_DGRAM)),
            "LAB_UNIX": stack.enter_context(_answering_unix(directory)),
            "LAB_SECRET": str(secret),
            "LAB_POLICY": str(own_policy),
            "LAB_STATE": str(directory / "state"),
            "LAB_SCRATCH": str(directory),
        }
        words = ["run", *run_options(), "--state", str(directory / "state")]
        words += ["--policy", str(own_policy), "--"]
        command = [str(PROGRAM), *words, sys.executable, "-I", "-c", _RUNNER, str(asked), str(told)]
        ran = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_TIME_S, check=False
        )
    assert ran.returncode == 0, ran.stderr
    return {str(k): str(v) for k, v in json.loads(told.read_text("utf-8")).items()}


@contextmanager
def _answering(kind: socket.SocketKind) -> Iterator[str]:
    """A server on loopback that answers ``hello``; gives its port."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        with _served(sock):
            yield str(sock.getsockname()[1])


@contextmanager
def _answering_unix(directory: Path) -> Iterator[str]:
    # The name of a Unix socket is at most 108 bytes: reached through the descriptor's path.
    path = directory / "outside.sock"
    descriptor = os.open(directory, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.bind(f"/proc/self/fd/{descriptor}/outside.sock")
            with _served(sock):
                yield str(path)
    finally:
        os.close(descriptor)


@contextmanager
def _served(sock: socket.socket) -> Iterator[None]:
    stream = sock.type == socket.SOCK_STREAM
    if stream:
        sock.listen(8)
    sock.settimeout(0.05)
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                if stream:
                    connection, _ = sock.accept()
                    with connection:
                        connection.sendall(b"hello")
                else:
                    sock.sendto(b"hello", sock.recvfrom(2048)[1])
            except TimeoutError:
                continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
