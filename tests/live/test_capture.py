"""Capture on a host: a real daemon, real rules, a user who tries to get past them.

Everything stands in network namespaces that the test makes (see ``capture_lab``).
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from capture_lab import CAPTURED, FOUR, OTHER, SIX, Lab, rules, until, unusable

pytestmark = pytest.mark.skipif(bool(unusable()), reason=unusable() or "-")
REFUSED = {"EPERM", "EACCES", "ECONNREFUSED", "ECONNRESET", "EHOSTUNREACH", "ENETUNREACH",
           "ETIMEDOUT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", ""}  # fmt: skip
# What the proxy answers to bytes that it does not relay.
HTTP_REFUSAL = "HTTP/1.1 403"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aesp")))
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
