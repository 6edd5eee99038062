"""Labels on their way from the file guard to the proxy: in time, once, and unknown in doubt."""

from __future__ import annotations

import errno

import pytest
from file_lab import TOKEN, Recorded, file_judge, files_snapshot

from aesp_proxy.daemon.file_gate import JudgedFileGate
from aesp_proxy.daemon.file_judge import UNREAD
from aesp_proxy.daemon.session_labels import LabelsHeard, LabelsTold, label_channel


@pytest.fixture
def ends():
    tells, hears = label_channel()
    with tells, hears:
        yield tells, hears


def test_what_was_told_is_heard_at_once_and_told_once(ends):
    told, heard = LabelsTold(ends[0]), LabelsHeard(ends[1])
    assert heard.now() == ()
    assert told.tell(("secret", "phi"))
    assert told.tell(("phi",))
    assert heard.now() == ("phi", "secret")
    assert told.tell(())
    assert heard.now() == ("phi", "secret")


def test_what_nobody_looked_at_makes_labels_unknown_for_good(ends):
    told, heard = LabelsTold(ends[0]), LabelsHeard(ends[1])
    assert told.tell(None)
    assert told.tell(("phi",))
    assert heard.now() is None
    assert heard.now() is None


def test_the_end_of_the_guard_makes_labels_unknown(ends):
    told, heard = LabelsTold(ends[0]), LabelsHeard(ends[1])
    assert told.tell(("phi",))
    assert heard.now() == ("phi",)
    ends[0].close()
    assert heard.now() is None


@pytest.mark.parametrize("data", [b"{", b"\xff", b"7", b"[]", b""], ids=repr)
def test_what_cannot_be_read_makes_labels_unknown(ends, data):
    heard = LabelsHeard(ends[1])
    ends[0].send(data)
    assert heard.now() is None


def test_a_proxy_that_is_gone_or_hears_nothing_cannot_be_told(ends):
    told = LabelsTold(ends[0])
    numbers = iter(range(1_000_000))
    while told.tell((f"label {next(numbers)}",)):
        pass
    assert not told.tell(("phi",))
    ends[1].close()
    assert not told.tell(("phi",))


def gate(tell, journal, **options) -> JudgedFileGate:
    judge = file_judge(files_snapshot(**options))
    return JudgedFileGate(judge, journal, reading_refuses=False, tell_labels=tell)


def test_a_file_is_not_opened_when_its_labels_cannot_be_told():
    journal = Recorded()
    denial = gate(lambda labels: not labels, journal).refuse_reading("/a", "/a", TOKEN.encode(), 16)
    assert denial is not None
    assert denial.errno == errno.EIO
    assert journal.records[-1].reason == "interceptor_failed"
    assert gate(lambda labels: not labels, journal).refuse_reading("/a", "/a", b"plain", 5) is None


def test_what_is_too_big_to_be_looked_at_has_a_label_of_its_own():
    told = []
    asked = gate(lambda labels: told.append(labels) or True, Recorded())
    assert asked.refuse_reading("/a", "/a", None, 1 << 40) is None
    assert asked.refuse_reading("/a", "/a", TOKEN.encode(), 16) is None
    assert told == [(UNREAD,), ("secret",)]


def test_where_nothing_is_looked_for_the_labels_are_not_known():
    told = []
    policy = 'version: "1.2.0"\nname: n\nguards: {forbidden_path: {patterns: ["**/.env"]}}\n'
    policy = policy.replace("]}}", "]}, secret_leak: {enabled: false}}")
    asked = gate(lambda labels: told.append(labels) or True, Recorded(), policy=policy)
    assert asked.refuse_reading("/a", "/a", b"x", 1) is None
    assert told == [None]
