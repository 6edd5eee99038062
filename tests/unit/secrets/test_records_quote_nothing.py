"""What the pipeline records of a secret that it has found, or has let pass, does not hold it."""

from __future__ import annotations

import random
import string
import time
from collections.abc import Callable, Iterator

import pytest
from scan_lab import token

from aesp_proxy.daemon.pipeline import Identity, Pipeline, ScanLimits
from aesp_proxy.daemon.session import SessionCounter
from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.decide.secrets.registered import Hasher, entry
from aesp_proxy.decide.secrets.rules import parse_rules
from aesp_proxy.decide.snapshot import build_snapshot
from aesp_proxy.errors import InputError
from aesp_proxy.model.context import Claims
from aesp_proxy.model.decision import Reason
from aesp_proxy.model.event import EgressRequest
from aesp_proxy.model.host import parse_host
from aesp_proxy.model.record import Ending, Record, RecordId

KEY = b"a key for the tests of records.."
TOKEN = token(7)
VALUE = "".join(random.Random(4).choices(string.ascii_lowercase + string.digits, k=40))
RULES = """\
[[rules]]
id = "github-pat"
description = "a token"
regex = '''ghp_[A-Za-z0-9]{36}'''
keywords = ["ghp_"]
severity = "critical"
"""
POLICY = """\
version: "1.2.0"
name: recorded
guards:
  egress_allowlist: {default_action: block, allow: ["*.one.test", "one.test"]}
  secret_leak: {enabled: true, actions: ACTIONS}
"""
RECORD = '[{rule: "*", action: record}]'


class Kept:
    """A journal that keeps records at hand."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def append(self, record: Record) -> RecordId:
        self.records.append(record)
        return RecordId(origin="h", epoch=1, seq=len(self.records))


def pipeline_of(actions: str) -> Pipeline:
    exact = ExactIndex(KEY)
    exact.add([entry("V", "t", VALUE.encode(), hasher=Hasher(KEY), fingerprint_key=KEY)])
    policy = load_policy(POLICY.replace("ACTIONS", actions), "recorded.yaml")
    rules = parse_rules(RULES, "rules.toml")
    return Pipeline(
        session=SessionCounter(started_ns=1, claims=Claims()),
        snapshot=build_snapshot(policy, rules, fingerprint_key=KEY, serial=1, exact=exact),
        journal=Kept(),
        identity=Identity(principal_id="p", agent_id="a", agent_type="t", session_id="s"),
        scan=ScanLimits(),
        wall_ns=time.time_ns,
        monotonic_ns=time.monotonic_ns,
    )


def request(pipeline: Pipeline, path: str, host: str = "one.test", agent: str = "x") -> bool:
    event = EgressRequest(
        event_id="", time_ns=0, principal=pipeline.principal("127.0.0.1"), scheme="http",
        method="GET", host=parse_host(host), port=80, target=path, path=path, query="",
        headers=((b"host", host.encode()), (b"user-agent", agent.encode())),
        http_version="1.1", content_length=None,
    )  # fmt: skip
    exchange = pipeline.request(event, None)
    exchange.end(Ending(status=200))
    return exchange.denial is None


def connect(pipeline: Pipeline, host: str) -> bool:
    exchange = pipeline.connect(pipeline.principal("127.0.0.1"), parse_host(host), 443)
    exchange.end(Ending(status=200))
    return exchange.denial is None


def query(pipeline: Pipeline, host: str) -> bool:
    exchange = pipeline.query(pipeline.principal("127.0.0.1"), parse_host(host), "A")
    exchange.end(Ending())
    return exchange.denial is None


def halves(secret: str) -> Iterator[str]:
    for shown in (secret, secret.lower()):
        yield from (shown[: len(shown) // 2], shown[len(shown) // 2 :])


def check(pipeline: Pipeline, secret: str) -> list[Record]:
    records = pipeline._journal.records
    assert records
    assert [half for half in halves(secret) if half in repr(records)] == []
    return records


Try = Callable[[Pipeline, str], bool]
TRIES: dict[str, Try] = {
    "path": lambda p, s: request(p, f"/a/{s}/b"),
    "agent": lambda p, s: request(p, "/", agent=f"me {s}"),
    "host": lambda p, s: request(p, "/", host=f"{s}.one.test".replace("_", "-")),
    "connect": lambda p, s: connect(p, f"{s}.one.test".replace("_", "-")),
    "labels": lambda p, s: connect(p, f"{s[:20]}.{s[20:]}.one.test".replace("_", "-")),
    "name": lambda p, s: query(p, f"{s}.one.test".replace("_", "-")),
    "named labels": lambda p, s: query(p, f"{s[:20]}.{s[20:]}.one.test".replace("_", "-")),
}


@pytest.mark.parametrize("place", TRIES)
def test_what_is_recorded_and_let_pass_is_in_no_record_of_the_decision_or_the_outcome(place):
    pipeline = pipeline_of(RECORD)
    assert TRIES[place](pipeline, VALUE)
    records = check(pipeline, VALUE)
    assert len(records) == 2
    assert records[0].findings
    if place == "path":
        assert TRIES[place](pipeline, TOKEN)
        check(pipeline, TOKEN)


@pytest.mark.parametrize("place", TRIES)
def test_what_is_refused_is_in_no_record(place):
    pipeline = pipeline_of("[]")
    assert not TRIES[place](pipeline, VALUE)
    (record,) = check(pipeline, VALUE)
    assert record.findings
    assert record.target_host.endswith("one.test")


@pytest.mark.parametrize("kept", range(8, 36, 9))
@pytest.mark.parametrize("secret", [TOKEN, VALUE], ids=["rule", "registered"])
def test_a_text_that_was_cut_does_not_end_in_the_first_half_of_a_secret(secret, kept):
    pipeline = pipeline_of("[]")
    principal = pipeline.principal("127.0.0.1")
    line = "x" * (1_023 - kept) + secret
    pipeline.malformed(principal, InputError(line), line)
    request(pipeline, f"/{line[1:]}", host="elsewhere.test")
    for record in pipeline._journal.records:
        assert secret[:8] not in repr(record)


def test_the_last_piece_of_a_secret_is_in_no_record():
    pipeline = pipeline_of("[]")
    assert request(pipeline, f"/p/{VALUE[:20]}")
    assert not request(pipeline, f"/p/{VALUE[20:]}")
    assert VALUE[20:] not in repr(pipeline._journal.records)
    assert pipeline._journal.records[-1].reason == Reason.SECRET_FOUND.value


def test_a_record_that_cannot_be_looked_at_quotes_nothing(monkeypatch):
    pipeline = pipeline_of(RECORD)

    def fail(*_: object) -> None:
        raise OSError

    monkeypatch.setattr("aesp_proxy.daemon.pipeline.scrubbed", fail)
    assert not request(pipeline, f"/a/{VALUE}")
    assert pipeline._journal.records == []
