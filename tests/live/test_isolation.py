"""What stands around a command of ``run``: tried from inside, as root and as an ordinary user."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import isolation_agent
import other_user
import pytest
from isolation_probe import probe

from aesp_proxy.launch.isolation import seccomp

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it becomes an ordinary user"),
    pytest.mark.skipif(bool(probe().missing()), reason=f"no namespaces here: {probe().line()}"),
]

PROGRAM = Path(sys.executable).parent / "aesp-proxy"
POLICY = """\
version: "1.2.0"
name: isolation
guards:
  egress_allowlist: {default_action: block, allow: [origin.example]}
  secret_leak: {enabled: false}
"""
UNREACHABLE = {"ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH"}


class _Origin(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"origin\n")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering(family: int, kind: int, address: Any) -> Iterator[socket.socket]:
    """A socket of the host that answers whoever gets through."""
    with socket.socket(family, kind) as sock:
        sock.bind(address)
        sock.settimeout(0.05)
        if kind == socket.SOCK_STREAM:
            sock.listen(8)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                try:
                    if kind == socket.SOCK_STREAM:
                        accepted, _ = sock.accept()
                        with accepted:
                            accepted.sendall(b"outside")
                    else:
                        sock.sendto(b"outside", sock.recvfrom(100)[1])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield sock
        finally:
            over.set()
            thread.join()


@contextmanager
def origin() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Origin)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def own_address() -> str:
    """An address of this machine that is not loopback, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.2"
        return str(sock.getsockname()[0])


@pytest.fixture(scope="module", params=["root", "user"])
def told(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """All that the agent found out, in one run."""
    user = 0 if request.param == "root" else other_user.USER
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp())
        stack.callback(shutil.rmtree, folder)
        work = folder / "work"
        work.mkdir()
        os.chown(folder, user, user)
        os.chown(work, user, user)
        yield play(stack, folder, user)


def play(stack: ExitStack, folder: Path, user: int) -> dict[str, Any]:
    inet, stream = socket.AF_INET, socket.SOCK_STREAM
    outside = stack.enter_context(
        subprocess.Popen(["sleep", "600"], user=user, group=user, extra_groups=[])
    )
    stack.callback(outside.kill)
    path, abstract = str(folder / "docker.sock"), f"\0isolation-{os.getpid()}"
    four = stack.enter_context(answering(inet, stream, ("0.0.0.0", 0)))
    six = stack.enter_context(answering(socket.AF_INET6, stream, ("::1", 0)))
    udp = stack.enter_context(answering(inet, socket.SOCK_DGRAM, ("127.0.0.1", 0)))
    stack.enter_context(answering(socket.AF_UNIX, stream, path))
    stack.enter_context(answering(socket.AF_UNIX, stream, abstract))
    Path(path).chmod(0o777)
    setuid = folder / "id"
    shutil.copy(shutil.which("id") or "/usr/bin/id", setuid)
    os.chown(setuid, 0, 0)
    setuid.chmod(0o4755)
    asked = {
        "tcp": four.getsockname()[1],
        "tcp6": six.getsockname()[1],
        "udp": udp.getsockname()[1],
        "address": own_address(),
        "path": path,
        "abstract": abstract,
        "process": outside.pid,
        "setuid": str(setuid),
    }
    (folder / "asked.json").write_text(json.dumps(asked))
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "agent.py").write_text(Path(isolation_agent.__file__).read_text())
    port = stack.enter_context(origin())
    become = [sys.executable, other_user.__file__] if user else []
    words = [
        *(str(PROGRAM), "run", "--quiet", "--state", str(folder / "state")),
        *("--policy", str(folder / "policy.yaml")),
        *("--set", f"upstream.resolve=origin.example:80=127.0.0.1:{port}", "--"),
        *(sys.executable, str(folder / "agent.py")),
        *(str(folder / "asked.json"), str(folder / "work/told.json")),
    ]
    leak = os.open(os.devnull, os.O_RDONLY)
    stack.callback(os.close, leak)
    os.set_inheritable(leak, True)
    environment = {**os.environ, "HOME": str(folder), "SSH_AUTH_SOCK": path}
    done = subprocess.run(
        [*become, *words], cwd=folder / "work", env=environment, capture_output=True,
        text=True, check=False, timeout=110, close_fds=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads((folder / "work/told.json").read_text())
    told["expected user"] = user
    return told


def test_no_socket_of_the_host_is_reached(told):
    assert {told[name] for name in ("host loopback", "host loopback v6")} <= UNREACHABLE
    # Its address leads to the proxy like any other, which cuts what it does not know.
    assert "outside" not in told["host address"]
    assert "outside" not in told["host datagrams"]


@pytest.mark.skipif(not probe().stands("every_port"), reason="no packet rules in this kernel")
@pytest.mark.parametrize("port", isolation_agent.PORTS)
def test_a_socket_of_its_own_to_any_port_reaches_only_the_proxy(told, port):
    assert told[f"port {port}"] == "403 True"
    assert told[f"port {port} v6"] == "403 True"


def test_datagrams_lead_nowhere(told):
    assert {told["quic"], told["quic v6"]} <= UNREACHABLE


def test_no_socket_but_tcp_and_udp_can_be_made(told):
    others = ("raw", "ping", "raw v6", "packet", "old packet", "vsock", "crypto", "multipath",
              "sctp", "netlink diag", "netlink audit", "netfilter")  # fmt: skip
    found = {name: told[name] for name in others}
    assert set(found.values()) <= {"EPERM", "EAFNOSUPPORT", "EPROTONOSUPPORT"}, found


def test_routes_cannot_be_changed(told):
    assert told["routes"] == "EPERM"


def test_no_unix_socket_of_the_host_is_reached(told):
    names = ("docker.sock", "abstract", "unix datagrams", "unix packets")
    assert {told[name] for name in names} == {"EAFNOSUPPORT"}
    assert told["ssh-agent"] == "absent" or not told["ssh-agent"].startswith("0")


def test_pairs_of_sockets_work_and_lead_nowhere_else(told):
    assert told["pair"] == told["pair of packets"] == "paired"
    assert told["pair of datagrams"] == "EPERM"
    assert told["pair elsewhere"] in {"EISCONN", "EINVAL"}


def test_no_process_outside_is_seen_or_touched(told):
    assert told["signal outside"] == "ESRCH"
    assert told["directory of outside"] == "ENOENT"
    assert {told["trace outside"], told["read outside"]} == {"ESRCH"}
    assert told["processes"][0] == "aesp-proxy-init"
    assert not any("aesp-proxy run" in line or "reaper" in line for line in told["processes"])


def test_the_init_cannot_be_looked_into(told):
    assert {told["trace init"], told["read init"]} == {"EPERM"}
    names = ("memory of init", "environment of init", "descriptors of init")
    assert {told[name] for name in names} <= {"EACCES", "EPERM"}


@pytest.mark.parametrize("name", seccomp.REFUSED)
def test_a_dangerous_call_is_refused(told, name):
    assert told[f"call {name}"] in {"EPERM", "none"}


@pytest.mark.parametrize("name", seccomp.ABSENT)
def test_a_call_that_programs_can_do_without_is_absent(told, name):
    assert told[f"call {name}"] == "ENOSYS"


def test_namespaces_are_not_made_by_clone_and_other_names_of_calls_are_absent(told):
    assert told["clone"] == "EPERM"
    if os.uname().machine == "x86_64":
        assert told["x32"] == "ENOSYS"


def test_nothing_is_typed_into_the_terminal(told):
    assert told["typed"] == "EPERM"


def test_no_capability_is_left_and_none_can_be_had(told):
    sets = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    assert {int(told["status"][name], 16) for name in sets} == {0}
    assert told["status"]["NoNewPrivs"] == "1"
    assert told["status"]["Seccomp"] == "2"
    assert told["set-user-id"] == f"0 {told['expected user']}"


def test_the_user_is_the_same_as_outside(told):
    assert told["user"] == told["expected user"]


def test_descriptors_but_the_standard_ones_are_closed(told):
    assert told["descriptors"] == [0, 1, 2]


def test_kernel_settings_and_the_resolver_cannot_be_written(told):
    assert told["kernel setting"] in {"EROFS", "EACCES", "EPERM"}
    assert told["resolver"] == "nameserver 127.0.0.1"
    assert told["resolver written"] in {"EROFS", "EACCES"}


def test_a_name_that_the_policy_refuses_is_not_found(told):
    assert "gaierror" in told["name refused"] or told["name refused"].startswith("E")


def test_honest_programs_work(told):
    assert told["git"] == "0 m"
    assert told["tar"] == "content"
    assert told["make"] == "0 built"
    assert told["multiprocessing"] == [1, 4, 9]
    assert told["localhost"] == "127.0.0.1"
    assert told["interfaces"] == ["lo"]
    assert told["curl"] == "0 origin"


def test_what_the_agent_serves_to_itself_it_reaches(told):
    assert told["own server"] == told["own server v6"] == "mine"


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_node_works(told):
    assert told["node"].split() == ["0", "lo", "child", "0"]
    assert told["npm"] == "absent" or told["npm"].startswith("0 ")
