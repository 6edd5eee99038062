"""The count of a patch's lines: exact for well-formed diffs, never less than what is applied."""

from __future__ import annotations

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.decide.patch_lines import PatchLines, patch_lines

HUNK = b"--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n"
NAMES = ["f", "+++ b/f", "--- a", "@@ -1 +1 @@", "-", "+ x", "*** 1,2 ****", "\xe9\u2603"]
LINE = st.text(st.sampled_from("ab+-@* \\!>\t\0"), max_size=6)
TEXT = st.lists(LINE, max_size=12)


def counted(patch: bytes) -> PatchLines:
    return patch_lines(patch, additions_max=10**9, deletions_max=10**9)


def numbers(patch: bytes) -> tuple[int, int]:
    found = counted(patch)
    return found.additions, found.deletions


def edits(old: list[str], new: list[str]) -> tuple[list[str], int]:
    """What is added and how much is deleted, by the matcher that writes the diffs."""
    added, deleted = [], 0
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new).get_opcodes():
        if tag != "equal":
            added += new[j1:j2]
            deleted += i2 - i1
    return added, deleted


def looks_like_a_header(text: str) -> bool:
    """Tell whether a line may be read as the head of a hunk: patch(1) takes it indented too."""
    return text.lstrip(" -\t").startswith(("@@ -", "*** ", "--- "))


def joined(lines) -> bytes:
    return "".join(lines).encode("utf-8")


@pytest.mark.parametrize("write", [difflib.unified_diff, difflib.context_diff])
@given(
    old=TEXT,
    new=TEXT,
    names=st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)),
    context=st.integers(0, 3),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_random_edits_are_counted_as_difflib_made_them(
    write, old, new, names, context, end
) -> None:
    old_lines, new_lines = ([line + end for line in text] for text in (old, new))
    patch = joined(write(old_lines, new_lines, *names, n=context, lineterm=end))
    added, deleted = edits(old, new)
    found = counted(patch)
    if any(looks_like_a_header(text) for text in (*old, *new)):
        # A doubt is an addition, and what is deleted for sure only becomes less.
        assert found.additions >= len(added)
        assert found.deletions_sure <= deleted
        return
    assert (found.additions, found.deletions, found.deletions_sure) == (
        len(added),
        deleted,
        deleted,
    )
    assert [text for _, text in found.readings[0]] == [line.encode() for line in added]
    assert len(found.readings) == 1
    lines = patch.replace(b"\r\n", b"\n").split(b"\n")
    assert all(lines[number - 1].endswith(text) for number, text in found.readings[0])


@given(old=TEXT, new=TEXT, name=st.text(max_size=8))
def test_whatever_the_names_hold_nothing_is_counted_less(old, new, name) -> None:
    patch = joined(
        difflib.unified_diff([f"{x}\n" for x in old], [f"{x}\n" for x in new], name, name)
    )
    added, deleted = edits(old, new)
    found = counted(patch)
    assert found.additions >= len(added)
    assert found.deletions >= deleted


@given(st.lists(st.sampled_from([b"+x", b"-x", b" x", b"@@", b"@@ -1 +1 @@", b"+++ x", b"--- x"])))
def test_whatever_the_order_each_line_with_a_sign_is_counted_or_a_header(lines) -> None:
    found = counted(b"\n".join(lines))
    assert found.additions >= lines.count(b"+x")
    assert found.deletions >= lines.count(b"-x")


@given(st.binary(max_size=200))
def test_any_bytes_are_counted_without_an_error(patch) -> None:
    found = counted(patch)
    assert found.additions <= 3 * len(patch) + 1
    assert found.deletions_sure <= found.deletions


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        (b"", (0, 0)),
        (b"\n", (1, 0)),
        (b"no newline", (1, 0)),
        (b"a\nb\n", (2, 0)),
        (b"a\r\nb\r\n", (2, 0)),
        (b"-a", (1, 1)),
        (HUNK + b" a\n-b\n+c\n", (1, 1)),
        (HUNK + b"\n-b\n+c\n", (1, 1)),
        (HUNK + b" a\n-b\n+c\n\\ No newline at end of file\n", (1, 1)),
        (HUNK + b" a\n-b\n\\ No newline at end of file\n+c\n\\ No newline\n", (1, 1)),
        (HUNK + b" a\n-b\n+c\n\\ one\n\\ two\n", (2, 1)),
        # inside a hunk a header is content
        (HUNK + b"--- x\n+++ y\n--- z\n+++ z\n", (2, 2)),
        # behind its end a pair is a header only before another hunk
        (HUNK + b" a\n-b\n+c\n--- a/f\n+++ b/f\n@@ -9 +9 @@\n-b\n+c\n", (2, 2)),
        (HUNK + b" a\n-b\n+c\n--- a/f\n+++ b/f\n", (3, 2)),
        # counts that are too low, and too high
        (HUNK + b" a\n-b\n+c\n+d\n+e\n", (3, 1)),
        (b"@@ -1,9 +1,9 @@\n-b\n+c\n@@ -1 +1 @@\n-b\n+c\n", (2, 2)),
        (b"@@ -1,9 +1,9 @@\n+c\nGIT\n+d\n", (3, 0)),
        (b"@@ -0,0 +1,2 @@\n+a\n+b\n", (2, 0)),
        (b"@@ -1,99999999999999999999 +1 @@\n+a\n", (1, 0)),
        (b"@@@ -1 -1 +1 @@@\n++a\n", (2, 0)),
        # the format of *** Update File
        (b"*** Begin Patch\n*** Update File: f\n@@ def x\n a\n-b\n+c\n*** End Patch\n", (1, 1)),
        (b"*** Begin Patch\n*** Add File: f\n+a\n++++ b\n*** End Patch", (2, 0)),
        (b"*** Update File: f\n@@\n-a\n+b\n*** End of File\n+c\n", (2, 1)),
        # git's headers, whatever the names
        (
            b"diff --git a/\xff b/+x\nindex 12ab..34cd 100644\n" + HUNK + b"-a\n+b\n",
            (1, 1),
        ),
        (b"diff --git a/f b/g\nsimilarity index 100%\nrename from f\nrename to g\n", (0, 0)),
        (b"new file mode 100644; rm\n", (1, 0)),
        # context diffs
        (b"*** a\n--- b\n***************\n*** 1 ****\n! a\n--- 1 ----\n! b\n", (1, 1)),
        (b"***************\n*** 1 ****\n! a\n+ x\n--- 1 ----\n! b\n- y\n", (3, 2)),
        # ed scripts, and normal diffs, which are none
        (b"1,600d\n", (1, 600)),
        (b"1,2c\n+a\n.\n5d\n", (4, 3)),
        (b"1a\n--- a\n+++ b\n@@ -1 +1 @@\n x\n.\n", (6, 1)),
        (HUNK + b"1a\n+a\n b\n.\n", (4, 0)),
        (b"9,1d\n", (1, 0)),
        (b"1c1\n< a\n---\n> b\n", (4, 2)),
        # several lines to some readers
        (HUNK + b" a\r+b\n", (2, 0)),
        (HUNK + b"+a\x0c+b\n", (3, 0)),
        (HUNK + b"+a\xe2\x80\xa8-b\n", (3, 1)),
        (HUNK + b"+a\x00b\n", (1, 0)),
    ],
)
def test_signs_places_and_doubts(patch, expected) -> None:
    assert numbers(patch) == expected


@pytest.mark.parametrize(
    ("patch", "binary"),
    [
        (b"GIT binary patch\nliteral 3\nKcmZ\n", True),
        (HUNK + b"GIT binary patch\r\nliteral 3\n", True),
        (b"Binary files a/x and b/x differ\n", True),
        (HUNK + b"+GIT binary patch\n", False),
        (HUNK + b" a\n", False),
    ],
)
def test_what_cannot_be_read_is_marked_and_its_lines_are_additions(patch, binary) -> None:
    found = counted(patch)
    assert found.binary is binary
    if binary:
        assert found.additions == len([x for x in patch.split(b"\n") if x[:1].isalpha()])


def test_a_doubtful_line_is_read_in_all_ways_and_its_neighbours_stay_together() -> None:
    found = counted(HUNK + b"+a\n b\n b\n+c\n  + d\n")
    assert found.readings == (
        ((4, b"a"), (7, b"c"), (8, b" + d")),
        ((4, b"a"), (7, b"+c"), (8, b"  + d")),
        ((4, b"a"), (7, b"c"), (8, b"d")),
    )


def test_counting_stops_behind_the_limit() -> None:
    found = patch_lines(b"+\n" * (8 * 2**20), additions_max=1000, deletions_max=500)
    assert found.additions == 1001
    found = patch_lines(HUNK + b"-\n" * (4 * 2**20), additions_max=1000, deletions_max=1)
    assert (found.deletions, found.additions) == (2, 0)


def test_one_line_of_16_mib_is_one_line() -> None:
    assert numbers(b"+" * (16 * 2**20)) == (1, 0)
