"""The unit files, held against systemd's own tools and against what the service really does."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import fanotify_lab
import pytest
from capture_lab import Lab, rules, unusable

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd/aesp-proxy.service"
CAPTURE = ROOT / "systemd/aesp-proxy-capture.service"
FILES = ROOT / "systemd/aesp-proxy-files.service"
PROGRAM = Path(sys.executable).parent / "aesp-proxy"
EXPOSURE_MAX = 2.0
WAIT_S = 60.0
_PR_SET_MDWE, _REFUSE_EXEC_GAIN = 65, 1

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (Debian: systemd)"
)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


def values(key: str, unit: Path = UNIT) -> list[str]:
    """Every value that a unit gives a key."""
    lines = unit.read_text().splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]


def test_the_units_are_ones_that_systemd_takes(tmp_path):
    for unit in (UNIT, CAPTURE, FILES):
        text = unit.read_text().replace("/usr/bin/aesp-proxy", str(PROGRAM))
        (tmp_path / unit.name).write_text(text)
    ran = run("systemd-analyze", "verify", "--man=no", *map(str, tmp_path.iterdir()))
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("unit", [UNIT, CAPTURE, FILES], ids=["service", "capture", "files"])
def test_a_unit_leaves_little_exposed(unit):
    ran = run("systemd-analyze", "security", "--offline=true", "--no-pager", str(unit))
    line = next(text for text in ran.stdout.splitlines() if "Overall exposure" in text)
    exposure = float(line.rpartition(": ")[2].split()[0])
    print(f"exposure {exposure}")
    assert exposure < EXPOSURE_MAX


def test_the_user_and_the_directories_are_made(tmp_path):
    if os.geteuid():
        pytest.skip("needs root: it makes a user in a root of its own")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/aesp-proxy").mkdir()
    (tmp_path / "etc/aesp-proxy/policy.yaml").write_text("")
    made = run(
        "systemd-sysusers", f"--root={tmp_path}", str(ROOT / "systemd/sysusers.d/aesp-proxy.conf")
    )
    assert made.returncode == 0, made.stderr
    assert "aesp-proxy:x:" in (tmp_path / "etc/passwd").read_text()
    made = run(
        "systemd-tmpfiles", "--create", f"--root={tmp_path}",
        str(ROOT / "systemd/tmpfiles.d/aesp-proxy.conf"),
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "var/lib/aesp-proxy").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "etc/aesp-proxy/policy.yaml").stat().st_mode & 0o777 == 0o640


def expanded(name: str) -> set[str]:
    """The system calls of a set, and of the sets in it."""
    if not name.startswith("@"):
        return {name}
    listed = run("systemd-analyze", "syscall-filter", name).stdout.splitlines()
    words = [text.strip() for text in listed if text.startswith("    ")]
    members = (expanded(word) for word in words if word and not word.startswith("#"))
    return set().union(*members)


def allowed(unit: Path = UNIT) -> set[str]:
    calls = expanded("@default")
    for value in values("SystemCallFilter", unit):
        named = set().union(*map(expanded, value.removeprefix("~").split()))
        calls = calls - named if value.startswith("~") else calls | named
    return calls


def refuse_new_code() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_MDWE, _REFUSE_EXEC_GAIN, 0, 0, 0)


def until(condition: Callable[[], object], what: str) -> None:
    pause = select.poll()
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, f"not in {WAIT_S} s: {what}"
        pause.poll(50)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="aesp") as made:
        yield Path(made)


def told(folder: Path) -> dict[str, object] | None:
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(str(folder / "run/control.sock"))
            sock.sendall(b'{"ask": "status"}\n')
            data = b""
            while more := sock.recv(65536):
                data += more
        except OSError:
            return None
    return json.loads(data) if data else None


def test_what_has_a_privilege_takes_no_traffic_and_what_takes_traffic_has_none():
    assert values("CapabilityBoundingSet", CAPTURE) == ["CAP_NET_ADMIN"]
    assert values("RestrictAddressFamilies", CAPTURE) == ["AF_NETLINK AF_UNIX"]
    assert values("CapabilityBoundingSet") == values("AmbientCapabilities") == [""]


def test_the_service_makes_no_system_call_that_the_unit_forbids(folder):
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    policy, calls = folder / "policy.yaml", folder / "calls"
    policy.write_text(
        'version: "1.2.0"\nname: a\nguards:\n'
        '  egress_allowlist: {default_action: block, allow: ["one.test"]}\n'
    )
    words = ["strace", "-f", "-qq", "-c", "-U", "name", "-o", str(calls), str(PROGRAM), "daemon"]
    options = ["--policy", str(policy), "--state", str(folder / "state"), "--workers", "2"]
    with subprocess.Popen(
        [*words, *options, "--set", f"daemon.run_dir={folder}/run"],
        stderr=subprocess.PIPE,
        preexec_fn=refuse_new_code,  # noqa: PLW1509 - this process has one thread
    ) as process:
        try:
            until(lambda: (told(folder) or {}).get("state") == "running", "running")
            status = told(folder)
            with socket.create_connection(("127.0.0.1", status["listen"]["port"])) as sock:
                sock.sendall(b"CONNECT two.test:443 HTTP/1.1\r\nHost: two.test:443\r\n\r\n")
                assert sock.recv(4096).startswith(b"HTTP/1.1 403")
            os.kill(status["pid"], signal.SIGHUP)
            until(lambda: told(folder)["policy"]["serial"] == 2, "reloaded")
            os.kill(status["workers"][0]["pid"], signal.SIGKILL)
            until(lambda: told(folder)["workers"][0]["restarts"] == 1, "killed")
            until(lambda: told(folder)["state"] == "running", "back")
            os.kill(status["pid"], signal.SIGTERM)
            assert process.wait(WAIT_S) == 0
        finally:
            with contextlib.suppress(OSError):
                os.kill((told(folder) or {}).get("pid", process.pid), signal.SIGKILL)
            process.kill()
    made = calls_in(calls)
    assert len(made) > 40
    assert made - allowed() == set()


def calls_in(summary: Path) -> set[str]:
    """The system calls that strace has counted."""
    lines = summary.read_text().split()
    return {word for word in lines if word.isidentifier()} - {"name", "syscall", "total"}


def test_what_keeps_the_packet_rules_makes_no_system_call_that_its_unit_forbids(folder):
    if shutil.which("strace") is None or unusable():
        pytest.skip(unusable() or "needs strace")
    with ExitStack() as stack:
        lab = Lab(stack, folder)
        lab.configure(rules="service")
        calls = folder / "calls"
        words = ["strace", "-f", "-qq", "-c", "-U", "name", "-o", str(calls), str(PROGRAM)]
        keep = lab.start(
            lab.host, 0, *words, "capture", "keep", "--config", str(lab.config),
            stderr=subprocess.PIPE,
        )  # fmt: skip
        assert keep.stderr is not None
        assert "leads to the proxy" in keep.stderr.readline()
        assert rules(lab, "flush", "ruleset").returncode == 0
        assert "put back" in keep.stderr.readline()
        assert lab.end_of_child(keep, signal.SIGTERM) == 0
    made = calls_in(calls)
    assert {"capset", "bind", "sendto"} <= made
    assert made - allowed(CAPTURE) == set()


def test_what_watches_files_makes_no_system_call_that_its_unit_forbids(folder):
    if shutil.which("strace") is None or fanotify_lab.unusable():
        pytest.skip(fanotify_lab.unusable() or "needs strace")
    calls = folder / "calls"
    with ExitStack() as stack:
        lab = fanotify_lab.Lab(stack, folder)
        lab.put(".env", "secret\n")
        lab.begin(wrapper=["strace", "-f", "-qq", "-c", "-U", "name", "-o", str(calls)])
        assert lab.reads(".env") == "EPERM"
        os.kill(lab.listener, signal.SIGKILL)
        fanotify_lab.until(lambda: lab.said.count("are answered by") == 2, "another", s_max=60)
        assert lab.reads(".env") == "EPERM"
        lab.does("open(T + '/new', 'w').write('x')")
        fanotify_lab.until(
            lambda: any(each["action"] == "file.create" for each in lab.records()), "told"
        )
        assert lab.end_of_child() == 0
    made = calls_in(calls)
    assert {"capset", "fanotify_mark", "open_by_handle_at"} <= made
    assert made - allowed(FILES) == set()
