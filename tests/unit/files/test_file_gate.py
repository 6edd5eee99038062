"""What every backend for files is answered, and what is in the record before it is."""

from __future__ import annotations

import errno
import gzip

import pytest
from file_lab import TOKEN, TOKEN_RULES, Recorded, file_gate, file_judge, files_snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from aesp_proxy.daemon.file_gate import JudgedFileGate
from aesp_proxy.daemon.file_judge import Strictness
from aesp_proxy.decide.engine import decide
from aesp_proxy.intercept.file_port import Actor
from aesp_proxy.model.decision import Reason
from aesp_proxy.model.event import FileOperation as Op
from aesp_proxy.model.record import Outcome
from aesp_proxy.record.canonical import pack_row

SECRET = TOKEN.encode()
HOOK = "/w/.git/hooks/pre-commit"


@pytest.fixture(scope="module")
def snapshot():
    return files_snapshot()


@pytest.fixture
def journal() -> Recorded:
    return Recorded()


@pytest.mark.parametrize(
    ("path", "hidden"),
    [
        ("/w/.env", True),
        ("/w/.ENV", True),
        ("/w/secret", True),
        ("/w/secret/deep/x", True),
        ("/w/secret/readme.txt", False),
        ("/w/cafe\u0301.key", True),
        ("/w/main.py", False),
        ("/w/\udcff\udcfe", False),
    ],
)
def test_hidden_is_what_nothing_may_open_and_nothing_is_recorded(snapshot, journal, path, hidden):
    gate = file_gate(snapshot, journal)
    assert [gate.hides(path), gate.hides(path)] == [hidden, hidden]
    assert journal.records == []


def test_an_allowed_access_is_recorded_once_until_the_policy_is_another(snapshot, journal):
    gate = file_gate(snapshot, journal)
    for _ in range(3):
        assert gate.refuse_access(Op.OPEN, "/w/a", "/w/a", Actor(7, None)) is None
    assert [(r.action, r.target_path) for r in journal.records] == [("file.open", "/w/a")]
    assert ("pid", "7") in journal.records[0].metadata
    before = gate.generation
    gate.swap(file_judge(snapshot))
    assert gate.refuse_access(Op.OPEN, "/w/a", "/w/a") is None
    assert len(journal.records) == 2
    assert gate.generation > before


def test_a_refused_access_is_recorded_each_time_and_the_object_counts(snapshot, journal):
    gate = file_gate(snapshot, journal)
    for _ in range(2):
        denial = gate.refuse_access(Op.OPEN, "/w/innocent", "/w/.env")
        assert denial is not None
        assert denial.errno == errno.EACCES
        assert denial.denial.decision.reason is Reason.PATH_FORBIDDEN
    assert [record.outcome for record in journal.records] == [Outcome.DENIED] * 2


def test_decisions_are_counted_by_operation_and_verdict_as_they_are_recorded(snapshot, journal):
    gate = file_gate(snapshot, journal)
    for _ in range(2):
        gate.refuse_access(Op.OPEN, "/w/a", "/w/a")
        gate.refuse_access(Op.WRITE, "/w/.env", "/w/.env")
    journal.full = True
    gate.refuse_access(Op.DELETE, "/w/b", "/w/b")
    told = gate.tally.figures()
    assert told["decisions"] == {"file.open": {"allow": 1}, "file.write": {"deny": 2}}
    assert told["refusals"] == {"path_forbidden": 2}
    assert told["unrecorded"] == 1
    assert len(journal.records) == 3


@pytest.mark.parametrize("operation", [Op.CREATE, Op.WRITE, Op.DELETE, Op.RENAME])
def test_what_others_run_is_not_written_whatever_the_policy_says(snapshot, operation):
    gate = file_gate(snapshot)
    assert gate.refuse_access(operation, HOOK, HOOK) is not None
    assert gate.refuse_access(Op.OPEN, HOOK, HOOK) is None


def test_an_empty_directory_may_have_the_name_of_what_others_run(snapshot):
    gate = file_gate(snapshot)
    hooks = "/w/.git/hooks"
    assert gate.refuse_access(Op.CREATE, hooks, hooks, is_directory=True) is None
    assert gate.refuse_access(Op.DELETE, hooks, hooks, is_directory=True) is None
    assert gate.refuse_access(Op.RENAME, hooks, hooks, is_directory=True) is not None
    assert gate.refuse_access(Op.CREATE, hooks, hooks) is not None


def test_a_secret_in_a_file_that_is_opened_is_told_and_refuses_where_that_is_asked(
    snapshot, journal
):
    noting = file_gate(snapshot, journal)
    assert noting.refuse_reading("/w/a", "/w/a", SECRET, 16) is None
    (record,) = journal.records
    assert (record.verdict, record.findings[0].rule) == ("audit", "token")
    assert record.metadata == (("labels", "secret"), ("size", "16"))
    assert TOKEN not in repr(record)
    assert noting.refuse_reading("/w/a", "/w/a", b"clean", 5) is None
    assert len(journal.records) == 1
    refusing = file_gate(snapshot, reading_refuses=True)
    denial = refusing.refuse_reading("/w/a", "/w/a", SECRET, 16)
    assert denial is not None
    assert denial.errno == errno.EPERM
    assert refusing.refuse_reading("/w/big", "/w/big", None, 1 << 40) is not None


@pytest.mark.parametrize(
    ("path", "before", "after", "errno_"),
    [
        ("/w/a", None, b"x\n", None),
        ("/w/a", b"", b"y\n", None),
        ("/w/a", None, SECRET, errno.EPERM),
        ("/w/a", b"x\n" * 60, b"", errno.EFBIG),
        ("/w/a", None, None, errno.EFBIG),
        ("/w/.env", None, b"", errno.EACCES),
        (HOOK, None, b"#!/bin/sh\n", errno.EACCES),
        ("/w/.git/config", b"[core]\n", b"[core]\n\tbare = false\n", None),
        ("/w/.git/config", b"[core]\n", b"[core]\n\tfsmonitor = ./x\n", errno.EACCES),
    ],
    ids=range(9),
)
def test_a_write_is_decided_by_what_it_would_leave(snapshot, path, before, after, errno_):
    gate = file_gate(snapshot)
    size = 1 << 40 if after is None else len(after)
    denial = gate.refuse_writing(path, path, before, after, size)
    assert (denial.errno if denial else None) == errno_


def test_what_cannot_be_recorded_is_refused(snapshot, journal):
    gate = file_gate(snapshot, journal)
    journal.full = True
    for denial in (
        gate.refuse_access(Op.OPEN, "/w/a", "/w/a"),
        gate.refuse_writing("/w/a", "/w/a", None, b"", 0),
        gate.refuse_reading("/w/a", "/w/a", SECRET, 16),
        gate.refuse_unsupported("/w/a", "what nobody knows"),
    ):
        assert denial is not None
        assert denial.errno == errno.EIO
    journal.full = False
    assert gate.refuse_access(Op.OPEN, "/w/a", "/w/a") is None


def test_a_decision_that_fails_refuses_and_hides(snapshot, monkeypatch):
    gate = file_gate(snapshot)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("aesp_proxy.daemon.file_gate.decide", fail)
    monkeypatch.setattr("aesp_proxy.daemon.file_judge.decide", fail)
    assert gate.hides("/w/secret/readme.txt")
    denial = gate.refuse_access(Op.OPEN, "/w/a", "/w/a")
    assert denial is not None
    assert denial.errno == errno.EIO


def test_a_refusal_quotes_no_secret(snapshot, journal):
    gate = file_gate(snapshot, journal)
    path = f"/w/{TOKEN}/.env"
    assert gate.refuse_access(Op.OPEN, path, path) is not None
    assert TOKEN not in repr(journal.records)


def test_the_name_of_a_file_that_may_be_opened_quotes_no_secret(snapshot, journal):
    gate = file_gate(snapshot, journal)
    path = f"/w/notes/{TOKEN}.txt"
    assert gate.refuse_access(Op.OPEN, path, path) is None
    (record,) = journal.records
    assert record.resource.startswith("/w/notes/***")
    assert TOKEN[4:12] not in repr(record)


NO_GUARD = 'version: "1.2.0"\nname: p\nguards:\n  secret_leak: {enabled: false}\n'
POLICIES = [
    "  forbidden_path: {patterns: ['**/a', '/w/b*/**'], exceptions: ['/w/bc/**']}\n",
    "  forbidden_path: {patterns: ['**/a']}\n  path_allowlist: {file_access_allow: ['/w/**']}\n",
    "  path_allowlist: {file_access_allow: ['/w/b*/**']}\n",
    (
        "  forbidden_path: {patterns: ['**/a']}\nrules:\n"
        "  - {policy_id: r, applies_to: ['file:**/c'], rule: {condition: 'true', effect: DENY}}\n"
    ),
    "",
]


@settings(max_examples=60)
@given(names=st.lists(st.sampled_from(["a", "A", "b", "bc", "c", "w", "\udcff"]), max_size=4))
@pytest.mark.parametrize("number", range(len(POLICIES)))
def test_what_is_hidden_is_what_the_engine_refuses_to_open(gates, number, names):
    path = "/" + "/".join(["w", *names])
    gate = gates[number]
    snapshot = gate._judge.snapshot
    assert (
        gate.hides(path)
        is not decide(gate._judge.event(Op.OPEN, path, path), snapshot).verdict.passes
    )


@pytest.fixture(scope="module")
def gates():
    return [file_gate(files_snapshot(NO_GUARD + text)) for text in POLICIES]


def test_content_is_labelled_by_the_tags_of_what_is_found_in_it(journal):
    rules = TOKEN_RULES.replace('severity = "critical"', 'severity = "critical"\ntags = ["phi"]')
    gate = file_gate(files_snapshot(rules=rules), journal)
    assert gate.refuse_reading("/w/a", "/w/a", SECRET, 16) is None
    assert ("labels", "phi") in journal.records[0].metadata


LETS_BE = Strictness(notes_secrets=True, takes_new_files_of_any_size=True)


@pytest.mark.parametrize(
    ("before", "after", "passes"),
    [
        (None, SECRET, True),
        (b"x\n", SECRET + b"\n", True),
        (None, b"x\n" * 60, True),
        (b"", b"x\n" * 60, False),
    ],
    ids=["new, with a secret", "changed, with a secret", "new and large", "changed, and large"],
)
def test_a_live_view_lets_be_what_does_not_leave_and_what_installers_unpack(
    snapshot, journal, before, after, passes
):
    gate = JudgedFileGate(file_judge(snapshot, written=LETS_BE), journal, reading_refuses=False)
    denial = gate.refuse_writing("/w/a", "/w/a", before, after, len(after))
    assert (denial is None) is passes
    assert bool(journal.records[-1].findings) is (SECRET in after)


@pytest.mark.parametrize(
    "name",
    ["/t/caf\udcff", "/t/\udc80/.env", "/t/caf\u00e9 \udcff\n.txt"],
    ids=["end", "below", "both"],
)
def test_a_name_that_is_no_utf_8_is_recorded_as_a_journal_takes_it(name):
    journal = Recorded()
    gate = file_gate(journal=journal)
    gate.refuse_access(Op.OPEN, name, name)
    gate.note_done(Op.CREATE, name, name, size=1)
    assert len(journal.records) == 2
    for record in journal.records:
        assert pack_row(record, "host", 1, 1)
        assert "\\x" in record.target_path


BOMB = gzip.compress(bytes(66 << 20), 1)


def test_what_cannot_be_looked_through_is_told_where_secrets_are_and_else_refuses(
    snapshot, journal
):
    lets_be = JudgedFileGate(file_judge(snapshot, written=LETS_BE), journal, reading_refuses=False)
    assert lets_be.refuse_reading("/w/a.gz", "/w/a.gz", BOMB, len(BOMB)) is None
    assert lets_be.refuse_writing("/w/a.gz", "/w/a.gz", None, BOMB, len(BOMB)) is None
    assert [record.reason for record in journal.records] == ["unscannable"] * 2
    strict = file_gate(snapshot, reading_refuses=True)
    assert strict.refuse_reading("/w/a.gz", "/w/a.gz", BOMB, len(BOMB)) is not None
    assert strict.refuse_writing("/w/a.gz", "/w/a.gz", None, BOMB, len(BOMB)) is not None


WORKING_HOURS = """\
  forbidden_path: {patterns: ['/x']}
rules:
  - policy_id: hours
    applies_to: ['file:**/a']
    rule: {condition: "request.time > timestamp('2026-01-01T18:00:00Z')", effect: DENY}
"""
BEFORE, AFTER = 1_767_290_000 * 10**9, 1_767_290_400 * 10**9  # 17:53:20 and 18:00:00, UTC


def test_what_a_rule_allows_for_a_time_is_asked_again_and_told_once(journal):
    judge = file_judge(files_snapshot(NO_GUARD + WORKING_HOURS))
    gate = JudgedFileGate(judge, journal, reading_refuses=False)
    judge._now_ns = lambda: BEFORE
    for _ in range(2):
        assert gate.refuse_access(Op.OPEN, "/w/a", "/w/a") is None
    assert not gate.hides("/w/a")
    assert len(journal.records) == 1
    judge._now_ns = lambda: AFTER + 1
    assert gate.refuse_access(Op.OPEN, "/w/a", "/w/a") is not None
    assert gate.hides("/w/a")
    assert gate.generation > file_gate(files_snapshot()).generation
