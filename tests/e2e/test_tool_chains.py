"""The tool chains that agents use reach an allowed host through ``run``, and trust what they see.

A few rows of the table of clients (``tests/live/test_clients.py`` plays all), with all the
variables that ``run`` sets, in whose way stand a proxy in git's own file, ``NO_PROXY`` and
cargo's. A chain that is not installed is skipped by name.
"""

from __future__ import annotations

import sys

import pytest
from client_play import Played, host_of, missing, play
from client_table import CLIENTS, Case, Client, Entry, Verdict
from isolation_probe import probe

ROOTS = (
    "import ssl; c = ssl.create_default_context(); "
    "print([dict(x[0] for x in r['subject']).get('commonName') for r in c.get_ca_certs()])"
)
BY_NAME = {client.name: client for client in CLIENTS}
ALLOWED = [
    *("curl", "wget", "git", "npm", "node-https", "urllib", "requests", "httpx"),
    *("java-url", "cargo"),
]
REFUSED = ["curl", "git", "urllib"]
CASES = [
    *(Case(BY_NAME[name], Entry.EXPLICIT, Verdict.ALLOWED) for name in ALLOWED),
    *(Case(BY_NAME[name], Entry.EXPLICIT, Verdict.HOST) for name in REFUSED),
]
OPENSSL = Case(
    Client(
        name="openssl",
        title="OpenSSL's roots",
        words=(sys.executable, "-c", ROOTS),
        proxy=(),
        trust=("SSL_CERT_FILE",),
        host=BY_NAME["urllib"].host,
        captured=BY_NAME["urllib"].host,
        request=BY_NAME["urllib"].host,
    ),
    Entry.EXPLICIT,
    Verdict.ALLOWED,
)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Every chain that is installed, played once through one run."""
    folder = tmp_path_factory.mktemp("chains")
    return play([*CASES, OPENSSL], folder, whole_environment=True, scan=False)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_chain_works_or_is_told(played: Played, case: Case) -> None:
    if lacks := missing(case.client):
        pytest.skip(lacks)
    if not case.client.proxy and probe().missing():
        pytest.skip(f"{case.client.title} knows no proxy, and nothing is captured here")
    said = played.said[case.name]
    decisions = played.records[host_of(case)]
    if case.verdict is Verdict.ALLOWED:
        assert case.client.shows in said.text, said
        assert said.code == 0, said
        assert {record.reason for record in decisions} == {"allowed"}
    else:
        assert case.client.host.text in said.text, said
        assert said.code == case.client.host.code, said
        assert {record.reason for record in decisions} == {"host_not_allowed"}


def test_openssls_default_roots_hold_ours_and_the_systems(played: Played) -> None:
    assert "AESP Proxy on " in played.said[OPENSSL.name].out
