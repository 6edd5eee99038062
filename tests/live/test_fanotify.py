"""Watched users: what the kernel lets them open, and what happens when who answers does not."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fanotify_lab import OTHER, WATCHED, Lab, until, unusable

pytestmark = pytest.mark.skipif(bool(unusable()), reason=unusable() or "-")


@pytest.fixture
def lab() -> Iterator[Lab]:
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(ignore_cleanup_errors=True, prefix="aesp")
            )
        )
        yield Lab(stack, folder)


@pytest.fixture
def watched(lab: Lab) -> Lab:
    for name in ("ok.txt", ".env", "sub/.env", ".ssh/id", "other/.env"):
        lab.put(name, f"content of {name}\n")
    os.link(lab.inside / ".env", lab.inside / "link.txt")
    (lab.inside / "to_env").symlink_to(".env")
    lab.begin()
    return lab


def test_a_forbidden_file_is_opened_under_none_of_its_names_and_by_nobody_watched(watched):
    assert watched.reads("ok.txt") == "content of ok.txt"
    tried = {
        "name": "print(open(T + '/.env').read())",
        "deeper": "print(open(T + '/sub/.env').read())",
        "folder": "print(open(T + '/.ssh/id').read())",
        "listing": "print(os.listdir(T + '/.ssh'))",
        "link": "print(open(T + '/link.txt').read())",
        "symbolic": "print(open(T + '/to_env').read())",
        "new link": "os.link(T + '/sub/.env', T + '/two')\nprint(open(T + '/two').read())",
        "renamed": "os.rename(T + '/sub/.env', T + '/three')\nprint(open(T + '/three').read())",
        "its folder": "os.rename(T + '/.ssh', T + '/ssh')\nprint(open(T + '/ssh/id').read())",
        "O_PATH": "f = os.open(T + '/.env', os.O_PATH)\nprint(open(f'/proc/self/fd/{f}').read())",
        "for writing": "os.open(T + '/.env', os.O_WRONLY | os.O_TRUNC)\nprint('opened')",
        "created": "os.mkdir(T + '/new')\nopen(T + '/new/.env', 'w').write('x')\nprint('wrote')",
    }
    assert {name: watched.does(code) for name, code in tried.items()} == dict.fromkeys(
        tried, "EPERM"
    )
    assert watched.reads(".env", uid=OTHER) == "content of .env"
    assert watched.reads("link.txt", uid=0) == "content of .env"
    refused = [each for each in watched.records() if each["verdict"] == "deny"]
    assert {each["reason"] for each in refused} == {"path_forbidden"}
    assert {each["principal_id"] for each in refused} == {f"uid-{WATCHED}"}


def test_a_listener_that_is_killed_denies_what_it_had_not_answered_and_another_takes_over(watched):
    first = watched.listener
    os.kill(first, signal.SIGKILL)
    until(lambda: watched.listener not in (0, first), "another listener")
    # Whether it loads still or answers already: nothing forbidden passes.
    assert watched.reads(".env") == "EPERM"
    assert watched.reads("ok.txt", uid=OTHER) == "content of ok.txt"
    until(lambda: watched.reads("ok.txt") == "content of ok.txt", "answers again")
    assert watched.reads("link.txt") == "EPERM"
    assert "was killed by signal 9" in watched.said
    assert any(each["event_type"] == "files.restarted" for each in watched.records())
