"""``run`` on a machine that does not allow isolation: it says what, and goes on only if told to."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import without_namespaces
from isolation_probe import probe

PROGRAM = Path(sys.executable).parent / "aesp-proxy"
TRIED = """
import errno, os, socket, urllib.request
def told(call):
    try:
        return str(call())
    except OSError as error:
        return errno.errorcode[error.errno]
def link():
    with socket.create_connection(("127.0.0.1", int(os.environ["OUTSIDE"])), 5) as sock:
        return sock.recv(10)
print(told(link), told(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
      told(lambda: socket.socket(socket.AF_UNIX)), told(lambda: os.unshare(os.CLONE_NEWUSER)))
proxy = urllib.request.urlopen
try:
    proxy("http://refused.example/")
except OSError as error:
    print(error)
"""


def run(
    state: Path, *words: str, refused: str = "unshare", **environment: str
) -> subprocess.CompletedProcess[str]:
    wrapped = [sys.executable, without_namespaces.__file__, refused, str(PROGRAM), "run"]
    return subprocess.run(
        [*wrapped, "--state", str(state), *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def outside() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield str(server.getsockname()[1])


def test_without_namespaces_it_does_not_start_and_says_what_is_missing(tmp_path):
    ran = run(tmp_path / "state", "--", "touch", str(tmp_path / "started"))
    assert ran.returncode == 3
    assert len(ran.stderr.splitlines()) == 1
    said = ("aesp-proxy: cannot isolate the command here: network: ", "processes: ", "proc: ",
            os.strerror(errno.EPERM), "--allow-degraded")  # fmt: skip
    assert [text for text in said if text not in ran.stderr] == []
    assert "seccomp: " not in ran.stderr
    assert not (tmp_path / "started").exists()


def test_without_a_filter_it_does_not_start(tmp_path):
    ran = run(tmp_path / "state", "--", "touch", str(tmp_path / "started"), refused="filter")
    assert ran.returncode == 3
    assert "seccomp: unix sockets and dangerous system calls are open" in ran.stderr
    assert not (tmp_path / "started").exists()


def test_allowed_to_go_on_it_enforces_what_it_can_and_says_the_rest_twice(tmp_path, outside):
    words = ("--allow-degraded", "--", sys.executable, "-c", TRIED)
    ran = run(tmp_path / "state", *words, OUTSIDE=outside)
    assert ran.returncode == 0, ran.stderr
    tried, proxied = ran.stdout.splitlines()
    # Where the kernel has it, Landlock leaves one port to connect to: the proxy's.
    ports = "EACCES" if probe().stands("landlock") else tried.split()[0]
    assert tried.split() == [ports, "EPERM", "EAFNOSUPPORT", "EPERM"]
    assert proxied == "HTTP Error 403: Forbidden (AESP Proxy: host_not_allowed)"
    network = "aesp-proxy: not enforced: network: the agent uses the host's network"
    assert ran.stderr.count(network) == 2
    assert "not enforced: seccomp" not in ran.stderr


CAUGHT = """
import errno, socket
for port in (80, 8443, 65000):
    try:
        with socket.create_connection(("198.51.100.7", port), 10) as sock:
            sock.sendall(b"GET / HTTP/1.1\\r\\nHost: refused.example\\r\\n\\r\\n")
            print(port, sock.recv(12).decode())
    except OSError as error:
        print(port, errno.errorcode[error.errno])
"""


@pytest.mark.skipif(bool(probe().missing()), reason=f"no namespaces here: {probe().line()}")
def test_without_packet_rules_well_known_ports_are_caught_and_others_refused(tmp_path):
    words = ("--listen", "127.0.0.1:443", "--", sys.executable, "-c", CAUGHT)
    ran = run(tmp_path / "state", *words, refused="rules")
    assert ran.returncode == 0, ran.stderr
    said = ["80 HTTP/1.1 403", "8443 HTTP/1.1 403", "65000 ECONNREFUSED"]
    assert ran.stdout.splitlines() == said
    assert ran.stderr.count("not enforced: every_port: ") == 1


def test_the_setting_allows_it_too_and_quiet_says_nothing(tmp_path):
    ran = run(tmp_path / "state", "--quiet", "--", "true", AESP_ISOLATION_MODE="degraded")
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_network_socket_as_standard_input_is_refused(tmp_path, outside):
    """It keeps the host's network, and could be connected anew from inside."""
    with socket.create_connection(("127.0.0.1", int(outside))) as link:
        ran = subprocess.run(
            [str(PROGRAM), "run", "--state", str(tmp_path / "s"), "--", "true"],
            stdin=link.fileno(), capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert ran.returncode == 3
    assert "descriptor 0 is a network socket" in ran.stderr
