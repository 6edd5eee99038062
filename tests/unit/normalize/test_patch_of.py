"""The difference of a file that is new or emptied is told as the search for one would tell it."""

from __future__ import annotations

import difflib

import pytest

from aesp_proxy.normalize.patch_of import patch_of

CONTENTS = [
    b"",
    b"\n",
    b"a",
    b"a\n",
    b"a\nb",
    b"a\nb\nc\n",
    b"\r\n\r\n",
    b"-- x\n++ y\n",
    b"\xff\n",
]


@pytest.mark.parametrize("content", CONTENTS, ids=range(len(CONTENTS)))
def test_a_new_and_an_emptied_file_are_told_as_difflib_has_them(content):
    for before, after in ((b"", content), (content, b"")):
        old, new = before.splitlines(), after.splitlines()
        lines = list(difflib.diff_bytes(difflib.unified_diff, old, new, b"f", b"f", lineterm=b""))
        expected = b"--- a/f\n+++ b/f\n" + b"".join(line + b"\n" for line in lines[2:])
        assert patch_of("f", before, after) == expected
