"""git's patches are read by their lengths, so that no line of a file passes for git's own."""

from __future__ import annotations

import io

import pytest

from aesp_proxy.cli.scan.patches import PatchReader
from aesp_proxy.errors import UnavailableError

HEAD = b"\0" + b"a" * 40 + b"\x002026-01-05T10:00:00+01:00\0A Person\0a@b.example\0why\n\0\n"
FILE = b"diff --git a/f b/f\nindex 1..2 100644\n--- a/f\n+++ b/f\n"


def read(patch: bytes) -> list[tuple[str, int, bytes]]:
    reader = PatchReader(io.BytesIO(patch))
    return [(a.source.file, a.first_line, b"".join(a.chunks)) for a in reader.added()]


def test_added_lines_are_given_with_commit_file_and_line():
    reader = PatchReader(io.BytesIO(HEAD + FILE + b"@@ -3,0 +4,2 @@ def f\n+one\n+two\n"))
    message, added = ((a.source, a.first_line, b"".join(a.chunks)) for a in reader.added())
    assert message[0].file == "(commit message)"
    assert message[2] == b"why\n"
    assert added[0].file == "f"
    assert added[0].commit == "a" * 40
    assert added[0].author == "A Person"
    assert added[1:] == (4, b"one\ntwo\n")
    assert reader.commits == 1


def test_removed_lines_are_passed_over():
    assert read(FILE + b"@@ -1,2 +1 @@\n-a\n-b\n+c\n") == [("f", 1, b"c\n")]
    assert read(FILE + b"@@ -1,2 +0,0 @@\n-a\n-b\n") == [("f", 0, b"")]


def test_a_file_without_a_line_end_at_its_end_is_read():
    patch = b"@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n\\ No newline at end of file\n"
    assert read(FILE + patch + FILE + b"@@ -0,0 +1 @@\n+c\n") == [
        ("f", 1, b"b\n"),
        ("f", 1, b"c\n"),
    ]


@pytest.mark.parametrize(
    "line",
    [b"+++ b/other", b"@@ -1 +1 @@", b"diff --git a/x b/x", b"\0" + b"b" * 40, b"\\ No newline"],
    ids=["file", "hunk", "diff", "commit", "no-newline"],
)
def test_lines_of_a_file_that_look_like_gits_are_lines(line: bytes):
    patch = FILE + b"@@ -0,0 +1,2 @@\n+" + line + b"\n+secret\n"
    assert read(patch) == [("f", 1, line + b"\nsecret\n")]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (b"b/plain", "plain"),
        (b"b/with space\t", "with space"),
        (b'"b/tab\\there"', "tab\there"),
        (b'"b/quote\\"and\\\\"', 'quote"and\\'),
        (b'"b/line\\nend"', "line\nend"),
        (b'"b/\\001"', "\x01"),
        (b"b/\xc3\xa4", "ä"),
        (b"b/\xff", "\\xff"),
        (b"b/b/b", "b/b"),
    ],
)
def test_names_are_read_as_git_writes_them(written: bytes, name: str):
    patch = b"diff --git x x\n--- /dev/null\n+++ " + written + b"\n@@ -0,0 +1 @@\n+x\n"
    assert read(patch) == [(name, 1, b"x\n")]


def test_of_a_merge_only_what_no_parent_has_is_new():
    patch = (
        b"diff --cc f\nindex 1,2..3\n--- a/f\n+++ b/f\n@@@ -1,1 -1,1 +1,4 @@@\n"
        b"++new\n+ of the second\n +of the first\n++evil\n"
    )
    assert read(patch) == [("f", 1, b"new\n\n\nevil\n")]


def test_a_merge_that_takes_lines_away_is_counted_right():
    patch = b"diff --cc f\n--- a/f\n+++ b/f\n@@@ -2,2 -2,2 +2,1 @@@\n- gone\n -too\n--both\n++x\n"
    assert read(patch) == [("f", 2, b"x\n")]


def test_a_line_of_any_length_is_read_in_bounded_chunks():
    line = b"x" * 3_000_000
    reader = PatchReader(io.BytesIO(FILE + b"@@ -0,0 +1,2 @@\n+" + line + b"\n+y\n"))
    (added,) = [[len(c) for c in a.chunks] for a in reader.added()]
    assert sum(added) == len(line) + 3
    assert max(added) <= 1 << 20


@pytest.mark.parametrize(
    "patch",
    [
        b"\0short",
        FILE + b"@@ -0,0 +1,2 @@\n+one\n",
        FILE + b"@@ nothing @@\n",
        FILE + b"@@\n",
        FILE + b"@@ -0,0 +1,2 @@\nodd\n+x\n",
        FILE + b"@@ -1,1 +1,1 @@\n-a\n-b\n+x\n",
    ],
)
def test_what_git_does_not_write_is_no_patch(patch: bytes):
    with pytest.raises(UnavailableError):
        read(patch)


def test_a_file_that_git_hides_is_told():
    reader = PatchReader(io.BytesIO(b"diff --git a/x b/x\nBinary files a/x and b/x differ\n"))
    assert list(reader.added()) == []
    assert reader.hidden == ["Binary files a/x and b/x differ"]
