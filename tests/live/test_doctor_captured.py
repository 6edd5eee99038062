"""``doctor --attack --user``: a captured user gets nothing out, one who is not gets out at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from capture_lab import unusable

from aesp_proxy.launch.attack.catalogue import CAPTURED, UNWALLED

pytestmark = pytest.mark.skipif(bool(unusable()), reason=unusable() or "-")
USER, ANOTHER = 65534, 4243
POLICY = """\
version: "1.2.0"
name: doctor
guards:
  egress_allowlist: {default_action: block, allow: ["*.allowed.example", other.example]}
"""
SETTINGS = """\
policy: {folder}/policy.yaml
state_dir: {folder}/state
listen: {{port: 3128}}
capture: {{users: "{user}"}}
"""
# The attacks are made as USER whoever is captured: so it is seen that they work.
PROGRAM = """
import sys
from aesp_proxy.cli import doctor_captured, main
made, captured = doctor_captured._changes, sys.argv.pop(1)
doctor_captured._changes = lambda *words: made(*words) | {"capture.users": captured}
main()
"""


def attack(folder: Path, captured: int, *rows: int) -> subprocess.CompletedProcess[str]:
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "config.yaml").write_text(SETTINGS.format(folder=folder, user=USER))
    words = ["doctor", "--attack", "--user", str(USER), "--config", str(folder / "config.yaml")]
    words += [word for row in rows for word in ("--row", str(row))]
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(captured), *words, "--format", "json"],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip


def outcomes(ran: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert ran.stdout, ran.stderr
    return {each["id"]: each["outcome"] for each in json.loads(ran.stdout)["attacks"]}


def networks() -> str:
    return subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout


def test_nothing_gets_out_of_the_place_of_a_captured_user(tmp_path: Path):
    before = networks()
    ran = attack(tmp_path, USER)
    told = outcomes(ran)
    assert ran.returncode == 0, ran.stdout
    assert {name for name, outcome in told.items() if outcome == "passed"} == {
        "control", "captured-control",
    }  # fmt: skip
    assert {name for name, outcome in told.items() if outcome == "could not be tried"} == UNWALLED
    assert {each.id for each in CAPTURED} <= set(told)
    assert networks() == before
    assert not (tmp_path / "state").exists()


def test_of_a_user_who_is_not_captured_the_attacks_get_out_which_proves_that_they_work(
    tmp_path: Path,
):
    ran = attack(tmp_path, ANOTHER, 4, 12, 13, 14)
    told = outcomes(ran)
    assert ran.returncode == 2
    out = {name for name, outcome in told.items() if outcome == "GOT OUT"}
    assert out >= {
        "tcp-loopback", "tcp-other-ports", "tcp-ipv6", "udp", "udp-quic", "dns-canary",
        "dns-canary-53", "captured-other-name", "captured-plain", "captured-raw",
        "captured-ipv6", "captured-device", "captured-udp", "captured-quic", "captured-dns",
    }  # fmt: skip
