"""What a command has read decides what it may send: ``session.labels``, end to end."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from isolation_probe import run_options

PROGRAM = Path(sys.executable).parent / "aesp-proxy"
HOST = "origin.example"
POLICY = f"""\
version: "1.2.0"
name: labels
guards:
  egress_allowlist: {{default_action: block, allow: ["{HOST}:*"]}}
  forbidden_path: {{patterns: ["**/.env"]}}
  secret_leak: {{enabled: true, packs: [contact]}}
rules:
  - policy_id: contacts.stay
    version: 1.0.0
    description: Who has read contacts sends nothing out.
    applies_to: ["egress:{HOST}"]
    rule:
      actions: [http.post]
      condition: "'contact' in session.labels"
      effect: DENY
"""
AGENT = f"""
import json, pathlib, subprocess, sys, urllib.error, urllib.request as u
def send():
    try:
        return u.urlopen(u.Request("http://{HOST}/in", data=b"nothing of the kind")).status
    except urllib.error.HTTPError as error:
        return error.code
said = [send()]
pathlib.Path("plain.txt").read_bytes()
said.append(send())
subprocess.run(["cat", "people.csv"], stdout=subprocess.DEVNULL, check=True)
said.append(send())
print(json.dumps(said))
"""


class _Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Origin) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def ran(folder: Path, port: int, backend: str) -> subprocess.CompletedProcess[str]:
    project, home = folder / "p", folder / "home"
    project.mkdir()
    home.mkdir()
    (project / "plain.txt").write_text("nothing\n")
    (project / "people.csv").write_text("name,mail\nJane Doe,jane.doe@mail.example.org\n")
    (project / "policy.yaml").write_text(POLICY)
    (project / "config.yaml").write_text(
        f"upstream:\n  resolve: {{'{HOST}:80': '127.0.0.1:{port}'}}\n"
    )
    named = ["--policy", "policy.yaml", "--config", "config.yaml", "--state", str(folder / "s")]
    options = [*named, "--files", backend, *run_options()]
    return subprocess.run(
        [str(PROGRAM), "run", *options, "--", sys.executable, "-c", AGENT],
        cwd=project,
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_who_has_read_a_labelled_file_sends_nothing_to_whom_a_rule_keeps_it_from(tmp_path, port):
    done = ran(tmp_path, port, "auto")
    assert done.stdout.splitlines()[:1] == [json.dumps([200, 200, 403])], done.stderr


def test_a_label_that_nobody_can_know_refuses(tmp_path, port):
    done = ran(tmp_path, port, "observe")
    assert done.stdout.splitlines()[:1] == [json.dumps([403, 403, 403])], done.stderr
