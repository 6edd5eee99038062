"""Every change of a stage is decided and recorded before anything is published."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from aesp_proxy.daemon.staging import Vetting
from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.decide.protected import protects
from aesp_proxy.decide.secrets.rules import parse_rules
from aesp_proxy.decide.snapshot import build_snapshot
from aesp_proxy.errors import RecordError
from aesp_proxy.intercept.stage.stage import Stage, make_stage
from aesp_proxy.intercept.stage.survey import survey
from aesp_proxy.model.principal import Principal
from aesp_proxy.model.record import Record, RecordId
from aesp_proxy.normalize.patch_of import patch_of

POLICY = """\
version: "1.2.0"
name: files
guards:
  forbidden_path: {enabled: true, patterns: ["**/.env", "**/secret/**"]}
  secret_leak: {enabled: true}
  patch_integrity: {enabled: true, max_additions: 50, max_deletions: 50}
"""
RULES = """\
[[rules]]
id = "token"
description = "a token"
regex = '''tok_[a-z]{12}'''
keywords = ["tok_"]
severity = "critical"
"""
HOOK = "/home/u/p/.git/hooks/pre-commit"
CONFIG = "/home/u/p/.git/config"


class Recorded:
    def __init__(self) -> None:
        self.records: list[Record] = []

    def append(self, record: Record) -> RecordId:
        self.records.append(record)
        return RecordId(origin="h", epoch=1, seq=len(self.records))


class Full:
    def append(self, record: Record) -> RecordId:
        raise RecordError("the disk is full")


@pytest.fixture(scope="module")
def snapshot():
    rules = parse_rules(RULES, "rules.toml")
    return build_snapshot(load_policy(POLICY, "p.yaml"), rules, fingerprint_key=b"k" * 32, serial=1)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    tree = tmp_path / "tree"
    (tree / "old").mkdir(parents=True)
    (tree / "old" / ".env").write_text("x")
    (tree / "main.py").write_text("print(1)\n")
    found = survey(tree, lambda path: path.endswith(".env"), entries_max=100)
    return make_stage(
        tmp_path / "stage", [found], session_id="s", command="c", began_ns=time.time_ns()
    )


def vet(stage: Stage, snapshot, journal, **more) -> dict[str, str]:
    who = Principal(principal_id="p", agent_id="a", agent_type="t", session_id="s")
    vetting = Vetting(
        snapshot=snapshot,
        journal=journal,
        principal=who,
        now_ns=time.time_ns,
        content_bytes_max=more.pop("content_bytes_max", 1_000_000),
    )
    return {each.change.name: each.decision.reason.value for each in vetting.vet(stage)}


def test_each_change_is_decided_and_recorded(stage, snapshot, tmp_path):
    upper = stage.trees[0].upper
    (upper / "main.py").write_text("print(2)\n")
    (upper / "leak.txt").write_text("tok_abcdefghijkl")
    (upper / ".env").write_text("x")
    (upper / "tok_mnopqrstuvwx.txt").write_text("x")
    (upper / "link").symlink_to("secret/key")
    (upper / "out").symlink_to("/somewhere/secret/key")
    (upper / "long.txt").write_text("line\n" * 60)
    os.mkfifo(upper / "pipe")
    journal = Recorded()
    assert vet(stage, snapshot, journal) == {
        ".env": "path_forbidden",
        "leak.txt": "secret_found",
        "link": "path_forbidden",
        "long.txt": "patch_too_large",
        "main.py": "allowed",
        "out": "path_forbidden",
        "pipe": "unsupported",
        "tok_mnopqrstuvwx.txt": "secret_found",
    }
    told = {Path(record.target_path).name: record.verdict for record in journal.records}
    assert told["main.py"] == "allow"
    assert told["leak.txt"] == "deny"
    assert {record.action for record in journal.records} == {"file.create", "file.write"}
    assert "tok_abcdefghijkl" not in repr(journal.records)
    assert "tok_mnopqrstuvwx" not in repr(journal.records)


def test_what_cannot_be_recorded_is_not_vetted(stage, snapshot):
    (stage.trees[0].upper / "main.py").write_text("print(2)\n")
    with pytest.raises(RecordError):
        vet(stage, snapshot, Full())


def test_a_file_too_large_to_read_is_refused(stage, snapshot):
    (stage.trees[0].upper / "big").write_bytes(b"x" * 2_000)
    reasons = vet(stage, snapshot, Recorded(), content_bytes_max=1_000)
    assert reasons == {"big": "limit_exceeded"}


def test_a_directory_is_not_removed_with_what_was_hidden_in_it(stage, snapshot):
    upper = stage.trees[0].upper
    (upper / "old" / ".env").unlink()
    (upper / "old").rmdir()
    os.mknod(upper / "old", 0o020000, os.makedev(0, 0))
    assert vet(stage, snapshot, Recorded()) == {"old": "path_forbidden"}


@pytest.mark.parametrize(
    "path",
    [
        HOOK,
        "/home/u/p/.GIT/HOOKS/post-merge",
        "/home/u/p/.git/modules/sub/hooks/update",
        "/home/u/p/.claude/settings.local.json",
        "/home/u/.bashrc",
        "/home/u/.ssh/authorized_keys",
        "/home/u/p/.vscode/tasks.json",
        "/etc/cron.d/x",
    ],
)
def test_what_others_run_is_protected(path):
    assert protects(path, b"", b"x")


@pytest.mark.parametrize(
    "line",
    [
        "[core]\n\tfsmonitor = ./evil",
        "[core]\n\thooksPath = /tmp",
        '[filter "x"]\n\tclean = evil',
        '[alias]\n\tst = "!evil"',
        "[include]\n\tpath = ../evil",
        '[includeIf "gitdir:x"]\n\tpath = e',
        "[core] sshCommand = evil",
        "[core]\n\tbare = fal\\\nse",
        "[credential]\n helper = !evil",
        '[diff "x"]\n textconv = evil',
    ],
)
def test_a_program_in_gits_configuration_is_protected(line):
    assert protects(
        CONFIG, b"[core]\n\tbare = false\n", f"[core]\n\tbare = false\n{line}\n".encode()
    )


def test_what_git_itself_changes_is_not_protected():
    before = b"[core]\n\tbare = false\n\tfsmonitor = ours\n"
    after = (
        before + b'[remote "origin"]\n\turl = https://a/b\n[branch "x"]\n\tmerge = refs/heads/x\n'
    )
    assert protects(CONFIG, before, after) == ""
    assert protects(HOOK + ".sample", b"", b"#!/bin/sh") == ""
    assert protects("/home/u/p/src/hooks/x.py", b"", b"") == ""


def test_a_patch_says_what_is_added_and_removed_and_never_less():
    assert patch_of("a", b"1\n2\n", b"1\n3\n") == (
        b"--- a/a\n+++ b/a\n@@ -1,2 +1,2 @@\n 1\n-2\n+3\n"
    )
    assert patch_of("a", b"", b"\0") == b"Binary files a/a and b/a differ\n"
    large = patch_of("a", b"x\n" * 15_000, b"x\n" * 15_000)
    assert large.count(b"\n+x") == 15_000
