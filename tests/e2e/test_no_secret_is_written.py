"""Distinct secrets in every place that an agent can write to; none of them in what we write."""

from __future__ import annotations

import base64
import json
import mmap
import os
import secrets
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from drawn_secrets import drawn
from isolation_probe import run_options
from scan_lab import token

from aesp_proxy.record.reader import read_state

# The rules are compiled once for the tests here.
pytestmark = pytest.mark.xdist_group("what is written")
PROGRAM = Path(sys.executable).parent / "aesp-proxy"
WAIT_S = 90.0
POLICY = """\
version: "1.2.0"
name: planted
guards:
  egress_allowlist:
    default_action: block
    allow: [plain.example, "plain.example:80", "*.wild.example"]
  secret_leak: {enabled: true}
"""
# What the agent does with each: raw bytes to the proxy, names to the resolver, bodies.
AGENT = r"""
import base64, concurrent.futures, gzip, json, os, socket, ssl, urllib.parse
where = urllib.parse.urlsplit(os.environ["HTTP_PROXY"])
plants = json.load(open("plants.json"))
HEAD = "POST http://plain.example/ HTTP/1.1\r\nHost: plain.example\r\n"
def talk(*parts, tls=None):
    try:
        with socket.create_connection((where.hostname, where.port), 10) as sock:
            for number, part in enumerate(parts):
                if tls and number == 1:
                    context = ssl._create_unverified_context()
                    sock = context.wrap_socket(sock, server_hostname=tls)
                sock.sendall(part if isinstance(part, bytes) else part.encode("latin-1"))
                if number < len(parts) - 1:
                    sock.recv(65536)
            sock.settimeout(1)
            while sock.recv(65536):
                pass
    except OSError:
        pass
def body(data, fields=""):
    data = data if isinstance(data, bytes) else data.encode()
    return (HEAD + fields + f"Content-Length: {len(data)}\r\n\r\n").encode() + data
def get(path, fields=""):
    return f"GET http://plain.example{path} HTTP/1.1\r\nHost: plain.example\r\n{fields}\r\n"
def connect(host):
    return f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n"
def socks(host, user, password):
    user, password, host = user.encode(), password.encode(), host.encode()
    return (b"\5\1\2", b"\1" + bytes([len(user)]) + user + bytes([len(password)]) + password,
            b"\5\1\0\3" + bytes([len(host)]) + host + b"\1\xbb")
def frame(code, data):
    mask = b"abcd"
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
    return bytes([0x80 | code, 0x80 | len(data)]) + mask + masked
UPGRADE = ("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
def resolve(name):
    try:
        socket.getaddrinfo(name, 443)
    except OSError:
        pass
def plant(place, s):
    match place.rpartition(":")[2]:
        case "path": talk(get(f"/a/{s}/b"))
        case "query": talk(get(f"/?k={s}"))
        case "header": talk(get("/", f"X-Key: {s}\r\n"))
        case "agent": talk(get("/", f"User-Agent: {s}\r\n"))
        case "cookie": talk(get("/", f"Cookie: s={s}\r\n"))
        case "basic":
            value = base64.b64encode(f"me:{s}".encode()).decode()
            talk(get("/", f"Authorization: Basic {value}\r\n"))
        case "body": talk(body(s))
        case "base64": talk(body(base64.b64encode(s.encode())))
        case "hex": talk(body(s.encode().hex()))
        case "gzip": talk(body(gzip.compress(s.encode()), "Content-Encoding: gzip\r\n"))
        case "coding": talk(body(s, f"Content-Encoding: {s}\r\n"))
        case "type": talk(body("x", f"Content-Type: {s}\r\n"))
        case "multipart":
            part = f'--x\r\nContent-Disposition: form-data; name="f"; filename="{s}"\r\n\r\n'
            talk(body(part + "x\r\n--x--\r\n", "Content-Type: multipart/form-data; boundary=x\r\n"))
        case "extension":
            talk(HEAD + f"Transfer-Encoding: chunked\r\n\r\n1;{s}\r\nx\r\n0\r\n\r\n")
        case "trailer":
            talk(HEAD + f"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Key: {s}\r\n\r\n")
        case "size": talk(HEAD + f"Transfer-Encoding: chunked\r\n\r\n{s}\r\nx\r\n")
        case "length": talk(HEAD + f"Content-Length: {s}\r\n\r\n")
        case "method": talk(f"{s} http://plain.example/ HTTP/1.1\r\nHost: plain.example\r\n\r\n")
        case "version": talk(f"GET http://plain.example/ {s}\r\n\r\n")
        case "scheme": talk(f"GET {s}://plain.example/ HTTP/1.1\r\nHost: plain.example\r\n\r\n")
        case "field": talk(get("/", f"X {s}: y\r\n"))
        case "line": talk(f"{s}\r\n\r\n")
        case "userinfo": talk(get("").replace("plain", f"u:{s}@plain", 1))
        case "hosts": talk(get("/", f"Host: {s}.example\r\n"))
        case "host": talk(f"GET http://{s}.example/ HTTP/1.1\r\nHost: {s}.example\r\n\r\n")
        case "wild": talk(get("/").replace("plain", f"{s}.wild"))
        case "connect": talk(connect(f"{s}.example"))
        case "port": talk(f"CONNECT plain.example:{s} HTTP/1.1\r\nHost: plain.example\r\n\r\n")
        case "sni": talk(connect("plain.example"), b"", tls=f"{s}.example")
        case "inside": talk(connect("plain.example"), f"{s}\r\n\r\n", tls="plain.example")
        case "raw": talk(connect("plain.example"), f"\x01\x02 {s}\r\n")
        case "socks": talk(*socks(f"{s}.example", "u", "p"))
        case "user": talk(*socks("plain.example", s, s))
        case "percent": talk(get("/" + "".join(f"%{ord(c):02X}" for c in s)))
        case "base64path": talk(get("/" + base64.urlsafe_b64encode(s.encode()).decode()))
        case "utf16": talk(body(s.encode("utf-16-le")))
        case "cut": talk(get("/" + "x" * 1000 + s).replace("plain", "other"))
        case "cutline": talk(f"GET {'x' * 1005}{s}\r\n\r\n")
        case "labels": talk(connect(f"{s[:20]}.{s[20:]}.wild.example"))
        case "call":
            asked = {"name": s, "arguments": {s: [s]}}
            talk(body(json.dumps({"jsonrpc": "2.0", "id": s, "method": "tools/call",
                                  "params": asked}), "Content-Type: application/json\r\n"))
        case "message": talk(get("/upgrade", UPGRADE), frame(1, s.encode()))
        case "closing": talk(get("/upgrade", UPGRADE), frame(8, b"\x03\xe8" + s.encode()))
        case answer if answer.startswith("answered-"): talk(get(f"/{answer}/{place[:3]}"))
        case "name": resolve(f"{s}.example")
        case "wildname": resolve(f"{s}.wild.example")
def answered():
    # The command may be there before the rules are: its first request waits for them.
    with socket.create_connection((where.hostname, where.port), 60) as sock:
        sock.sendall(get("/", "Connection: close\r\n").encode())
        while sock.recv(65536):
            pass
answered()
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    list(pool.map(plant, plants, plants.values()))
print(json.dumps({"done": len(plants)}))
"""
KINDS = (
    "path", "query", "header", "agent", "cookie", "basic", "body", "base64", "hex", "gzip",
    "coding", "type", "multipart", "extension", "trailer", "size", "length", "method", "version",
    "scheme", "field", "line", "userinfo", "hosts", "host", "wild", "connect", "port", "sni",
    "inside", "raw", "socks", "user", "name", "wildname", "percent", "base64path", "utf16", "cut",
    "cutline", "labels", "call", "message", "closing",
)  # fmt: skip
ANSWERS = {
    "answered-status": "HTTP/1.1 %s\r\n\r\n",
    "answered-reason": "HTTP/1.1 200 %s\r\nContent-Length: 0\r\n\r\n",
    "answered-version": "%s 200 OK\r\n\r\n",
    "answered-field": "HTTP/1.1 200 OK\r\nX %s: y\r\n\r\n",
    "answered-cookie": "HTTP/1.1 302 OK\r\nSet-Cookie: %s\r\nLocation: /%s\r\nA: \0\r\n\r\n",
    "answered-length": "HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n",
    "answered-size": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n",
    "answered-coding": "HTTP/1.1 200 OK\r\nTransfer-Encoding: %s\r\n\r\n",
    "answered-line": "%s\r\n",
}  # fmt: skip
UPGRADED = (
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


class Origin(socketserver.ThreadingTCPServer):
    """A host that answers with what was planted there, in places that are malformed."""

    allow_reuse_address = True
    daemon_threads = True
    plants: dict[str, str]


class Answer(socketserver.StreamRequestHandler):
    server: Origin

    def handle(self) -> None:
        target = self.rfile.readline().split()[1].decode()
        while self.rfile.readline().strip():
            pass
        _, kind, where = [*target.split("/"), "", ""][:3]
        secret = self.server.plants.get(f"{where}:{kind}")
        if secret is not None:
            self.wfile.write(ANSWERS[kind].replace("%s", secret).encode())
        elif kind == "upgrade":
            self.wfile.write(UPGRADED.encode())
            self.rfile.read(1)
        else:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder in which the runs here keep their rules, compiled once."""
    return tmp_path_factory.mktemp("rules")


def kept_in(rules: Path) -> tuple[str, ...]:
    return ("--set", f"scan.cache_dir={rules}")


def forms(secret: str) -> set[bytes]:
    raw = secret.encode()
    pieces = {
        piece for at in (4, 8, 22) for piece in (raw[at : at + 14], raw[at : at + 14].lower())
    }
    return pieces | {
        raw[::-1][8:28], raw.hex().encode(), raw.hex().upper().encode(),
        "".join(f"%{byte:02X}" for byte in raw).encode(), raw.decode().encode("utf-16-le"),
        base64.b64encode(raw).rstrip(b"=")[:-1], base64.b64encode(b"me:" + raw)[5:-4],
        base64.urlsafe_b64encode(raw).rstrip(b"=")[:-1], base64.b32encode(raw)[:-8],
    }  # fmt: skip


def recent_files(since: float, besides: Path) -> list[Path]:
    found = []
    for folder in {Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"), Path.cwd()}:
        for path in folder.glob("*"):
            named = path.name.startswith(("aesp", "core", "tmp"))
            if named and path.is_file() and path.stat().st_mtime >= since and path != besides:
                found.append(path)
    return found


def test_no_planted_secret_is_in_anything_that_we_write(
    tmp_path: Path, origin: Origin, rules: Path
):
    began = time.time()
    kinds = (*KINDS, *ANSWERS)
    registered = {f"env:{kind}": drawn(40) for kind in kinds}
    by_rule = {f"rul:{kind}": token(secrets.randbits(64)) for kind in kinds}
    plants = origin.plants = registered | by_rule
    (tmp_path / "plants.json").write_text(json.dumps(plants))
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "config.yaml").write_text(
        "policy: policy.yaml\nstate_dir: state\nsecrets: {sources: ''}\n"
        "upstream:\n  connect_timeout_s: 2\n  resolve: {plain.example: '127.0.0.1:"
        f"{origin.server_address[1]}'}}\n"
    )
    environ = {
        f"PLANT_{place[4:].upper().replace('-', '_')}_TOKEN": value
        for place, value in registered.items()
    }
    ran = subprocess.run(
        [str(PROGRAM), "run", "--config", "config.yaml", *kept_in(rules),
         *run_options(), "--", sys.executable, "-c", AGENT],
        env={
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), **environ,
            "MITMPROXY_SSLKEYLOGFILE": str(tmp_path / "keys"), "PYTHONDEVMODE": "1",
            "PYTHONASYNCIODEBUG": "1",
        },
        cwd=tmp_path, capture_output=True, check=False, timeout=WAIT_S,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr.decode()
    assert b"registered %d secret values" % len(kinds) in ran.stderr
    assert not (tmp_path / "keys").exists()
    state = tmp_path / "state"
    records = [record for _, record in read_state(state)]
    refused = {record.reason for record in records if record.verdict == "deny"}
    assert {"secret_found", "malformed"} <= refused
    assert len(records) > len(plants)
    assert sum("malformed" in record.message for record in records) >= len(ANSWERS)
    written = {"output": ran.stdout + ran.stderr, "records": repr(records).encode()}
    files = [path for place in (state, rules) for path in place.rglob("*") if path.is_file()]
    files += recent_files(began, tmp_path / "plants.json")
    written |= {str(path): path.read_bytes() for path in files}
    assert leaks(plants, written) == set()


FILES_POLICY = """\
version: "1.2.0"
name: planted
guards:
  egress_allowlist: {default_action: block, allow: []}
  forbidden_path: {patterns: ["**/.env"]}
  secret_leak: {enabled: true}
"""
FILES_AGENT = r"""
import json, os, sys
tree = sys.argv[1]
os.chdir(tree)
def plant(place, s):
    match place.rpartition(":")[2]:
        case "content": open(place, "w").write(s); open(place).read()
        case "name": open(s, "w").close(); open(s).close(); os.unlink(s)
        case "kept": open(f"kept-{s}.txt", "w").close()
        case "renamed": open("before", "w").close(); os.rename("before", s); os.unlink(s)
        case "directory": os.mkdir(s); open(f"{s}/a", "w").close(); os.unlink(f"{s}/a"); os.rmdir(s)
        case "link": os.symlink(s, "link"); os.unlink("link")
        case "forbidden": os.mkdir(f"d-{s}"); open(f"d-{s}/.env", "w").close()
        case "executed": open(s, "w").close(); os.chmod(s, 0o755); os.system("./" + s)
        case "missing": open(s)
for place, s in json.load(sys.stdin).items():
    try:
        plant(place, s)
    except OSError:
        pass
"""
FILE_KINDS = (
    "content", "name", "kept", "renamed", "directory", "link", "forbidden", "executed", "missing",
    "argument",
)  # fmt: skip


@pytest.mark.parametrize("backend", ["auto", "stage"])
def test_no_planted_secret_is_in_what_we_write_of_files(tmp_path: Path, backend: str, rules: Path):
    tree, state = tmp_path / "tree", tmp_path / "state"
    tree.mkdir()
    registered = {f"env:{kind}": drawn(40) for kind in FILE_KINDS}
    plants = registered | {f"rul:{kind}": token(secrets.randbits(64)) for kind in FILE_KINDS}
    (tmp_path / "policy.yaml").write_text(FILES_POLICY)
    ran = subprocess.run(
        [str(PROGRAM), "run", "--policy", "policy.yaml", "--state", "state", *kept_in(rules),
         "--set", "secrets.sources=", "--set", f"files.tree={tree}", "--files", backend,
         *run_options(), "--", sys.executable, "-c", FILES_AGENT, str(tree),
         plants["env:argument"], plants["rul:argument"]],
        env={
            "PATH": os.environ["PATH"], "HOME": str(tmp_path),
            **{f"{place[4:].upper()}_TOKEN": value for place, value in registered.items()},
        },
        input=json.dumps(plants).encode(),
        cwd=tmp_path, capture_output=True, check=False, timeout=WAIT_S,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr.decode()
    records = [record for _, record in read_state(state)]
    assert records
    # What a stage would publish is listed by name, to be looked at; what is in it is the agent's.
    told = ran.stdout + (b"" if backend == "stage" else ran.stderr)
    written = {"output": told, "records": repr(records).encode()}
    files = (path for path in state.rglob("*") if path.is_file() and "upper" not in path.parts)
    written |= {str(path): path.read_bytes() for path in files}
    assert leaks(plants, written) == set()


def leaks(plants: dict[str, str], written: dict[str, bytes]) -> set[tuple[str, str]]:
    return {
        (place, where)
        for place, secret in plants.items()
        for where, data in written.items()
        if any(form in data for form in forms(secret))
    }


def test_no_secret_of_the_agent_is_in_the_memory_or_environment_of_what_sees_its_traffic(
    tmp_path: Path, rules: Path
):
    values = {"environment": drawn(40), "file": drawn(40)}
    (tmp_path / "x.env").write_text(f"FILE_TOKEN={values['file']}\n")
    command = ["sh", "-c", "echo begun; read x"]
    with subprocess.Popen(
        [str(PROGRAM), "run", "--state", "state", *kept_in(rules), "--set", "secrets.sources=",
         "--files", "none", "--secrets-from", "x.env", *run_options(), "--", *command],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "A_TOKEN": values["environment"]},
        cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as run:  # fmt: skip
        assert run.stdout is not None
        assert run.stdout.readline() == b"begun\n"
        helpers = [
            pid for pid in children_of(run.pid) if b"aesp_proxy.daemon.spawned" in words(pid)
        ]
        found = {(pid, name) for pid in helpers for name in held(pid, values)}
        _, said = run.communicate(b"\n", timeout=WAIT_S)
    assert b"registered 2 secret values" in said
    assert len(helpers) == 2  # worker and sealer
    assert found == set()


def children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for path in listed for word in path.read_text().split()]


def words(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def held(pid: int, values: dict[str, str]) -> Iterator[str]:
    """Yield which values a process has in its memory, where its environment is, too."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:

        def read(at: int, end: int) -> Iterator[bytes]:
            while at < end:
                memory.seek(at)
                try:
                    got = memory.read(end - at)
                except OSError:  # a page of a file that was cut meanwhile: nobody can read it
                    at += mmap.PAGESIZE
                    continue
                yield got
                at += len(got)

        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights, *_ = line.split()
            if "w" not in rights:
                continue
            begin, end = (int(word, 16) for word in place.split("-"))
            data = b"".join(read(begin, end))
            yield from (name for name, value in values.items() if value.encode() in data)
