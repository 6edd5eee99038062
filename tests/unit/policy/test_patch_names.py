"""A patch announced for one file is for that file."""

from __future__ import annotations

import pytest

from aesp_proxy.normalize.patch import other_file

PATH = "/w/repo/src/a.py"


@pytest.mark.parametrize(
    "patch",
    [
        "",
        "+x\n-y\n",
        "--- a/src/a.py\n+++ b/src/a.py\n@@ -1 +1 @@\n-x\n+y\n",
        "--- a/src/a.py\t2026-01-01 00:00\n+++ b/src/a.py\t2026-01-01 00:00\n",
        "--- src/a.py\n+++ src/a.py\n",
        "--- /dev/null\n+++ b/src/a.py\n",
        "--- /w/repo/src/a.py\n+++ /w/repo/./src/a.py\n",
        "diff --git a/src/a.py b/src/a.py\nindex 1..2\n--- a/src/a.py\n+++ b/src/a.py\n",
        "*** Begin Patch\n*** Update File: src/a.py\n@@\n-x\n+y\n*** End Patch\n",
        '--- "a/src/a.py"\n+++ "b/src/a.py"\n',
        "Index: src/a.py\n",
        "*** src/a.py\n--- src/a.py\n***************\n",
        "-- a comment\n+++ is not a header here\n",
    ],
)
def test_a_patch_for_its_own_file_is_taken(patch: str) -> None:
    assert other_file(patch, PATH) is None


@pytest.mark.parametrize(
    ("patch", "other"),
    [
        ("--- a/src/a.py\n+++ b/src/b.py\n", "b/src/b.py"),
        ("--- a/x\n+++ b/src/a.py\n", "a/x"),
        ("--- /dev/null\n+++ /home/x/.ssh/authorized_keys\n", "/home/x/.ssh/authorized_keys"),
        ("--- /dev/null\n+++ b/../../etc/src/a.py\n", "b/../../etc/src/a.py"),
        (
            "--- a/src/a.py\n+++ b/src/a.py\n@@ -1 +1 @@\n-x\n+y\n--- /dev/null\n+++ b/.env\n",
            "b/.env",
        ),
        ("diff --git a/src/a.py b/.git/hooks/pre-commit\n", ".git/hooks/pre-commit"),
        ("rename from src/a.py\nrename to src/b.py\n", "src/b.py"),
        ("copy to .env\n", ".env"),
        ("*** Begin Patch\n*** Add File: /etc/passwd\n+x\n", "/etc/passwd"),
        ("*** Update File: src/a.py\n*** Move to: ../b\n", "../b"),
        ("*** x\n--- x\n***************\n", "x"),
        ('--- /dev/null\n+++ "b/\\303\\251.py"\n', '"b/\\303\\251.py"'),
        ("--- /dev/null\u2028\n+++ /etc/passwd\n", "/etc/passwd"),
        ("  --- /dev/null\r\n  +++ /etc/passwd\r\n", "/etc/passwd"),
        ("--- a.py.evil\n+++ a.py\n", "a.py.evil"),
    ],
)
def test_a_patch_that_names_another_file_is_found_out(patch: str, other: str) -> None:
    assert other_file(patch, PATH) == other


def test_a_quoted_name_is_read_as_git_means_it() -> None:
    assert other_file('--- /dev/null\n+++ "b/\\303\\251.py"\n', "/w/é.py") is None
