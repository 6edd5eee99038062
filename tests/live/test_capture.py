"""Capture on a host: a real daemon, real rules, a user who tries to get past them.

Everything stands in network namespaces that the test makes (see ``capture_lab``).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from capture_lab import (
    ALLOWED,
    CAPTURED,
    FOUR,
    OTHER,
    OWN,
    PROGRAM,
    SIX,
    Lab,
    rules,
    until,
    unusable,
)

from aesp_proxy.intercept.capture.who import cgroup_root

pytestmark = pytest.mark.skipif(bool(unusable()), reason=unusable() or "-")
REFUSED = {"EPERM", "EACCES", "ECONNREFUSED", "ECONNRESET", "EHOSTUNREACH", "ENETUNREACH",
           "ETIMEDOUT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", ""}  # fmt: skip
# What the proxy answers to bytes that it does not relay.
HTTP_REFUSAL = "HTTP/1.1 403"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(ignore_cleanup_errors=True, prefix="aesp")
            )
        )
        yield Lab(stack, folder)


@pytest.fixture
def running(lab: Lab) -> Lab:
    lab.configure()
    lab.begin()
    lab.trust()
    return lab


def test_a_captured_user_reaches_what_the_policy_allows_and_nothing_else(running):
    asked = {
        "http://origin.test/": "200 world",
        "https://origin.test/": "200 world",
        "https://origin.test:8443/": "200 world",
        "http://plain.test:4567/": "200 world",
    }
    assert {url: running.curl(CAPTURED, url) for url in asked} == asked
    refused = ["http://origin.test:4567/", f"http://{FOUR}/", f"http://[{SIX}]/",
               "http://other.test/", f"http://{FOUR}:4567/"]  # fmt: skip
    told = {url: running.curl(CAPTURED, url) for url in refused}
    assert {url for url, answer in told.items() if answer.startswith("200")} == set(), told
    assert running.curl(CAPTURED, "http://other.test/") == "curl 6"
    assert {line.split()[2] for line in running.hits} == {"10.77.0.2"}
    assert not any("udp" in line for line in running.hits)


def test_nothing_else_of_a_captured_user_leaves_and_another_user_is_untouched(running):
    running.serve_locally()
    told = running.attacks(CAPTURED)
    past = {name: said for name, said in told.items()
            if said not in REFUSED and not said.startswith(HTTP_REFUSAL)}  # fmt: skip
    assert past == {}
    assert running.hits == []
    free = running.attacks(OTHER)
    through = {name for name, said in free.items() if said in ("world", "local", "echo:\1canary\n")}
    kinds = {"tcp 22", "tcp 4567", "udp 443", "udp 9999", "tcp bound", "udp bound", "mptcp"}
    assert through >= {f"{kind} {family}" for kind in kinds for family in "46"}
    assert through >= {"local 127.0.0.1", "local ::1", "local own", "local udp"}
    assert running.hits


def test_what_it_serves_is_for_this_machine_and_a_user_namespace_frees_it_not(
    running,
):
    serve = (
        "import socket; s = socket.create_server(('0.0.0.0', 7780)); print('ready', flush=True)\n"
        "while True: s.accept()[0].sendall(b'served')"
    )
    server = running.start(running.host, CAPTURED, sys.executable, "-I", "-c", serve,
                           stdout=subprocess.PIPE)  # fmt: skip
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    ask = (
        "import socket; s = socket.create_connection(('{}', 7780), 4); s.settimeout(4); "
        "print(s.recv(9))"
    )
    near = running.run(OTHER, sys.executable, "-I", "-c", ask.format("127.0.0.1"))
    assert near.stdout.strip() == "b'served'", near.stderr
    far = running.run_at(running.world, 0, sys.executable, "-I", "-c", ask.format(OWN))
    assert far.returncode != 0
    assert "served" not in far.stdout
    made = running.run(CAPTURED, "unshare", "--user", "--map-root-user", "curl", "-sS", "-m", "5",
                       f"http://{FOUR}/")  # fmt: skip
    assert "world" not in made.stdout
    assert running.hits == []


def test_other_tcp_passes_where_an_entry_says_its_port(running):
    script = (
        "import socket; s = socket.create_connection(('raw.test', {}), 20); "
        "s.sendall(b'\\1hello'); print(s.recv(99))"
    )
    for port, answer in ((4567, "b'echo:\\x01hello'"), (5432, "b''")):
        done = running.run(CAPTURED, sys.executable, "-I", "-c", script.format(port))
        assert done.stdout.strip() == answer, done.stderr
    assert running.hits == ["tcp 4567 10.77.0.2"]


def test_what_somebody_takes_away_is_put_back_and_told(running):
    if shutil.which("nft") is None:
        pytest.skip("needs nft (Debian: nftables)")
    changes = [
        (["flush", "ruleset"], "is gone"),
        (["insert", "rule", "inet", "aesp_proxy", "out", "accept"], "rules instead of"),
        (["add", "table", "inet", "aesp_proxy", "{ flags dormant; }"], "is dormant"),
        (["add", "chain", "inet", "aesp_proxy", "more"], "is foreign"),
    ]
    for number, (words, told) in enumerate(changes, 1):
        done = rules(running, *words)
        assert done.returncode == 0, done.stderr
        until(lambda count=number: running.capture()["repairs"] == count, running.log())
        capture = running.capture()
        assert capture["holds"]
        assert told in capture["last"]["message"]
        assert running.attacks(CAPTURED)["tcp 4567 4"] in REFUSED
    assert running.hits == []
    assert running.log().count("they were put back") == len(changes)
    assert running.end() == 0
    events = [each["event_type"] for each in running.records() if "event_type" in each]
    assert events.count("capture.repaired") == len(changes)


def test_when_it_is_killed_the_captured_have_no_way_out_until_it_is_back(running):
    assert running.curl(CAPTURED, "http://origin.test/") == "200 world"
    before = len(running.hits)
    running.end(signal.SIGKILL)
    assert running.curl(CAPTURED, "http://origin.test/") == "curl 6"
    told = running.attacks(CAPTURED)
    assert {name: said for name, said in told.items() if said not in REFUSED} == {}
    assert len(running.hits) == before
    assert running.curl(OTHER, f"http://{FOUR}/") == "200 world"
    running.begin()
    assert running.capture()["last"]["event"] == "found"
    assert running.curl(CAPTURED, "http://origin.test/") == "200 world"


@pytest.mark.parametrize(("on_stop", "past"), [("block", "curl 7"), ("release", "200 world")])
def test_when_it_is_told_to_stop_the_setting_says_what_becomes_of_the_captured(lab, on_stop, past):
    lab.configure(on_stop=on_stop)
    lab.begin()
    assert lab.curl(CAPTURED, f"http://{FOUR}/").startswith("403")
    assert lab.end() == 0
    assert lab.curl(CAPTURED, f"http://{FOUR}/") == past


def test_the_record_names_the_user_and_a_rule_may_ask_for_it(lab):
    policy = (lab.folder / "policy.yaml").read_text() + (
        "rules:\n  - policy_id: not-for-4243\n    applies_to: ['egress:plain.test']\n"
        f"    rule: {{condition: \"request.user.id == 'uid-{OTHER}'\", effect: DENY}}\n"
    )
    lab.allow(*ALLOWED)
    (lab.folder / "policy.yaml").write_text(policy)
    lab.configure(users=f"{CAPTURED}, {OTHER}")
    lab.begin()
    assert lab.curl(CAPTURED, "http://plain.test/") == "200 world"
    assert lab.curl(OTHER, "http://plain.test/").startswith("403")
    assert lab.curl(OTHER, "http://origin.test/", "-x", "http://127.0.0.1:3128") == "200 world"
    assert lab.curl(5555, f"http://{FOUR}/", "--noproxy", "*") == "200 world"
    lab.end()
    told = [(each["principal_id"], each["verdict"]) for each in lab.records()
            if each["kind"] == "decision" and each["action"] == "http.get"]  # fmt: skip
    assert told == [("uid-4242", "allow"), ("uid-4243", "deny"), ("uid-4243", "allow")]


def test_a_policy_that_opens_loopback_opens_local_services_and_never_the_proxy_itself(lab):
    lab.allow(*ALLOWED, "127.0.0.1:*", "[::1]:*", "0.0.0.0:*")
    lab.configure()
    lab.begin()
    lab.serve_locally()
    told = lab.attacks(CAPTURED)
    assert told["local 127.0.0.1"] == told["local ::1"] == "local"
    assert told["local own"] in REFUSED
    assert told["local udp"] in REFUSED
    for port in (3128, 3129, 3130):
        for host in ("127.0.0.1", "[::1]", "0.0.0.0"):
            answer = lab.curl(CAPTURED, f"http://{host}:{port}/", "--noproxy", "*", "-m", "5")
            assert not answer.startswith("200"), (host, port, answer)
            direct = lab.curl(OTHER, f"http://{host}:{port}/", "--noproxy", "*", "-m", "5")
            assert not direct.startswith("200"), (host, port, direct)
    status = lab.status()
    assert status is not None
    assert status["workers"][0]["restarts"] == 0
    assert status["workers"][0]["refused"] + status["workers"][0]["allowed"] < 100


def test_workers_share_what_names_were_answered_with(lab):
    lab.configure(workers=3)
    lab.begin()
    script = (
        "import socket\n"
        "for _ in range(24):\n"
        "    with socket.create_connection(('raw.test', 4567), 20) as s:\n"
        "        s.sendall(b'\\1hello'); print(s.recv(99))\n"
    )
    done = lab.run(CAPTURED, sys.executable, "-I", "-c", script)
    assert done.stdout.split() == ["b'echo:\\x01hello'"] * 24, done.stderr
    assert len(lab.hits) == 24
    lab.end()
    # A query and the connection after it came to different ones: an epoch is a worker's.
    for action in ("dns.query", "tcp.connect"):
        ids = [each["id"] for each in lab.records() if each["action"] == action]
        assert len({identity.split("/")[1] for identity in ids}) > 1


def test_a_group_is_its_members_and_a_cgroup_what_is_below_it_also_when_it_is_made_anew(lab):
    root = cgroup_root(Path("/proc/self/mountinfo").read_text())
    if root is None or not os.access(root, os.W_OK):
        pytest.skip("no cgroup version 2 here that can be written")
    slice_ = root / f"aesp-test-{os.getpid()}"
    slice_.mkdir()
    lab.stack.callback(lambda: slice_.exists() and slice_.rmdir())
    script = (
        "import os, socket, sys\n"
        "open(sys.argv[1] + '/cgroup.procs', 'w').write(str(os.getpid()))\n"
        "s = socket.create_connection((sys.argv[2], 4567), 5)\n"
        "s.sendall(b'\\1hello')\n"
        "try: print(s.recv(99))\n"
        # What is closed before all was read ends in a reset: refused, too.
        "except ConnectionResetError: print(b'')\n"
    )

    def inside() -> str:
        return lab.run(0, sys.executable, "-I", "-c", script, str(slice_), FOUR).stdout.strip()

    lab.configure(users="", cgroups=slice_.name, groups="4300")
    lab.begin()
    assert inside() == "b''"
    assert lab.curl(CAPTURED, f"http://{FOUR}/") == "200 world"
    group = lab.run(0, "setpriv", "--reuid", "5555", "--regid", "4300", "--clear-groups",
                    "curl", "-sS", "-m", "5", f"http://{FOUR}/")  # fmt: skip
    assert "not" in group.stdout, group.stderr
    slice_.rmdir()
    until(lambda: not lab.capture()["holds"], "noticed that it is gone")
    assert "no such cgroup" in lab.capture()["last"]["message"]
    slice_.mkdir()
    until(lambda: lab.capture()["holds"], "noticed that it is there again")
    assert inside() == "b''"
    assert lab.hits == ["tcp 80 10.77.0.2"]


def test_a_service_beside_a_daemon_without_privilege_keeps_the_rules(lab):
    lab.configure(rules="service")
    lab.folder.chmod(0o777)
    for made in (lab.state, lab.run_dir):
        made.mkdir(mode=0o700)
        os.chown(made, 4300, 4300)
    # As the unit has it: the daemon's user, with one capability.
    only = "-all,+net_admin"
    one = ["--inh-caps", only, "--ambient-caps", only, "--bounding-set", only, "--no-new-privs"]
    user = ["--reuid", "4300", "--clear-groups", "--"]
    keep = ["setpriv", *one, *user, str(PROGRAM), "capture", "keep", "--config", str(lab.config)]
    first = lab.start(lab.host, 0, *keep, stderr=subprocess.PIPE)
    assert first.stderr is not None
    assert "leads to the proxy" in first.stderr.readline()
    # The rules are there before the daemon is.
    assert lab.curl(CAPTURED, f"http://{FOUR}/") == "curl 7"
    lab.begin(uid=4300)
    assert lab.curl(CAPTURED, "http://origin.test/") == "200 world"
    assert rules(lab, "flush", "ruleset").returncode == 0
    until(lambda: lab.capture()["repairs"] == 1, lab.log())
    first.kill()
    until(lambda: lab.status()["state"] == "degraded", "noticed that it is gone")
    assert "nobody keeps the packet rules" in lab.capture()["last"]["message"]
    assert lab.curl(CAPTURED, "http://origin.test/") == "200 world"
    lab.start(lab.host, 0, *keep)
    until(lambda: lab.status()["state"] == "running", "noticed that it is back")
    assert lab.capture()["last"]["event"] == "found"


def test_in_a_pod_everybody_is_captured_but_the_proxys_own_user(lab):
    lab.configure(users="", rules="elsewhere", loopback="open", inbound="any")
    lab.folder.chmod(0o777)
    for made in (lab.state, lab.run_dir):
        made.mkdir(mode=0o700)
        os.chown(made, 65532, 65532)
    words = ["--config", str(lab.config), "--all-but-uid", "65532"]
    # As an engine starts it: root, with one capability.
    bare = ["setpriv", "--bounding-set", "-all,+net_admin", "--inh-caps", "-all", "--"]
    done = lab.run(0, *bare, str(PROGRAM), "capture", "install", *words)
    assert done.returncode == 0, done.stderr
    assert lab.run(0, str(PROGRAM), "capture", "check", *words).returncode == 0
    assert lab.curl(CAPTURED, f"http://{FOUR}/") == "curl 7"
    lab.begin(uid=65532)
    lab.trust()
    for user in (0, CAPTURED, 65533):
        assert lab.curl(user, "https://origin.test/") == "200 world"
        assert lab.curl(user, f"http://{FOUR}/").startswith("403")
    before = lab.hits
    lab.serve_locally()
    told = lab.attacks(CAPTURED)
    own = {name for name, said in told.items() if said == "local"}
    assert own == {"local 127.0.0.1", "local 127.9.9.9", "local own", "local ::1", "local udp"}
    past = {name: said for name, said in told.items() if name not in own
            and said not in REFUSED and not said.startswith(HTTP_REFUSAL)}  # fmt: skip
    assert past == {}
    assert lab.hits == before
    # Whoever reaches the pod is answered.
    script = f"import socket; print(socket.create_connection(('{OWN}', 7777)).recv(9))"
    answer = lab.run_at(lab.world, 0, sys.executable, "-I", "-c", script)
    assert answer.stdout.strip() == "b'local'", answer.stderr
    capture = lab.capture()
    assert (capture["holds"], capture["rules"]) == (None, "elsewhere")
    assert lab.run(0, str(PROGRAM), "capture", "remove").stdout == "removed\n"
    check = lab.run(0, str(PROGRAM), "capture", "check", *words)
    assert (check.returncode, check.stdout) == (1, "the table aesp_proxy is gone\n")
    assert lab.curl(CAPTURED, f"http://{FOUR}/") == "200 world"


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ({"users": "nobody-of-that-name"}, 3, "no such user"),
        ({"groups": "none-of-that-name"}, 3, "no such group"),
        ({"cgroups": "none/of/that/name"}, 3, "cgroup"),
        ({"users": "root"}, 3, "root cannot be captured"),
        ({"port": 3128}, 3, "three ports"),
    ],
    ids=str,
)
def test_wrong_names_end_the_start_and_put_nothing_in(lab, given, code, words):
    lab.configure(**given)
    done = lab.run(0, str(PROGRAM), "daemon", "--config", str(lab.config))
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert rules(lab, "list", "tables").stdout == ""


def test_without_the_privilege_it_says_so_and_does_not_serve(lab):
    lab.configure()
    lab.folder.chmod(0o777)
    for words in (["daemon"], ["capture", "install"], ["capture", "check"], ["capture", "keep"]):
        done = lab.run(CAPTURED, str(PROGRAM), *words, "--config", str(lab.config), "--set",
                       "capture.users=5555")  # fmt: skip
        assert done.returncode in (3, 4), (words, done.stderr)
        assert "CAP_NET_ADMIN" in done.stderr
        assert "Traceback" not in done.stderr
    assert lab.run(CAPTURED, str(PROGRAM), "capture", "remove").returncode == 4
