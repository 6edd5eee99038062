"""git over SSH to a real sshd: only where an entry says the port, and with every byte counted.

The sshd is Debian's, run by an ordinary user on a loopback port that only
``upstream.resolve`` knows as port 22 of a host. The user is one of a mount namespace's own
/etc/passwd, so nothing of the machine is changed.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from isolation_probe import probe

from aesp_proxy.model.record import CONTENT_KEY, NOT_READ_RAW, Record, RecordKind
from aesp_proxy.record.reader import read_state

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")
PROGRAM = Path(sys.executable).parent / "aesp-proxy"
HOST = "git.example"
USER = 4242
pytestmark = [
    pytest.mark.skipif(SSHD is None, reason="openssh-server is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes a user of its own"),
    pytest.mark.skipif(bool(probe().missing()), reason=f"no namespaces here: {probe().line()}"),
]

SETTINGS = """\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PidFile none
"""
# In namespaces of its own: the password file there has one user more.
BEGIN = """\
cat /etc/passwd > "$1/passwd" && echo "agent:x:$2:$2::$1:/bin/sh" >> "$1/passwd" &&
mount --bind "$1/passwd" /etc/passwd &&
exec setpriv --reuid "$2" --regid "$2" --clear-groups "$3" -D -e -f "$1/sshd_config"
"""
CLONE_AND_PUSH = """\
set -eu
git clone -q ssh://agent@{host}{place} first
cd first
head -c 2000000 /dev/urandom >data
git add data
git -c user.name=agent -c user.email=agent@lab.example commit -q -m "Add data"
git push -q origin HEAD:$1
cd ..
git clone -q --branch $1 ssh://agent@{host}{place} second
cmp first/data second/data
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A running sshd: its port, where the keys lie, and the path of the repository."""

    folder: Path
    port: int
    repository: Path


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp())
        stack.callback(shutil.rmtree, folder)
        folder.chmod(0o755)
        yield begin(stack, folder)


def begin(stack: ExitStack, folder: Path) -> Server:
    for name in ("host_key", "key"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(words, check=True)
    (folder / "key.pub").chmod(0o644)
    repository = folder / "repository.git"
    subprocess.run(["git", "init", "-q", "--bare", str(repository)], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    (folder / "sshd_config").write_text(SETTINGS.format(port=port, folder=folder))
    key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    (folder / "known").write_text(f"{HOST} {key}\n")
    for path in (folder / "host_key", repository, *repository.rglob("*")):
        os.chown(path, USER, USER)
    namespaces = ["unshare", "--mount", "--propagation", "private"]
    sshd = subprocess.Popen(
        [*namespaces, "sh", "-c", BEGIN, "sshd", str(folder), str(USER), str(SSHD)],
        stderr=subprocess.PIPE,
        text=True,
    )
    stack.enter_context(sshd)
    stack.callback(sshd.kill)
    assert sshd.stderr is not None
    # It says so when it listens. Then what it goes on to say is read, or it would block.
    said = ""
    while "Server listening" not in said:
        line = sshd.stderr.readline()
        assert line, said
        said += line
    threading.Thread(target=sshd.stderr.read, daemon=True).start()
    return Server(folder, port, repository)


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command below ``run`` came to."""

    code: int
    err: str
    records: list[Record]

    def decisions(self) -> list[tuple[str, str]]:
        return [(r.action, r.reason) for r in self.records if r.kind is RecordKind.DECISION]


def run(server: Server, folder: Path, allowed: str, script: str, **more: str) -> Ran:
    """Play a script below ``run``; ``allowed`` is the section of the allow-list."""
    (folder / "policy.yaml").write_text(
        f'version: "1.2.0"\nname: ssh\nguards:\n  egress_allowlist: {allowed}\n'
        "  secret_leak: {enabled: false}\n"
    )
    work = folder / "work"
    work.mkdir()
    ssh = (
        f"ssh -F none -i {server.folder}/key -o IdentitiesOnly=yes -o BatchMode=yes "
        f"-o UserKnownHostsFile={server.folder}/known"
    )
    ran = subprocess.run(
        [
            *(str(PROGRAM), "run", "--state", str(folder / "state")),
            *("--policy", str(folder / "policy.yaml")),
            *("--set", f"upstream.resolve={HOST}:22=127.0.0.1:{server.port}", "--"),
            *("sh", "-c", script.format(host=HOST, place=server.repository), "sh", folder.name),
        ],
        cwd=work,
        env={**os.environ, "HOME": str(folder), "GIT_SSH_COMMAND": ssh, **more},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    records = [record for _, record in read_state(folder / "state") if record.target_host == HOST]
    return Ran(ran.returncode, ran.stderr, records)


def test_clone_and_push_pass_where_the_entry_says_the_port(server, tmp_path):
    ran = run(server, tmp_path, f'{{allow: ["{HOST}:22"]}}', CLONE_AND_PUSH)
    assert ran.code == 0, ran.err
    raw = [record for record in ran.records if record.action == "tcp.connect"]
    assert {record.reason for record in raw} == {"allowed"}
    outcomes = [record for record in raw if record.kind is RecordKind.OUTCOME]
    assert len(outcomes) == 3
    assert max(record.bytes_out for record in outcomes) > 2_000_000
    assert max(record.bytes_in for record in outcomes) > 2_000_000
    assert all(dict(record.metadata)[CONTENT_KEY] == NOT_READ_RAW for record in outcomes)


CLONE = "git clone -q ssh://agent@{host}{place} first"


@pytest.mark.parametrize(
    "allowed",
    [f'{{allow: ["{HOST}"]}}', f'{{allow: ["{HOST}:2222"]}}', "{default_action: allow}"],
    ids=["no-port", "other-port", "by-default"],
)
def test_without_the_port_in_an_entry_ssh_is_refused_at_its_first_bytes(server, tmp_path, allowed):
    ran = run(server, tmp_path, allowed, CLONE)
    assert ran.code == 128
    assert "Could not read from remote repository" in ran.err
    assert "kex_exchange_identification: Connection closed by remote host" in ran.err
    assert ran.decisions()[-1] == ("tcp.connect", "host_not_allowed")
    assert not any(record.bytes_out for record in ran.records)


def test_a_host_that_no_entry_names_is_not_found(server, tmp_path):
    ran = run(server, tmp_path, '{allow: ["other.example:22"]}', CLONE)
    assert ran.code == 128
    assert f"Could not resolve hostname {HOST}: Name or service not known" in ran.err
    assert set(ran.decisions()) == {("dns.query", "host_not_allowed")}


BY_PROXY = """\
for protocol in connect 5; do
    via="nc -X $protocol -x ${{HTTPS_PROXY#http://}} %h %p"
    GIT_SSH_COMMAND="$GIT_SSH_COMMAND -o ProxyCommand='$via'" \\
        git clone -q ssh://agent@{host}{place} by-$protocol || echo "$protocol: $?" >&2
done
"""


@pytest.mark.skipif(shutil.which("nc") is None, reason="netcat-openbsd is not installed")
@pytest.mark.parametrize("entry", [f"{HOST}:22", HOST], ids=["allowed", "refused"])
def test_ssh_goes_by_connect_and_by_socks(server, tmp_path, entry):
    ran = run(server, tmp_path, f'{{allow: ["{entry}"]}}', BY_PROXY)
    clones = {place.name for place in (tmp_path / "work").iterdir()}
    told = {line for line in ran.err.splitlines() if line.endswith(": 128")}
    if entry == HOST:
        assert (clones, told) == (set(), {"connect: 128", "5: 128"}), ran.err
        assert 'Proxy error: "HTTP/1.1 403 Forbidden (AESP Proxy: host_not_allowed)"' in ran.err
    else:
        assert (clones, told) == ({"by-connect", "by-5"}, set()), ran.err
    # The proxy was told the name: nobody asked for its address.
    assert {action for action, _ in ran.decisions()} == {"tcp.connect"}
