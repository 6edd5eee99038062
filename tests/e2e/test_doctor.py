"""``doctor`` as a person uses it: what it finds, and the attacks from inside a real ``run``."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import without_namespaces
from isolation_probe import probe

from aesp_proxy.launch.attack.catalogue import CATALOGUE

PROGRAM = Path(sys.executable).parent / "aesp-proxy"
NOTHING = "unshare,filter,landlock"
POLICY = """\
version: "1.2.0"
name: doctor
guards:
  egress_allowlist: {default_action: block, allow: ["*.allowed.example", other.example]}
"""
GAPS = {attack.id for attack in CATALOGUE if attack.gap}
isolated = pytest.mark.skipif(bool(probe().missing()), reason=f"no namespaces: {probe().line()}")


def doctor(*words: object, refused: str = "", **more) -> subprocess.CompletedProcess[str]:
    wrapped = [sys.executable, without_namespaces.__file__, refused] if refused else []
    return subprocess.run(
        [*wrapped, str(PROGRAM), "doctor", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        **more,
    )


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY, "utf-8")
    return path


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with compiled rules, which the first attack makes for the others."""
    place = tmp_path_factory.mktemp("state")
    (place / "cache").mkdir(mode=0o700)
    return place


def attack(state: Path, policy: Path, *words: object, refused: str = ""):
    return doctor("--attack", "--state", state, "--policy", policy, *words, refused=refused)


def outcomes(ran: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return {each["id"]: each["outcome"] for each in json.loads(ran.stdout)["attacks"]}


def test_the_exit_code_is_that_of_the_worst_finding(tmp_path):
    ran = doctor("--state", tmp_path / "state", "--format", "json", "--out", tmp_path / "told")
    told = json.loads(ran.stdout)
    assert ran.returncode == {"ok": 0, "weaker": 1, "missing": 2}[told["result"]], ran.stderr
    assert json.loads((tmp_path / "told").read_text("utf-8")) == told
    stands = {each["name"]: each["level"] for each in told["findings"]}
    assert (stands["network namespace"] == "ok") is not bool(probe().missing())
    assert not (tmp_path / "state").exists()


def test_a_machine_without_namespaces_is_told_what_run_refuses_and_how_to_get_it(tmp_path):
    ran = doctor("--state", tmp_path / "state", refused=NOTHING)
    assert ran.returncode == 2
    assert "missing network namespace: Operation not permitted" in ran.stdout
    assert "`run` refuses: the agent uses the host's network beside the proxy" in ran.stdout
    assert "to get it: " in ran.stdout
    assert "\x1b[" not in ran.stdout


def test_a_policy_that_does_not_load_is_missing(tmp_path):
    (tmp_path / "policy.yaml").write_text("version: 7\n", "utf-8")
    ran = doctor("--state", tmp_path / "state", "--policy", tmp_path / "policy.yaml")
    assert ran.returncode == 2
    assert "missing policy: " in ran.stdout


def test_a_terminal_gets_colours(tmp_path):
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        ran = subprocess.Popen(
            [str(PROGRAM), "doctor", "--state", str(tmp_path / "state")], stdout=theirs
        )
        os.close(theirs)
        told = b""
        try:
            while data := terminal.read(65536):
                told += data
        except OSError:
            pass  # the end of a terminal
        ran.wait(60)
    assert b"\x1b[32mok" in told


@isolated
def test_nothing_gets_out_of_an_isolated_run_but_what_is_known_to(policy, tmp_path, state):
    ran = attack(state, policy, "--format", "json", "--out", tmp_path / "told")
    told = outcomes(ran)
    assert told["control"] == "passed"
    assert {name for name, outcome in told.items() if outcome == "GOT OUT"} == GAPS, ran.stdout
    assert ran.returncode == (2 if GAPS else 0)
    assert len(told) == len(CATALOGUE)
    tried = {name for name, outcome in told.items() if outcome != "could not be tried"}
    needs_more = {"vsock", "known-sockets", "tcp-ipv6", "udp-quic", "dns-canary-53", "rebinding"}
    assert set(told) - tried <= needs_more
    assert policy.read_text("utf-8") == POLICY


@isolated
def test_rows_can_be_chosen_and_all_stopped_is_0(policy, state):
    ran = attack(state, policy, "--row", "13", "--row", "26")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "13  Unsetting the proxy variables, own sockets" in ran.stdout
    assert "0 GOT OUT" in ran.stdout
    assert "29  " not in ran.stdout


def test_without_isolation_the_attacks_get_out_which_proves_that_they_work(policy, state):
    ran = attack(state, policy, "--allow-degraded", "--format", "json", refused=NOTHING)
    assert ran.returncode == 2, ran.stderr
    told = outcomes(ran)
    direct = {"tcp-loopback", "tcp-other-ports", "udp", "dns-canary", "netlink", "unix-path",
              "unix-abstract", "unix-datagrams", "signal"}  # fmt: skip
    assert {name for name in direct if told[name] != "GOT OUT"} == set()
    # What goes through the proxy is decided as ever.
    assert told["forbidden-host"] == told["secret-body"] == told["two-framings"] == "stopped"


def test_where_run_would_refuse_there_is_nothing_to_attack(policy):
    ran = doctor("--attack", "--policy", policy, refused=NOTHING)
    assert ran.returncode == 3
    assert "`run` would refuse to start here" in ran.stderr
    assert ran.stdout == ""


@isolated
def test_a_policy_without_an_allowed_host_says_what_could_not_be_tried(tmp_path, state):
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY.replace('"*.allowed.example", other.example', ""), "utf-8")
    ran = attack(state, path, "--row", "1", "--format", "json")
    told = outcomes(ran)
    assert told["fronting-host"] == told["control"] == "could not be tried"
    assert ran.returncode == 1


@isolated
def test_a_policy_that_looks_for_no_secrets_lets_them_out(tmp_path, state):
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY + "  secret_leak: {enabled: false}\n", "utf-8")
    ran = attack(state, path, "--row", "19", "--format", "json")
    told = outcomes(ran)
    assert ran.returncode == 2
    assert told["secret-body"] == told["secret-url"] == told["secret-header"] == "GOT OUT"


@pytest.mark.parametrize(
    ("words", "settings", "code", "says"),
    [
        (("--user", "nobody"), "", 5, "--user goes with --attack"),
        (("--attack", "--user", "nobody"), "", 3, "these settings capture nobody"),
        (("--attack", "--user", "no-one-here"), "", 3, "no such user"),
        (("--attack", "--user", "root"), "capture: {users: nobody}", 3, "root is captured by"),
        (
            ("--attack", "--user", "daemon"),
            "listen: {port: 3128}\ncapture: {users: nobody}",
            3,
            "these settings do not capture daemon",
        ),
        (("--attack", "--user", "nobody"), "capture: {users: nobody}", 3, "set it, 3128"),
    ],
    ids=["without-attack", "nobody-captured", "no-such-user", "root", "another", "no-port"],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it becomes another user")
def test_a_user_from_whose_place_nothing_can_be_said_is_refused(
    tmp_path, words, settings, code, says
):
    (tmp_path / "config.yaml").write_text(settings)
    ran = doctor(*words, "--config", tmp_path / "config.yaml")
    assert (ran.returncode, says in ran.stderr) == (code, True), ran.stderr


def test_a_row_without_attacks_is_wrong_use(policy):
    ran = doctor("--attack", "--policy", policy, "--row", "38")
    assert ran.returncode == 5
    assert "no attack of row 38" in ran.stderr
    assert doctor("--row", "1").returncode == 5
