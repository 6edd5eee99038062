"""Every tool chain of the table, through every entry: what is allowed works, what is not is said.

Each case is one real program, run once, with no other variable set than the table names.
A program that is not installed is skipped by name; ``.ci/live.sh`` brings most of them.
"""

from __future__ import annotations

import pytest
from client_play import Played, host_of, missing, play
from client_table import Case, Verdict, cases
from isolation_probe import probe

from aesp_proxy.model.record import RecordKind

pytestmark = [
    pytest.mark.skipif(bool(probe().missing()), reason=f"no namespaces here: {probe().line()}"),
    # All of them are played when the first is asked for.
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(cases(), tmp_path_factory.mktemp("clients"))


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
def test_an_allowed_client_works_and_a_refused_one_is_told(played: Played, case: Case) -> None:
    if lacks := missing(case.client):
        pytest.skip(lacks)
    said = played.said[case.name]
    decisions = [
        record for record in played.records[host_of(case)] if record.kind is RecordKind.DECISION
    ]
    if case.verdict is Verdict.ALLOWED:
        assert case.client.shows in said.text, said
        assert said.code == 0, said
        assert {record.reason for record in decisions} == {"allowed"}
        assert any(record.action.startswith("http.") for record in decisions)
    else:
        refusal = case.client.refusal(case.entry, case.verdict)
        assert refusal.text in said.text, said
        assert said.code == refusal.code, said
        reason = "rule_denied" if case.verdict is Verdict.REQUEST else "host_not_allowed"
        assert decisions[-1].reason == reason
    asked_for_the_name = any(record.action == "dns.query" for record in decisions)
    assert asked_for_the_name == case.client.resolves(case.entry)


def test_no_refused_request_came_to_the_origin(played: Played) -> None:
    assert played.paths
    assert not [path for path in played.paths if path.startswith("/closed")]
