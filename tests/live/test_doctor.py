"""``doctor`` as an ordinary user: what it finds, what it stops, and what gets out without walls."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import other_user
import pytest
import without_namespaces
from isolation_probe import probe

from aesp_proxy.launch.attack.catalogue import CATALOGUE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it becomes an ordinary user")
PROGRAM = Path(sys.executable).parent / "aesp-proxy"
POLICY = """\
version: "1.2.0"
name: doctor
guards:
  egress_allowlist: {default_action: block, allow: ["*.allowed.example", other.example]}
"""
GAPS = {attack.id for attack in CATALOGUE if attack.gap}


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of the user's own: pytest's folders are closed to others."""
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "policy.yaml").write_text(POLICY, "utf-8")
        for path in (folder, folder / "policy.yaml"):
            os.chown(path, other_user.USER, other_user.USER)
        yield folder
    finally:
        shutil.rmtree(folder)


def doctor(home: Path, *words: str, refused: str = "") -> subprocess.CompletedProcess[str]:
    wrapped = [sys.executable, other_user.__file__]
    wrapped += [sys.executable, without_namespaces.__file__, refused] if refused else []
    return subprocess.run(
        [*wrapped, str(PROGRAM), "doctor", "--policy", str(home / "policy.yaml"), *words],
        env={"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home)},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def outcomes(ran: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert ran.stdout, ran.stderr
    return {each["id"]: each["outcome"] for each in json.loads(ran.stdout)["attacks"]}


def test_an_ordinary_user_is_told_of_the_own_state_and_every_layer(home):
    ran = doctor(home, "--format", "json")
    told = {each["name"]: each for each in json.loads(ran.stdout)["findings"]}
    assert str(home / ".local/state/aesp-proxy") in told["state directory"]["found"]
    assert not (home / ".local").exists()
    if not probe().missing():
        assert told["network namespace"]["level"] == told["seccomp filter"]["level"] == "ok"


@pytest.mark.skipif(bool(probe().missing()), reason=f"no namespaces here: {probe().line()}")
def test_nothing_gets_out_of_the_run_of_an_ordinary_user_but_what_is_known_to(home):
    told = outcomes(doctor(home, "--attack", "--format", "json"))
    assert told["control"] == "passed"
    assert {name for name, outcome in told.items() if outcome == "GOT OUT"} == GAPS
    assert not list(home.glob("aesp-doctor-*"))


def test_without_walls_processes_of_the_same_user_are_read_traced_and_robbed(home):
    words = ("--attack", "--allow-degraded", "--format", "json", "--row", "25", "--row", "28")
    told = outcomes(doctor(home, *words, refused="unshare,filter,landlock"))
    reached = ("proc-environ", "signal", "ptrace", "stolen-descriptor")
    assert {told[name] for name in reached} == {"GOT OUT"}
