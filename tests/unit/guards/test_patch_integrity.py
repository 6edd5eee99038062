"""Patches: what is too large, out of balance or forbidden is refused; the rest is not noted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aesp_proxy.decide.engine import decide
from aesp_proxy.decide.guards import build_guards
from aesp_proxy.decide.guards.patch_integrity import patch_integrity
from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.decide.policy.policy import PatchSection
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Reason, Verdict

PATTERNS = ("(?i)disable[_-]?(security|auth|ssl|tls)", r"(?i)rm\s+-rf\s+/", r"(?i)chmod\s+777")


def section(**stated: object) -> PatchSection:
    given = {
        "additions_max": 1000,
        "deletions_max": 500,
        "require_balance": False,
        "imbalance_ratio_max": 10.0,
        "forbidden_patterns": (),
    }
    stated["forbidden_patterns"] = tuple(
        Sourced(text, f"p.yaml:{line}", 9)
        for line, text in enumerate(stated.get("forbidden_patterns", ()), 5)
    )
    return PatchSection(source="p.yaml:4", **{**given, **stated})  # type: ignore[arg-type]


def patch(added: int = 0, deleted: int = 0, *lines: str) -> bytes:
    body = [f"-o{i}" for i in range(deleted)] + [f"+n{i}" for i in range(added)] + list(lines)
    more = sum(line.startswith("+") for line in lines)
    head = f"--- a/f\n+++ b/f\n@@ -1,{deleted} +1,{added + more} @@\n"
    return (head + "".join(f"{line}\n" for line in body)).encode()


def reason(events, text: bytes, **stated: object) -> Reason | None:
    answer = patch_integrity(section(**stated)).check(events.patch("/w/f", text))
    if answer is None:
        return None
    assert answer.verdict is Verdict.DENY
    assert not answer.implicit
    return answer.reason


@pytest.mark.parametrize(
    ("added", "deleted", "stated", "expected"),
    [
        (1000, 500, {}, None),
        (1001, 0, {}, Reason.PATCH_TOO_LARGE),
        (0, 501, {}, Reason.PATCH_TOO_LARGE),
        (0, 0, {"additions_max": 0, "deletions_max": 0}, None),
        (1, 0, {"additions_max": 0}, Reason.PATCH_TOO_LARGE),
        (0, 1, {"deletions_max": 0}, Reason.PATCH_TOO_LARGE),
        (11, 1, {}, None),
        (11, 1, {"require_balance": True}, Reason.PATCH_UNBALANCED),
        (10, 1, {"require_balance": True}, None),
        (1, 400, {"require_balance": True}, None),
        (0, 9, {"require_balance": True}, None),
        (1, 0, {"require_balance": True}, Reason.PATCH_UNBALANCED),
        (3, 2, {"require_balance": True, "imbalance_ratio_max": 1.5}, None),
        (4, 2, {"require_balance": True, "imbalance_ratio_max": 1.5}, Reason.PATCH_UNBALANCED),
        (1, 1, {"require_balance": True, "imbalance_ratio_max": 0.0}, Reason.PATCH_UNBALANCED),
    ],
)
def test_limits_and_balance(added, deleted, stated, expected, events) -> None:
    assert reason(events, patch(added, deleted), **stated) is expected


def test_deletions_outside_hunks_do_not_buy_balance(events) -> None:
    text = b"-x\n" * 5 + patch(11, 1)
    assert reason(events, text, require_balance=True) is Reason.PATCH_UNBALANCED


@pytest.mark.parametrize(
    "line",
    [
        "+rm -rf /",
        "+sudo RM \t-rf  /home",
        "+x = DISABLE_SSL",
        "+a\x00disable-auth",
        "+\xff\xfechmod 777 x",
    ],
)
def test_an_added_line_that_a_pattern_matches_is_refused(line, events) -> None:
    text = patch(2, 1, line)
    assert reason(events, text, forbidden_patterns=PATTERNS) is Reason.PATCH_FORBIDDEN
    crlf = text.replace(b"\n", b"\r\n")
    assert reason(events, crlf, forbidden_patterns=PATTERNS) is Reason.PATCH_FORBIDDEN
    assert reason(events, text) is None


@pytest.mark.parametrize("line", ["-rm -rf /", " rm -rf /", "+remove -rf /"])
def test_what_is_deleted_or_stays_is_not_added(line, events) -> None:
    text = b"--- a\n+++ b\n@@ -1,2 +1,2 @@\n" + line.encode() + b"\n"
    assert reason(events, text, forbidden_patterns=PATTERNS) is None


@pytest.mark.parametrize(
    "text",
    [
        b"rm -rf /\n",
        b"@@ -1 +1 @@\n-a\n+b\n+rm -rf /\n",
        b"@@ -1 +1 @@\n-a\n+b\n rm -rf /\n",
        b"*** Begin Patch\n*** Add File: f\n+rm -rf /\n",
        b"*** Update File: f\n@@ x\n+rm -rf /",
        b"***************\n*** 1 ****\n! a\n--- 1 ----\n! rm -rf /\n",
        b"1c1\n< a\n---\n> rm -rf /\n",
        b"1a\nrm -rf /\n.\nw\n",
        b"@@ -1,9 +1,9 @@\n a\r+rm -rf /\n",
        b"@@ -1,9 +1,9 @@\n+++ rm -rf /\n",
        b"--- a\n+++ rm -rf /\n",
        b"  --- a\n  +++ b\n  @@ -1 +1 @@\n  -a\n  +rm -rf /\n",
        b"\t*** a\n\t--- b\n\t***************\n\t*** 1 ****\n\t--- 1,2 ----\n\t+ rm -rf /\n",
    ],
)
def test_no_form_hides_what_is_added(text, events) -> None:
    anchored = (r"^(\+\+ )?rm -rf /$",)
    assert reason(events, text, forbidden_patterns=PATTERNS) is Reason.PATCH_FORBIDDEN
    assert reason(events, text, forbidden_patterns=anchored) is Reason.PATCH_FORBIDDEN


@pytest.mark.parametrize("text", [b"GIT binary patch\nliteral 1\nIcmZ\n", b"Binary files a differ"])
def test_a_binary_patch_is_refused_where_patterns_are_to_be_looked_for(text, events) -> None:
    assert reason(events, text) is None
    assert reason(events, text, forbidden_patterns=PATTERNS) is Reason.PATCH_FORBIDDEN
    assert reason(events, text, additions_max=0) is Reason.PATCH_TOO_LARGE


def test_a_refusal_names_the_place_of_the_pattern_and_the_line_and_not_its_text(events) -> None:
    guard = patch_integrity(section(forbidden_patterns=PATTERNS))
    answer = guard.check(events.patch("/w/f", patch(1, 1, "+sekret rm -rf /")))
    assert answer is not None
    assert answer.message == "line 6 of the patch adds what the pattern of p.yaml:6 forbids"
    assert answer.source == "p.yaml:6"
    assert "sekret" not in repr(answer)


def test_it_never_lets_a_patch_pass_by_itself(events, snapshot_of) -> None:
    bare = snapshot_of("")
    snapshot = replace(bare, guards=(patch_integrity(section()),))
    assert decide(events.patch("/w/f", patch(1, 1)), snapshot).reason is Reason.NO_GUARD
    for event in (events.file("/w/f", content=b"rm -rf /"), events.tool("x")):
        assert patch_integrity(section(additions_max=0)).check(event) is None


def test_the_guards_are_asked_in_their_order() -> None:
    policy = replace(
        load_policy('version: "1.2.0"\nname: a\nguards:\n  forbidden_path: {}\n', "p.yaml"),
        patch=section(),
    )
    assert [guard.name for guard in build_guards(policy, None)] == [
        "forbidden_path",
        "patch_integrity",
    ]


def test_a_bad_pattern_is_an_error_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"^p\.yaml:5:9: bad patch pattern '\('"):
        patch_integrity(section(forbidden_patterns=("(",)))


def test_a_patch_of_16_mib_is_decided_by_its_lines(events) -> None:
    text = b"@@ -0,0 +1,1 @@\n+" + b"x" * (16 * 2**20)
    assert reason(events, text, forbidden_patterns=PATTERNS) is None
    assert reason(events, b"+" * (16 * 2**20), forbidden_patterns=PATTERNS) is None


@pytest.mark.parametrize(
    ("stated", "added", "deleted", "expected"),
    [
        ("", 9999, 9999, Reason.ALLOWED),
        ("patch_integrity: {enabled: false, max_additions: 0}", 9999, 0, Reason.ALLOWED),
        ("patch_integrity: {}", 1000, 500, Reason.ALLOWED),
        ("patch_integrity: {}", 1001, 0, Reason.PATCH_TOO_LARGE),
        ("patch_integrity: {}", 0, 501, Reason.PATCH_TOO_LARGE),
        ("patch_integrity: {max_additions: 0}", 1, 0, Reason.PATCH_TOO_LARGE),
        ("patch_integrity: {max_deletions: 0}", 0, 1, Reason.PATCH_TOO_LARGE),
        ("patch_integrity: {max_imbalance_ratio: 1}", 9, 1, Reason.ALLOWED),
        ("patch_integrity: {require_balance: false}", 11, 1, Reason.ALLOWED),
        ("patch_integrity: {require_balance: true}", 10, 1, Reason.ALLOWED),
        ("patch_integrity: {require_balance: true}", 11, 1, Reason.PATCH_UNBALANCED),
        ("patch_integrity: {forbidden_patterns: []}", 1, 1, Reason.ALLOWED),
        ("patch_integrity: {forbidden_patterns: [n0]}", 1, 1, Reason.PATCH_FORBIDDEN),
        (r"patch_integrity: {forbidden_patterns: ['n\\d']}", 1, 1, Reason.PATCH_FORBIDDEN),
        (r'patch_integrity: {forbidden_patterns: ["n\\d"]}', 1, 1, Reason.PATCH_FORBIDDEN),
    ],
)
def test_each_key_of_the_policy_stated_empty_off_or_left_out(
    stated, added, deleted, expected, events, snapshot_of
) -> None:
    snapshot = snapshot_of(f"forbidden_path: {{}}\n{stated}")
    assert decide(events.patch("/w/f", patch(added, deleted)), snapshot).reason is expected


@pytest.mark.parametrize("indent", [b" ", b"  ", b"\t", b"X", b"- ", b"  - - "])
def test_a_header_that_is_indented_makes_no_context_of_the_additions_behind_it(
    indent, events
) -> None:
    head = b"--- a\n+++ b\n@@ -1,2 +1,3 @@\n"
    for text in (
        b"".join(indent + line for line in head.splitlines(keepends=True)),
        indent + b"--- a\n" + indent + b"+++ b\n@@ -1,2 +1,3 @@\n",
        b"*** Update File: f\n" + indent + b"@@ -1,2 +1,3 @@\n@@ -1,9 +1,9 @@\n",
    ):
        hidden = text + indent + b"+rm -rf /\n"
        anchored = ("^rm -rf /$",)
        assert reason(events, hidden, forbidden_patterns=anchored) is Reason.PATCH_FORBIDDEN
        many = text + indent + b"-x\n"
        assert reason(events, many, deletions_max=0) is Reason.PATCH_TOO_LARGE
