"""Allowed paths: what no entry names is refused, under either of its names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aesp_proxy.decide.engine import decide
from aesp_proxy.decide.guards.path_allowlist import path_allowlist
from aesp_proxy.decide.policy.policy import PathAllowSection
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.model.decision import Reason, Verdict
from aesp_proxy.model.event import FileOperation


def section(access=(), write=(), patch=()) -> PathAllowSection:
    return PathAllowSection(
        source="p.yaml:4",
        access=tuple(Sourced(glob, "p.yaml:5") for glob in access),
        write=tuple(Sourced(glob, "p.yaml:6") for glob in write),
        patch=tuple(Sourced(glob, "p.yaml:7") for glob in patch),
    )


LISTS = section(["/r/**", "/both/**"], ["/w/**", "/both/**"], ["/p/**"])


@pytest.fixture
def snapshot(snapshot_of):
    """Return a snapshot with the one guard of paths, from its section."""

    def build(lists: PathAllowSection):
        return replace(snapshot_of(""), guards=(path_allowlist(lists),))

    return build


@pytest.mark.parametrize("operation", list(FileOperation))
@pytest.mark.parametrize("path", ["/r/a", "/w/a", "/both/a", "/p/a", "/other/a", "/R/a", "/"])
def test_reading_and_running_need_access_and_the_others_need_write(
    operation, path, events, snapshot
) -> None:
    reads = operation in (FileOperation.OPEN, FileOperation.EXEC)
    allowed = path in (("/r/a", "/both/a") if reads else ("/w/a", "/both/a"))
    decision = decide(replace(events.file(path), operation=operation), snapshot(LISTS))
    assert decision.guard == "path_allowlist"
    assert decision.verdict is (Verdict.ALLOW if allowed else Verdict.DENY)
    assert decision.reason is (Reason.ALLOWED if allowed else Reason.PATH_NOT_ALLOWED)


@pytest.mark.parametrize(
    ("path", "allowed"), [("/p/a", True), ("/p", True), ("/w/a", False), ("/r/a", False)]
)
def test_a_patch_needs_the_list_of_patches(path, allowed, events, snapshot) -> None:
    decision = decide(events.patch(path), snapshot(LISTS))
    assert decision.verdict is (Verdict.ALLOW if allowed else Verdict.DENY)


@pytest.mark.parametrize(
    ("given", "resolved", "allowed"),
    [
        ("/r/a", "/both/b", True),
        ("/r/link", "/etc/passwd", False),
        ("/tmp/link", "/r/a", False),
        ("/tmp/link", "/etc/passwd", False),
    ],
)
def test_a_link_is_no_way_around(given, resolved, allowed, events, snapshot) -> None:
    decision = decide(events.file(given, resolved), snapshot(LISTS))
    assert decision.verdict is (Verdict.ALLOW if allowed else Verdict.DENY)
    patch = replace(events.patch(given), resolved=resolved)
    assert decide(patch, snapshot(section(patch=["/r/**", "/both/**"]))).verdict is decision.verdict


def test_empty_lists_allow_nothing(events, snapshot) -> None:
    for event in (events.file("/r/a"), events.patch("/p/a")):
        assert decide(event, snapshot(section())).reason is Reason.PATH_NOT_ALLOWED


def test_other_events_are_not_its_business(events, snapshot) -> None:
    for event in (events.tool("x"), events.network("a.example")):
        assert decide(event, snapshot(LISTS)).reason is Reason.NO_GUARD


def test_a_refusal_is_for_want_of_an_entry_and_says_where_it_would_be_added(events) -> None:
    answer = path_allowlist(LISTS).check(events.file("/r/\x1b[2J", "/etc/passwd"))
    assert answer is not None
    assert answer.implicit
    assert answer.source == "p.yaml:4"
    assert answer.message == (
        "'/r/\\x1b[2J' is on no list of paths to read (it resolves to /etc/passwd)"
    )
    assert answer.remediation[1] == (
        "Ask the owner of p.yaml to add it under guards.path_allowlist.file_access_allow (line 4)."
    )


def test_an_answer_that_lets_pass_names_the_entry(events) -> None:
    answer = path_allowlist(LISTS).check(events.file("/r/a"))
    assert answer is not None
    assert (answer.verdict, answer.source) == (Verdict.ALLOW, "p.yaml:5")
    assert answer.message == "allowed by /r/**"


@pytest.mark.parametrize(
    ("stated", "read", "written", "patched"),
    [
        ("{}", False, False, False),
        ("{file_access_allow: []}", False, False, False),
        ("{file_access_allow: [/w/**]}", True, False, False),
        ("{file_write_allow: [/w/**]}", False, True, True),
        ("{file_write_allow: [/w/**], patch_allow: []}", False, True, False),
        ("{patch_allow: [/w/**]}", False, False, True),
        ("{file_access_allow: ['**'], file_write_allow: [/other/**]}", True, False, False),
    ],
)
def test_each_key_of_the_policy_stated_empty_or_left_out(
    stated, read, written, patched, events, snapshot_of
) -> None:
    snapshot = snapshot_of(f"path_allowlist: {stated}")
    write = replace(events.file("/w/a"), operation=FileOperation.WRITE)
    for event, passes in ((events.file("/w/a"), read), (write, written)):
        assert decide(event, snapshot).verdict.passes is passes
    assert decide(events.patch("/w/a"), snapshot).verdict.passes is patched


def test_switched_off_it_answers_nothing(events, snapshot_of) -> None:
    off = "path_allowlist: {enabled: false, file_access_allow: ['**']}"
    assert decide(events.file("/w/a"), snapshot_of(off)).reason is Reason.NO_GUARD
    beside = snapshot_of(f"{off}\nforbidden_path: {{}}")
    assert decide(events.file("/w/a"), beside).guard == "forbidden_path"


def test_beside_forbidden_path_both_must_let_pass(events, snapshot_of) -> None:
    snapshot = snapshot_of(
        "path_allowlist: {file_access_allow: [/w/**]}\nforbidden_path: {patterns: ['**/.env']}"
    )
    assert decide(events.file("/w/a"), snapshot).verdict is Verdict.ALLOW
    assert decide(events.file("/w/.env"), snapshot).reason is Reason.PATH_FORBIDDEN
    assert decide(events.file("/x/a"), snapshot).reason is Reason.PATH_NOT_ALLOWED
    assert decide(events.file("/x/.env"), snapshot).reason is Reason.PATH_FORBIDDEN
