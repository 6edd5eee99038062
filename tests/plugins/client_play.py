"""Plays rows of the table of clients through one ``run``: what each said, and what was recorded.

Each case has a host name of its own. So the record tells of each whether it was decided,
how, and whether its program asked for the name (it was captured) or left that to the proxy.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client_origin import DOMAIN, Origin, origin
from client_table import NODE_MODULES, PROGRAMS, ROOT, Case, Client, Entry, Verdict
from isolation_probe import run_options

from aesp_proxy.model.record import Record, RecordKind
from aesp_proxy.record.reader import read_state

PROGRAM = Path(sys.executable).parent / "aesp-proxy"
REFUSED_DOMAIN = "refused.example"
WAIT_S = 570.0
POLICY = """\
version: "1.2.0"
name: clients
guards:
  egress_allowlist: {default_action: block, allow: %s}
  secret_leak: {enabled: %s}
rules:
  - policy_id: closed
    rule:
      condition: request.path.startsWith('/closed') || request.path.startsWith('/lab.Closed')
      effect: DENY
      parameters: {message: this part is closed to agents}
"""


@dataclass(frozen=True, slots=True)
class Said:
    """How a program ended, and what it printed."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def text(self) -> str:
        """All of it, with the runs of white space that programs wrap lines with made one."""
        return " ".join(f"{self.out} {self.err}".split())


@dataclass(frozen=True, slots=True)
class Played:
    """What came of the cases that could be played."""

    said: dict[str, Said]
    records: dict[str, list[Record]]
    paths: list[str]
    account: str


def host_of(case: Case) -> str:
    """Return the host that a case talks to; of a refused one nobody would know an address."""
    return f"{case.name}.{REFUSED_DOMAIN if case.verdict is Verdict.HOST else DOMAIN}"


def missing(client: Client, classes: Path | None = None) -> str:
    """Return what a client needs and this machine has not, or nothing."""
    program = _program(client)
    if not program:
        return f"{client.words[0]} is not installed"
    if "{classes}" in client.words and not (shutil.which("javac") or classes):
        return "javac is not installed"
    for module in client.modules:
        held = NODE_MODULES / module
        found = held.exists() if client.words[0] == "node" else importlib.util.find_spec(module)
        if not found:
            return f"{module} is not installed"
    if client.name == "cargo":
        ran = subprocess.run(["cargo", "--version"], capture_output=True, check=False)
        return "cargo has no toolchain" if ran.returncode else ""
    return ""


def _program(client: Client) -> str | None:
    if client.words[0] == "uv":
        # Where it came with `make setup`.
        places = [ROOT / ".uv/bin/uv", ROOT / ".uv/lib/bin/uv"]
        return shutil.which("uv") or next((str(p) for p in places if p.exists()), None)
    return shutil.which(client.words[0])


def play(
    cases: Iterable[Case], folder: Path, *, whole_environment: bool = False, scan: bool = True
) -> Played:
    """Play ``cases`` below one ``run`` in ``folder``, those whose program is there.

    ``whole_environment`` leaves them all that ``run`` has set, and not only what the table
    says that they read. ``scan`` has secrets searched for, which takes seconds to begin.
    """
    cases = [case for case in cases if not missing(case.client)]
    classes = _compiled(folder, cases)
    home = folder / "home"
    home.mkdir()
    # A proxy named in a file would win over the variables; ours wins over the file.
    (home / ".gitconfig").write_text(
        "[http]\n\tproxy = http://127.0.0.1:1\n" if whole_environment else ""
    )
    with origin(folder, {case.client.server for case in cases}) as running:
        asked = [_asked(case, folder, classes, whole=whole_environment) for case in cases]
        (folder / "cases.json").write_text(json.dumps(asked))
        _settings(cases, folder, running, scan=scan)
        account = _run(folder, home)
        paths = list(running.paths)
    said = json.loads((folder / "said.json").read_text())
    records: defaultdict[str, list[Record]] = defaultdict(list)
    for _, record in read_state(folder / "state"):
        if record.kind is not RecordKind.LIFECYCLE:
            records[record.target_host].append(record)
    return Played(
        said={one.pop("name"): Said(**one) for one in said},
        records=dict(records),
        paths=paths,
        account=account,
    )


def _compiled(folder: Path, cases: Iterable[Case]) -> Path:
    classes = folder / "classes"
    if any("{classes}" in case.client.words for case in cases):
        words = ["javac", "-d", str(classes), str(PROGRAMS / "Fetch.java")]
        subprocess.run(words, check=True, capture_output=True)
    return classes


def _asked(case: Case, folder: Path, classes: Path, *, whole: bool) -> dict[str, Any]:
    """Make what the driver is told of a case."""
    client = case.client
    host = host_of(case)
    path = "/closed" if case.verdict is Verdict.REQUEST else ""
    url = f"{client.scheme}://{host}{path}"

    def filled(text: str) -> str:
        names = {"url": url, "host": host, "path": path, "classes": str(classes)}
        for name, value in names.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    words = [filled(word) for word in client.words_of(case.entry)]
    words[0] = _program(client) or words[0]
    more = dict(client.tamed) | (dict(client.socks or {}) if case.entry is Entry.SOCKS else {})
    if client.name == "cargo":
        more |= {
            "CARGO_REGISTRIES_OURS_INDEX": f"sparse+{url}/cargo/",
            "CARGO_HOME": str(folder / "cargo" / case.name),
        }
    keeps_proxy = case.entry is Entry.EXPLICIT
    return {
        "name": case.name,
        "words": words,
        "keep": ["*"] if whole else [*client.trust, *(client.proxy if keeps_proxy else ())],
        "keeps_proxy": keeps_proxy,
        "set": more,
        "input": filled(client.input),
        "folder": str(folder / "work" / case.name),
    }


def _settings(cases: Iterable[Case], folder: Path, running: Origin, *, scan: bool) -> None:
    hosts = {
        host_of(case): f"127.0.0.1:{running.ports[case.client.server]}"
        for case in cases
        if case.verdict is not Verdict.HOST
    }
    (folder / "policy.yaml").write_text(POLICY % (json.dumps([*hosts]), json.dumps(scan)))
    (folder / "config.yaml").write_text(
        "policy: policy.yaml\nstate_dir: state\nupstream:\n"
        f"  ca_file: {running.roots}\n  resolve: {json.dumps(hosts)}\n"
    )


def _run(folder: Path, home: Path) -> str:
    driver = Path(__file__).with_name("client_driver.py")
    more = {
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "NO_PROXY": "*",
        "CARGO_HTTP_PROXY": "http://127.0.0.1:1",
        "NODE_PATH": str(NODE_MODULES),
        "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup")),
    }
    ran = subprocess.run(
        [
            *(str(PROGRAM), "run", *run_options(), "--config", "config.yaml", "--"),
            *(sys.executable, str(driver), "cases.json", "said.json"),
        ],
        env={**os.environ, **more}, cwd=folder, capture_output=True, text=True, check=False,
        timeout=WAIT_S,
    )  # fmt: skip
    assert ran.returncode == 0, (ran.returncode, ran.stdout, ran.stderr)
    return ran.stderr
