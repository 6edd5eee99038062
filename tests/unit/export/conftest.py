"""Records of every sort, and what an attacker would write into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from aesp_proxy import keys
from aesp_proxy.aggregator.export.event import ExportEvent
from aesp_proxy.model.decision import Finding, Severity
from aesp_proxy.model.record import Outcome, Record, RecordId, RecordKind

START_NS = 1_800_000_000_123_456_789


def plain_record(**changes: Any) -> Record:
    return replace(
        Record(
            kind=RecordKind.DECISION,
            time_ns=START_NS,
            event_type="policy_violation",
            action="http.post",
            outcome=Outcome.DENIED,
            verdict="deny",
            reason="secret_found",
            guard="secret_leak",
            severity="critical",
            message="a secret stands in the body",
            resource="https://api.example.test:443/v1/chat",
            target_type="network",
            target_host="api.example.test",
            target_port=443,
            target_path="/v1/chat",
            principal_id="alice",
            tenant_id="acme",
            session_id="s-1",
            agent_id="agent-7",
            agent_type="coder",
            source_ip="10.1.2.3",
            user_agent="curl/8",
            policy_name="baseline",
            policy_hash="ab" * 32,
            policy_source="policy.yaml:12",
            policy_violations=("secret_found",),
            applied_policies=("baseline", "rule-1"),
            findings=(
                Finding(
                    rule="aws-access-key",
                    severity=Severity.CRITICAL,
                    location="body",
                    offset=12,
                    masked="AKIA****",
                    fingerprint="00ff",
                ),
            ),
            event_id="e-1",
            metadata=(("uid", "1000"),),
        ),
        **changes,
    )


def outcome_record(**changes: Any) -> Record:
    return plain_record(
        kind=RecordKind.OUTCOME,
        event_type="data_access",
        outcome=Outcome.SUCCESS,
        verdict="allow",
        reason="allowed",
        severity="info",
        findings=(),
        policy_violations=(),
        correlates_seq=6,
        status=200,
        bytes_out=10,
        bytes_in=2000,
        duration_us=12_345,
        upstream_address="[2001:db8::1]:443",
        **changes,
    )


FILE = {"resource": "/etc/passwd", "target_host": "", "target_port": 0, "target_type": "file"}
SORTS: dict[str, Record] = {
    "http": plain_record(),
    "http_patch": plain_record(action="http.patch"),
    "http_outcome": outcome_record(),
    "tcp": plain_record(action="tcp.connect", resource="h.test:22", target_path="", target_port=22),
    "tcp_address": plain_record(action="tcp.connect", target_host="192.0.2.7", target_path=""),
    "tcp_unnamed": plain_record(action="tcp.connect", target_host="", resource="", target_port=0),
    "dns": plain_record(
        action="dns.query",
        target_type="name",
        target_port=0,
        target_path="A",
        resource="dns:api.example.test?type=A",
    ),
    **{
        f"file_{verb}": plain_record(action=f"file.{verb}", target_path="/etc/passwd", **FILE)
        for verb in ("open", "write", "create", "delete", "rename", "exec", "unheard_of")
    },
    "tool": plain_record(action="tool.call", target_type="tool", target_path="run", target_port=0),
    "custom": plain_record(action="custom", target_type="custom", target_path="x", target_host=""),
    **{
        f"verdict_{word}": plain_record(verdict=word)
        for word in ("allow", "audit", "redact", "ask")
    },
    "bare": Record(
        kind=RecordKind.LIFECYCLE,
        time_ns=START_NS,
        event_type="policy.reloaded",
        action="policy.reload",
        outcome=Outcome.SUCCESS,
        verdict="",
        reason="",
        guard="",
        severity="info",
        message="",
        resource="",
    ),
    "bare_http": Record(
        kind=RecordKind.DECISION,
        time_ns=0,
        event_type="",
        action="http.",
        outcome=Outcome.DENIED,
        verdict="deny",
        reason="malformed",
        guard="",
        severity="",
        message="",
        resource="",
    ),
}


@pytest.fixture
def new_event() -> Callable[..., ExportEvent]:
    def make(record: Record | None = None, *, seq: int = 7, **changes: Any) -> ExportEvent:
        return ExportEvent(
            record=plain_record(**changes) if record is None else record,
            record_id=RecordId(origin="h-one", epoch=3, seq=seq),
            batch_no=5,
            position=9,
            row=2,
            region="eu-west",
        )

    return make


@pytest.fixture(params=sorted(SORTS))
def sort(request: pytest.FixtureRequest) -> Record:
    return SORTS[request.param]


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tls")
    now = datetime.now(UTC)
    found = {}
    for name in ("right", "wrong"):
        cert, key = keys.make_ca(name, now=now)
        (root / f"{name}.pem").write_bytes(cert)
        (root / f"{name}.key").write_bytes(key)
        (root / f"{name}.key").chmod(0o600)
        pair = keys.load_pair(root / f"{name}.pem", root / f"{name}.key", now=now, is_ca=True)
        leaf, leaf_key = keys.issue_leaf(
            pair, ("127.0.0.1", "receiver.test"), purpose=keys.Purpose.SERVER, now=now, days=2
        )
        (root / f"{name}-server.pem").write_bytes(leaf + leaf_key)
        found[name] = root / f"{name}.pem"
        found[f"{name}_server"] = root / f"{name}-server.pem"
    return found
