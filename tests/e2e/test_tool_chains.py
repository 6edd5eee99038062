"""The tool chains that agents use reach an allowed host through ``run``, and trust what they see.

One TLS origin on loopback under a name that only ``upstream.resolve`` knows: a
client that went around the proxy could not even find it. A chain that is not
installed is skipped by name.
"""

from __future__ import annotations

import http.server
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from isolation_probe import run_options

from aesp_proxy import keys
from aesp_proxy.model.record import RecordKind
from aesp_proxy.record.reader import read_state

PROGRAM = Path(sys.executable).parent / "aesp-proxy"
HOST = "origin.example"
URL = f"https://{HOST}/answer"
ANSWER = "the origin's own words"
WAIT_S = 60.0


class _Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = ANSWER.encode() + b"\n"
        if self.path.startswith("/repository/info/refs"):
            # What `git ls-remote` asks for first: an empty repository, protocol 0.
            lines = (b"# service=git-upload-pack\n", None, _capabilities(), None)
            body = b"".join(_packet(line) for line in lines)
        self.send_response(200)
        if self.path.startswith("/repository"):
            self.send_header("Content-Type", "application/x-git-upload-pack-advertisement")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _packet(line: bytes | None) -> bytes:
    return b"0000" if line is None else b"%04x%b" % (len(line) + 4, line)


def _capabilities() -> bytes:
    return b"1" * 40 + b" refs/heads/through-the-proxy\0agent=origin\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with policy, settings and state; the origin runs while it is used."""
    folder = tmp_path_factory.mktemp("chains")
    now = datetime.now(UTC)
    root_cert, root_key = keys.make_ca("the origin's roots", now=now)
    pair = keys.KeyPair(cert_pem=root_cert, key_pem=root_key)
    cert, key = keys.issue_leaf(pair, [HOST], purpose=keys.Purpose.SERVER, now=now, days=1)
    (folder / "origin.pem").write_bytes(key + cert)
    (folder / "roots.pem").write_bytes(pair.cert_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "origin.pem")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Origin)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    (folder / "policy.yaml").write_text(
        'version: "1.2.0"\nname: chains\nguards:\n'
        f"  egress_allowlist: {{default_action: block, allow: [{HOST}]}}\n"
        "  secret_leak: {enabled: false}\n"
    )
    (folder / "config.yaml").write_text(
        "policy: policy.yaml\nstate_dir: state\nupstream:\n  ca_file: roots.pem\n"
        f"  resolve: {{'{HOST}:443': '127.0.0.1:{server.server_port}'}}\n"
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield folder
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


NODE = (
    # By hand: NODE_USE_ENV_PROXY, which fetch heeds, is newer than the Node of many systems.
    "const p = new URL(process.env.HTTPS_PROXY), tls = require('tls');"
    "require('http').request({host: p.hostname, port: p.port, method: 'CONNECT',"
    f"path: '{HOST}:443'}}).on('connect', (_, socket) => {{"
    f"const s = tls.connect({{socket, servername: '{HOST}'}});"
    "s.pipe(process.stdout);"
    f"s.write('GET /answer HTTP/1.1\\r\\nHost: {HOST}\\r\\nConnection: close\\r\\n\\r\\n');"
    "}).end()"
)
JAVA = (
    "public class Fetch { public static void main(String[] a) throws Exception {"
    f' System.out.write(new java.net.URL("{URL}").openStream().readAllBytes());'
    " System.out.flush(); } }"
)
ROOTS = (
    "import ssl; c = ssl.create_default_context(); "
    "print([dict(x[0] for x in r['subject']).get('commonName') for r in c.get_ca_certs()])"
)
CHAINS = {
    "curl": ["curl", "-sS", URL],
    "wget": ["wget", "-qO-", URL],
    "git": ["git", "ls-remote", f"https://{HOST}/repository"],
    "urllib": [
        sys.executable, "-c", f"import urllib.request as u; print(u.urlopen({URL!r}).read())",
    ],
    "requests": [sys.executable, "-c", f"import requests; print(requests.get({URL!r}).text)"],
    "httpx": [sys.executable, "-c", f"import httpx; print(httpx.get({URL!r}).text)"],
    "roots": [sys.executable, "-c", ROOTS],
    "node": ["node", "-e", NODE],
    "npm": ["npm", "ping", "--registry", f"https://{HOST}/", "--loglevel=http"],
    "java": ["java", "Fetch.java"],
    "cargo": ["cargo", "search", "anything", "--registry", "ours"],
}  # fmt: skip
# Runs below `run`, each chain beside the others, and writes down what each said.
DRIVER = """
import concurrent.futures, json, shutil, subprocess, sys
chains = json.load(open("chains.json"))
def one(words):
    ran = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return [ran.returncode, ran.stdout, ran.stderr]
with concurrent.futures.ThreadPoolExecutor(2) as pool:
    json.dump(dict(zip(chains, pool.map(one, chains.values()))), open("said.json", "w"))
"""


@dataclass(frozen=True)
class Played:
    said: dict[str, tuple[int, str, str]]
    account: str
    records: list[str]


@pytest.fixture(scope="module")
def played(place: Path) -> Played:
    """Every chain that is installed, played once through one run."""
    home = place / "home"
    home.mkdir()
    # A proxy named in a file would win over the variables; ours wins over the file.
    (home / ".gitconfig").write_text("[http]\n\tproxy = http://127.0.0.1:1\n")
    (place / "Fetch.java").write_text(JAVA)
    installed = {name: words for name, words in CHAINS.items() if shutil.which(words[0])}
    (place / "chains.json").write_text(json.dumps(installed))
    more = {
        "HOME": str(home),
        "NO_PROXY": "*",
        "CARGO_HTTP_PROXY": "http://127.0.0.1:1",
        "CARGO_REGISTRIES_OURS_INDEX": f"sparse+https://{HOST}/",
        "CARGO_REGISTRIES_OURS_TOKEN": "none",
        "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup")),
    }
    ran = subprocess.run(
        [
            str(PROGRAM),
            "run",
            *run_options(),
            "--config",
            "config.yaml",
            "--",
            sys.executable,
            "-c",
            DRIVER,
        ],
        env={**os.environ, **more},
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )
    assert ran.returncode == 0, ran.stderr
    said = json.loads((place / "said.json").read_text())
    paths = [
        record.target_path
        for _, record in read_state(place / "state")
        if record.kind is RecordKind.DECISION and record.target_path
    ]
    return Played({name: tuple(answer) for name, answer in said.items()}, ran.stderr, paths)


def answer_of(played: Played, name: str) -> tuple[int, str, str]:
    if name not in played.said:
        pytest.skip(f"{CHAINS[name][0]} is not installed")
    return played.said[name]


@pytest.mark.parametrize("name", ["curl", "wget", "urllib", "requests", "httpx", "node", "java"])
def test_the_chain_reaches_the_origin_and_trusts_it(played, name):
    code, out, err = answer_of(played, name)
    if name == "java" and "compiler" in err:
        pytest.skip("Java without a compiler")
    assert ANSWER in out, err
    assert code == 0


def test_git_goes_through_the_proxy_though_its_file_names_another(played):
    code, out, err = answer_of(played, "git")
    assert "refs/heads/through-the-proxy" in out, err
    assert code == 0


def test_npm_goes_through_the_proxy(played):
    _, _, err = answer_of(played, "npm")
    assert f"200 https://{HOST}/-/ping" in err


def test_cargo_goes_through_the_proxy(played):
    _, _, err = answer_of(played, "cargo")
    if "rustup" in err:
        pytest.skip("cargo has no toolchain here")
    # The origin is no registry, and cargo says so: it was reached, and trusted.
    assert "/config.json" in played.records, err


def test_openssls_default_roots_hold_ours_and_the_systems(played):
    _, out, _ = answer_of(played, "roots")
    assert "AESP Proxy on " in out


def test_all_of_it_was_decided_and_recorded(played):
    assert "refused 0" in played.account
    reached = [name for name in ("curl", "wget", "urllib", "requests", "httpx", "node", "java")
               if name in played.said]  # fmt: skip
    assert played.records.count("/answer") >= len(reached)
