"""Held system calls, without any privilege: attacks are stopped, honest programs unbroken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import file_attacks
import file_calls
import pytest
from file_attacks import ATTACKS, NEED_PRIVILEGE, harm, lines_of
from file_lab import FILES_POLICY, TOKEN
from notify_lab import AGENT, Guarded, run_guarded

from aesp_proxy.model.event import FileOperation

PYTHON = sys.executable
BACKEND = "notify"


def can_hold() -> bool:
    """Whether this machine lets a process hold another's calls: some containers do not."""
    code = "from aesp_proxy.launch.isolation import capabilities, holding\n"
    code += "capabilities.give_up_all(); holding.hold(); import os; os._exit(0)"
    return subprocess.run([PYTHON, "-c", code], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not can_hold(), reason="no user notification of seccomp here")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


def test_every_attack_is_stopped_but_those_that_the_table_says(tree):
    file_attacks.build_all(tree)
    ran = run_guarded([PYTHON, "-I", file_attacks.__file__, tree], trees=[tree], walls=True)
    rows = list(lines_of(ran.out))
    assert {one.name for one, _ in rows} == ATTACKS.keys(), ran.err
    assert [line for _, line in rows if "broken" in line] == []
    reached = {one.name for one, line in rows if harm(one, tree, line)}
    assert reached == {one.name for one in ATTACKS.values() if BACKEND in one.except_for}
    assert len(ran.refused()) > 40


def test_without_it_every_attack_succeeds_but_those_that_need_privilege(tree):
    """What proves the rows above: each of them would work."""
    file_attacks.build_all(tree)
    words = [PYTHON, AGENT, "-1", PYTHON, "-I", file_attacks.__file__, tree]
    played = subprocess.run(words, capture_output=True, text=True, check=True)
    stopped = {one.name for one, line in lines_of(played.stdout) if not harm(one, tree, line)}
    # Some kernels do not let an ordinary user make namespaces, or have no io_uring.
    assert stopped - NEED_PRIVILEGE - {name for name in ATTACKS if "namespaces" in name} <= {
        "io_uring",
        "hard link of an empty name",
    }


def test_what_is_allowed_is_recorded_once_with_its_name(tree):
    (tree / "a").write_text("content\n")
    ran = run_guarded(["sh", "-c", "cat a a a; echo b > b; mv b c; rm c"], trees=[tree])
    assert ran.out == "content\n" * 3, ran.err
    assert [each for each in ran.allowed(tree) if each[1] in "abc"] == [
        (FileOperation.OPEN, "a"),
        (FileOperation.CREATE, "b"),
        (FileOperation.RENAME, "b"),
        (FileOperation.CREATE, "c"),
        (FileOperation.DELETE, "c"),
    ]


def test_every_call_does_and_returns_what_the_kernel_does(tmp_path):
    told = []
    for name in ("native", "held"):
        folder = tmp_path / name
        folder.mkdir()
        if name == "held":
            ran = run_guarded([PYTHON, "-I", file_calls.__file__], trees=[folder])
            assert ran.code == 0, ran.err
            told.append(json.loads(ran.out))
        else:
            words = [PYTHON, AGENT, "-1", PYTHON, "-I", file_calls.__file__]
            out = subprocess.run(words, cwd=folder, capture_output=True, check=True).stdout
            told.append(json.loads(out))
    native, held = told
    assert held == native


def test_a_pipe_that_waits_for_its_other_end_holds_nobody_up(tree):
    script = """
mkfifo f; (echo through > f) & first=$!
for i in 1 2 3 4 5; do echo x > "n$i"; done
cat f; wait $first
(cat f > got) & echo back > f; wait; cat got
timeout 0.2 cat f; echo "ended $?"
"""
    ran = run_guarded(["bash", "-c", script], trees=[tree])
    assert ran.out == "through\nback\nended 124\n", ran.err


def test_many_openers_at_once_are_all_served(tree):
    (tree / "a").write_text("x")
    code = """
import os, threading
done = []
def many():
    for _ in range(20):
        os.close(os.open("a", os.O_RDONLY)); done.append(1)
threads = [threading.Thread(target=many) for _ in range(200)]
[each.start() for each in threads]; [each.join() for each in threads]
print(len(done))
"""
    ran = run_guarded([PYTHON, "-I", "-c", code], trees=[tree])
    assert ran.out == "4000\n", ran.err


def test_when_the_server_is_dead_no_file_opens(tree):
    (tree / "a").write_text("x")
    code = """
import os, sys
held = open("a").read()
print(held, flush=True)
sys.stdin.read
while True:
    try:
        os.close(os.open("a", os.O_RDONLY))
    except OSError as error:
        print(error.errno, flush=True)
        break
"""
    with Guarded([PYTHON, "-I", "-c", code], trees=[tree]) as guarded:
        assert guarded.process.stdout.readline() == "x\n"
        os.kill(guarded.server_pid, 9)
        out, _ = guarded.process.communicate(timeout=20)
    assert out == "38\n"  # ENOSYS


def test_a_new_policy_is_in_force_for_the_next_call(tree):
    (tree / "a").write_text("x")
    policies = [f'version: "1.2.0"\nname: p\nguards: {{forbidden_path: {{patterns: ["{each}"]}}}}\n'
                for each in ("**/none", "**/a")]  # fmt: skip
    code = """
import os
try:
    while True:
        os.close(os.open("a", os.O_RDONLY)); print("open", flush=True)
except OSError as error:
    print(error.errno)
"""
    with Guarded([PYTHON, "-I", "-c", code], trees=[tree], policies=policies) as guarded:
        assert guarded.process.stdout.readline() == "open\n"
        guarded.reload()
        ran = guarded.finish()
    assert ran.out.endswith("13\n")
    assert (FileOperation.OPEN, str(tree / "a")) in ran.refused()


def test_a_call_that_fails_in_a_new_way_is_refused_and_the_next_is_served(tree):
    (tree / "a").write_text("x")
    failed = []

    def spoil(server) -> None:
        answer = server._answer

        def broken(notification):
            if notification.number not in failed and (tree / "now").exists():
                failed.append(notification.number)
                raise ZeroDivisionError
            return answer(notification)

        server._answer = broken

    script = "cat a; echo > now; cat a || cat a"
    ran = run_guarded(["sh", "-c", script], trees=[tree], spoil=spoil)
    assert ran.out.count("x") >= 1
    assert ran.code == 0, ran.err


def test_a_secret_that_is_written_is_found_when_the_file_is_closed(tree):
    script = f"echo {TOKEN} > leak; echo {TOKEN} > b; mv b c; echo fine > fine; cat fine; cat leak"
    ran = run_guarded(["bash", "-c", script], trees=[tree], reading_refuses=True)
    assert ran.out == "fine\n"
    assert "Operation not permitted" in ran.err
    refused = ran.refused()
    # Once when it was closed, once when it was to be read.
    assert refused.count((FileOperation.OPEN, str(tree / "leak"))) == 2
    assert (FileOperation.CREATE, str(tree / "c")) in refused
    assert not (tree / "c").exists()


def test_what_is_the_proxys_own_is_neither_shown_nor_changed(tree, tmp_path):
    shown, own = tmp_path / "shown", tree / "state"
    for folder in (shown, own):
        (folder / "ca").mkdir(parents=True)
        (folder / "ca" / "cert").write_text("public\n")
    (own / "ca" / "key").write_text("private\n")
    # What is made for the agent to read it reads, though the policy forbids such names.
    for folder in (shown, own):
        (folder / "ca" / ".env").write_text("bundle\n")
    (own / ".env").write_text("private\n")
    (tree / "policy").write_text("policy\n")
    script = "cat state/ca/cert policy; cat state/ca/key; echo x > policy; rm state/ca/cert; "
    script += "cat state/ca/.env; cat state/.env; echo x > state/ca/.env; "
    script += "mv state moved; echo x > state/new; mv policy p; ln policy p; cat state/../policy"
    covers = [(own, shown), (tree / "policy", tree / "policy")]
    before = set(map(str, tree.rglob("*")))
    ran = run_guarded(["sh", "-c", script], trees=[tree], covers=covers)
    assert ran.out == "public\npolicy\nbundle\npolicy\n", ran.err
    assert set(map(str, tree.rglob("*"))) == before
    assert (own / "ca" / ".env").read_text() == "bundle\n"
    assert (tree / "policy").read_text() == "policy\n"
    assert len(ran.refused()) == 9


def test_the_proxys_certificates_are_read_whatever_names_the_policy_forbids(tree, tmp_path):
    shown, own = tmp_path / "shown", tree / "state"
    for folder in (shown, own):
        (folder / "ca").mkdir(parents=True)
        (folder / "ca" / "cert.pem").write_text("public\n")
    os.link(own / "ca" / "cert.pem", own / "ca" / "again.pem")
    for name in ("state/ca/key.pem", "mine.pem", "policy.pem"):
        (tree / name).write_text("private\n")
    script = "cat state/ca/cert.pem; cat state/ca/key.pem mine.pem policy.pem state/ca/again.pem; "
    script += "ln -s state/ca/key.pem a; ln mine.pem b; cat a b; echo x >> state/ca/cert.pem; "
    script += "mv state/ca/cert.pem c"
    policy = FILES_POLICY.replace('"**/.env"', '"**/*.pem"')
    covers = [(own, shown), (tree / "policy.pem", tree / "policy.pem")]
    ran = run_guarded(["sh", "-c", script], trees=[tree], covers=covers, policies=[policy])
    assert ran.out == "public\n", ran.err
    assert (own / "ca" / "cert.pem").read_text() == "public\n"


LATER = """
import mmap, os
evil = b"[core]\\n\\tfsmonitor = /tmp/x\\n"
def tried(name, call):
    try:
        call()
        print(name, "went through")
    except OSError:
        pass
def fresh():
    if os.path.exists("mine"):
        os.unlink("mine")
    open("mine", "w").write("[core]\\n\\tbare = false\\n" + " " * 80)
def still_open():
    fresh(); descriptor = os.open("mine", os.O_RDWR)
    os.rename("mine", ".git/config"); os.pwrite(descriptor, evil, 0)
def still_mapped():
    fresh()
    with open("mine", "r+b") as file:
        area = mmap.mmap(file.fileno(), 0)
    os.rename("mine", ".git/config"); area[:len(evil)] = evil
def other_name():
    fresh(); os.link("mine", "other")
    os.rename("mine", ".git/config"); open("other", "wb").write(evil)
def linked():
    fresh(); os.unlink(".git/config"); os.link("mine", ".git/config")
    open("mine", "wb").write(evil)
def directory():
    os.mkdir("new"); open("new/config", "w").write("[core]\\n")
    descriptor = os.open("new/config", os.O_RDWR)
    os.mkdir("sub"); os.rename("new", "sub/.git"); os.pwrite(descriptor, evil, 0)
for call in (still_open, still_mapped, other_name, linked, directory):
    tried(call.__name__, call)
fresh(); os.rename("mine", ".git/config"); print("settled")
"""


def test_what_takes_a_name_by_its_content_cannot_be_written_to_afterwards(tree):
    (tree / ".git").mkdir()
    (tree / ".git" / "config").write_text("[core]\n")
    ran = run_guarded([PYTHON, "-I", "-c", LATER], trees=[tree])
    assert ran.out == "settled\n", ran.err
    assert not [path for path in tree.rglob("config") if "fsmonitor" in path.read_text()]
