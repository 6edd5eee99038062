"""What the tests of guards and engine share: snapshots from text, and events."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.rules import rule_from_policy
from aesp_proxy.decide.snapshot import Snapshot, build_snapshot
from aesp_proxy.model.decision import Severity
from aesp_proxy.model.event import (
    EgressConnect,
    EgressRequest,
    FileAccess,
    FileOperation,
    NetworkAccess,
    PatchApply,
    ToolCall,
)
from aesp_proxy.model.host import parse_host
from aesp_proxy.model.principal import Principal

PRINCIPAL = Principal(principal_id="p", agent_id="a", agent_type="t", session_id="s")
COMMON = {"event_id": "e", "time_ns": 1, "principal": PRINCIPAL}


class Events:
    """Makes events of each kind with only what a test is about."""

    @staticmethod
    def request(host: str, port: int = 443, **fields: object) -> EgressRequest:
        given = {
            "scheme": "https",
            "method": "GET",
            "target": "/",
            "path": "/",
            "query": "",
            "headers": (),
            "http_version": "1.1",
        }
        return EgressRequest(**COMMON, host=parse_host(host), port=port, **{**given, **fields})  # type: ignore[arg-type]

    @staticmethod
    def connect(host: str, port: int = 443) -> EgressConnect:
        return EgressConnect(**COMMON, host=parse_host(host), port=port)  # type: ignore[arg-type]

    @staticmethod
    def network(host: str, port: int = 443, url: str = "") -> NetworkAccess:
        return NetworkAccess(**COMMON, host=parse_host(host), port=port, url=url)  # type: ignore[arg-type]

    @staticmethod
    def file(path: str, resolved: str = "", content: bytes | None = None) -> FileAccess:
        return FileAccess(
            **COMMON,  # type: ignore[arg-type]
            operation=FileOperation.OPEN,
            path=path,
            resolved=resolved or path,
            content=content,
        )

    @staticmethod
    def patch(path: str, patch: bytes = b"") -> PatchApply:
        return PatchApply(**COMMON, path=path, resolved=path, patch=patch)  # type: ignore[arg-type]

    @staticmethod
    def tool(name: str, server: str = "", arguments: bytes = b"{}") -> ToolCall:
        return ToolCall(**COMMON, server=server, name=name, arguments=arguments)  # type: ignore[arg-type]


@pytest.fixture
def events() -> type[Events]:
    return Events


@pytest.fixture(scope="session")
def pack_rules() -> tuple[Rule, ...]:
    """Two rules of the real scanner: one that refuses, one that is only worth a note."""
    return (
        rule_from_policy("test-key", "TESTKEY-[a-z0-9]{16}", Severity.CRITICAL, "a key"),
        rule_from_policy("test-hint", "TESTHINT-[a-z0-9]{8}", Severity.WARNING, "a hint"),
    )


@pytest.fixture
def snapshot_of(pack_rules: tuple[Rule, ...]) -> Callable[[str], Snapshot]:
    """Return a snapshot of the guards given as YAML, indented or not."""

    def build(guards: str, settings: str = "{}") -> Snapshot:
        body = "".join(f"  {line}\n" for line in guards.splitlines())
        text = f'version: "1.2.0"\nname: test\nguards:\n{body}settings: {settings}\n'
        if not guards:
            text = text.replace("guards:\n", "")
        return build_snapshot(
            load_policy(text, "p.yaml"), pack_rules, fingerprint_key=b"k" * 32, serial=7
        )

    return build
