"""A gate for files over a policy in a few lines, with the records in memory."""

from __future__ import annotations

import time

from aesp_proxy.daemon.file_gate import JudgedFileGate
from aesp_proxy.daemon.file_judge import STRICT, FileJudge, Strictness
from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.decide.secrets.rules import parse_rules
from aesp_proxy.decide.snapshot import Snapshot, build_snapshot
from aesp_proxy.errors import RecordError
from aesp_proxy.model.principal import Principal
from aesp_proxy.model.record import Record, RecordId

FILES_POLICY = """\
version: "1.2.0"
name: files
guards:
  forbidden_path:
    enabled: true
    patterns: ["**/.env", "**/secret/**", "**/.ssh/**", "**/caf\\u00e9.key"]
    exceptions: ["**/secret/readme.txt"]
  secret_leak: {enabled: true}
  patch_integrity: {enabled: true, max_additions: 50, max_deletions: 50}
"""
TOKEN_RULES = """\
[[rules]]
id = "token"
description = "a token"
regex = '''tok_[a-z]{12}'''
keywords = ["tok_"]
severity = "critical"
"""
TOKEN = "tok_" + "abcdefghijkl"
AGENT = Principal(principal_id="p", agent_id="a", agent_type="t", session_id="s")


class Recorded:
    """A journal that keeps its records, and fails from the moment that it is ``full``."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.full = False

    def append(self, record: Record) -> RecordId:
        if self.full:
            raise RecordError("the disk is full")
        self.records.append(record)
        return RecordId(origin="h", epoch=1, seq=len(self.records))


def files_snapshot(policy: str = FILES_POLICY, rules: str = TOKEN_RULES) -> Snapshot:
    """Compile a policy with one kind of secret."""
    parsed = parse_rules(rules, "rules.toml")
    loaded = load_policy(policy, "p.yaml")
    return build_snapshot(loaded, parsed, fingerprint_key=b"k" * 32, serial=1)


def file_judge(
    snapshot: Snapshot, *, content_bytes_max: int = 1 << 20, written: Strictness = STRICT
) -> FileJudge:
    """Make a judge of this snapshot."""
    return FileJudge(
        snapshot=snapshot,
        principal=AGENT,
        now_ns=time.time_ns,
        content_bytes_max=content_bytes_max,
        guard="files",
        written=written,
    )


def file_gate(
    snapshot: Snapshot | None = None,
    journal: Recorded | None = None,
    *,
    reading_refuses: bool = False,
    content_bytes_max: int = 1 << 20,
) -> JudgedFileGate:
    """Make a gate as a backend is given one."""
    judge = file_judge(snapshot or files_snapshot(), content_bytes_max=content_bytes_max)
    return JudgedFileGate(judge, journal or Recorded(), reading_refuses=reading_refuses)
