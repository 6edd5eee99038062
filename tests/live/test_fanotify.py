"""Watched users: what the kernel lets them open, and what happens when who answers does not."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from drawn_secrets import drawn
from fanotify_lab import OTHER, POLICY, PROGRAM, WATCHED, Lab, until, unusable
from honest_files import HEAD, HONEST

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
    for name in ("ok.txt", ".env", "sub/.env", ".ssh/id", "other/.env", "other/fine.txt"):
        lab.put(name, f"content of {name}\n")
    os.link(lab.inside / ".env", lab.inside / "link.txt")
    (lab.inside / "to_env").symlink_to(".env")
    lab.begin()
    return lab


@pytest.fixture(scope="module")
def honest() -> Iterator[Lab]:
    with ExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True, prefix="aesp")
        )
        lab = Lab(stack, Path(folder))
        lab.begin()
        yield lab


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


def test_a_listener_that_stands_still_is_ended_and_what_waits_is_denied(watched):
    first = watched.listener
    assert watched.reads("ok.txt") == "content of ok.txt"
    os.kill(first, signal.SIGSTOP)
    # What was found clean is the kernel's own to let through; all else waits.
    assert watched.reads("ok.txt") == "content of ok.txt"
    assert watched.reads("other/fine.txt") == "EPERM"
    until(lambda: watched.listener not in (0, first), "another listener")
    assert "stands still" in watched.said
    until(lambda: watched.reads("ok.txt") == "content of ok.txt", "answers again")
    assert watched.reads(".env") == "EPERM"


def test_two_hundred_openers_at_once_are_all_answered(watched):
    for number in range(200):
        watched.put(f"many/{number}", f"{number}\n")
    code = (
        "import threading\n"
        "told = []\n"
        "def read(n):\n"
        "    for name in (f'many/{n}', '.env', 'link.txt'):\n"
        "        try:\n"
        "            told.append(open(f'{T}/{name}').read().strip() == str(n))\n"
        "        except PermissionError:\n"
        "            told.append(None)\n"
        "all_ = [threading.Thread(target=read, args=[n]) for n in range(200)]\n"
        "[each.start() for each in all_]\n"
        "[each.join() for each in all_]\n"
        "print(told.count(True), told.count(None), len(told))"
    )
    assert watched.does(code) == "200 400 600"


def test_a_file_that_changes_is_read_anew_before_anybody_opens_it(watched):
    token = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    path = watched.inside / "ok.txt"
    for _ in range(3):
        assert watched.reads("ok.txt") == "content of ok.txt"
    path.write_text(f"key = {token}\n")
    assert watched.reads("ok.txt") == "EPERM"
    assert watched.reads("ok.txt", uid=OTHER) == f"key = {token}"
    path.write_text("clean\n")
    assert watched.reads("ok.txt") == "clean"
    with path.open("a") as file:
        # Somebody has it open for writing: it is read at each open, and not kept as clean.
        assert watched.reads("ok.txt") == "clean"
        file.write(f"{token}\n")
        file.flush()
        assert watched.reads("ok.txt") == "EPERM"


def test_what_cannot_be_stopped_is_recorded_and_says_so(watched):
    watched.does("open(T + '/mine', 'w').write('x')\nos.rename(T + '/mine', T + '/.bashrc')")
    watched.does("os.chmod(T + '/.env', 0o777)")
    watched.does("os.truncate(T + '/other/.env', 0)")
    watched.does("os.unlink(T + '/sub/.env')")
    wanted = {
        ("file.rename", f"{watched.tree}/.bashrc"),
        ("file.write", f"{watched.tree}/.env"),
        ("file.write", f"{watched.tree}/other/.env"),
        ("file.delete", f"{watched.tree}/sub/.env"),
    }

    def told():
        return {
            (each["action"], each["target_path"])
            for each in watched.records()
            if each["metadata"].get("enforced") == "no" and "not stopped" in each["message"]
        }

    until(lambda: told() >= wanted, f"{wanted} in {told()}")


def test_a_forbidden_file_that_appears_is_known_by_its_inode(watched):
    (watched.inside / "later").mkdir(mode=0o777)
    (watched.inside / "later").chmod(0o777)
    path = watched.put("later/.env", "new secret\n", owner=0)
    path = watched.inside / "later/.env"
    path.chmod(0o644)
    until(lambda: watched.reads("later/.env") == "EPERM", "forbidden by name")
    moved = "os.rename(T + '/later', T + '/x')\nos.rename(T + '/x/.env', T + '/x/y')"
    watched.does(moved)
    assert watched.reads("x/y") == "EPERM"


def test_no_process_but_guard_and_listener_holds_the_groups(watched):
    holders = set()
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                links = {str(each.readlink()) for each in (process / "fd").iterdir()}
            except OSError:
                continue
            if "anon_inode:[fanotify]" in links:
                holders.add(int(process.name))
    ours = {watched.watch.pid, watched.listener}
    assert holders >= ours
    family = {pid for pid in holders if pid in ours}
    assert family == ours
    # Whoever else holds one holds another watch's: none of our children does.
    assert not any(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                   for pid in (watched.listener,))  # fmt: skip


def test_the_service_watches_takes_another_policy_and_shows_how_it_is(lab):
    lab.put("ok.txt", "content\n")
    lab.put("notes.key", "key\n")
    lab.begin_daemon()
    assert lab.reads("notes.key") == "key"
    told = lab.status()["files"]
    assert told["holds"] is True
    assert lab.status()["components"]["files"] is True
    until(
        lambda: "file.open" in lab.status()["files"]["figures"].get("decisions", {}),
        "figures of what was decided",
    )
    assert told["listener_pid"] == lab.listener
    assert told["users"] == str(WATCHED)
    serial = told["serial"]
    (lab.folder / "policy.yaml").write_text(POLICY.replace('"**/.env"', '"**/.env", "**/*.key"'))
    until(lambda: lab.status()["files"]["serial"] > serial, "another policy")
    # It had been found clean, and was asked for no more: that counts no longer.
    assert lab.reads("notes.key") == "EPERM"
    assert lab.does("os.link(T + '/notes.key', T + '/k')\nprint(open(T + '/k').read())") == "EPERM"
    os.kill(lab.listener, signal.SIGKILL)
    until(lambda: lab.status()["state"] == "running" and lab.listener, "another listener")
    assert lab.reads("notes.key") == "EPERM"
    events = {each["event_type"] for each in lab.records()}
    assert events >= {"files.started", "files.policy", "files.died", "files.restarted"}
    assert lab.end() == 0
    assert lab.reads("notes.key") == "key"


def test_a_registered_value_in_a_file_is_found_from_its_registration_to_its_end(lab):
    value = drawn(32)
    lab.put("notes.txt", f"see {value}\n")
    lab.begin_daemon()
    assert lab.reads("notes.txt") == f"see {value}"
    words = [str(PROGRAM), "secrets", "register", "--name", "IT", "--config", str(lab.config)]
    subprocess.run(words, input=value, text=True, check=True, capture_output=True)
    # It had been found clean: that counts no longer.
    until(lambda: lab.reads("notes.txt") == "EPERM", "found")
    assert lab.reads("notes.txt", uid=OTHER) == f"see {value}"
    os.kill(lab.listener, signal.SIGKILL)
    until(lambda: lab.status()["files"]["listener_pid"], "another listener")
    assert lab.reads("notes.txt") == "EPERM"
    assert any("registered:IT" in each["message"] or "registered" in str(each["findings"])
               for each in lab.records() if each["verdict"] == "deny")  # fmt: skip
    words[2:5] = ["forget", "IT"]
    subprocess.run(words, check=True, capture_output=True)
    until(lambda: lab.reads("notes.txt") == f"see {value}", "let go")


def _guards(lab) -> set[int]:
    """The guard of the lab's tree, and what holds the watch besides."""
    found = set()
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes() if process.name.isdecimal() else b""
            if b"--wish" in words and str(lab.tree).encode() in words:
                found.add(int(process.name))
    return found


def test_a_guard_that_is_killed_or_stands_still_lets_nothing_pass_and_comes_back(lab):
    lab.put(".env", "secret\n")
    lab.put("other.txt", "other\n")
    lab.begin_daemon()
    assert lab.reads(".env") == "EPERM"
    first = lab.status()["files"]["pid"]
    os.kill(first, signal.SIGKILL)
    # From the very next open on: nobody answers yet but who holds the watch besides.
    assert lab.reads(".env") == "EPERM"
    assert lab.reads(".env", uid=OTHER) == "secret"
    second = until(lambda: lab.status()["files"]["listener_pid"], "another guard", s_max=60)
    until(lambda: lab.reads("other.txt") == "other", "answers again")
    assert lab.reads(".env") == "EPERM"
    guard = lab.status()["files"]["pid"]
    assert guard not in (0, first)
    # The one that held the first watch has let go: beside the guard there is its own.
    until(lambda: len(_guards(lab)) == 2, "one watch", s_max=30)
    assert {each["event_type"] for each in lab.records()} >= {"files.died"}
    assert not any(each["event_type"] == "files.lost" for each in lab.records())
    os.kill(guard, signal.SIGSTOP)
    os.kill(second, signal.SIGKILL)
    assert lab.reads(".env") == "EPERM"
    until(lambda: lab.status()["files"]["pid"] not in (0, guard), "another guard", s_max=60)
    until(lambda: lab.reads("other.txt") == "other", "answers again", s_max=60)
    assert lab.reads(".env") == "EPERM"
    assert lab.end() == 0
    assert lab.reads(".env") == "secret"
    assert _guards(lab) == set()


def test_a_watch_of_its_own_that_is_killed_or_stands_still_lets_nothing_pass(lab):
    lab.put(".env", "secret\n")
    lab.put("other.txt", "other\n")
    lab.put("fresh.txt", "fresh\n")
    lab.begin()
    assert lab.reads(".env") == "EPERM"
    os.kill(lab.watch.pid, signal.SIGKILL)
    # From the very next open on, and for as long as no other watch answers.
    for _ in range(3):
        assert lab.reads(".env") == lab.reads("other.txt") == "EPERM"
    assert lab.reads(".env", uid=OTHER) == "secret"
    assert lab.watch.wait(20) == -signal.SIGKILL
    first = set(lab.processes())
    assert len(first) == 1
    lab.begin()
    until(lambda: lab.reads("other.txt") == "other", "answers again")
    assert lab.reads(".env") == "EPERM"
    until(lambda: not first & set(lab.processes()), "the first watch lets go")
    # The guard does nothing any more, and its listener is gone: nobody answers but its holder.
    listener = lab.listener
    os.kill(lab.watch.pid, signal.SIGSTOP)
    os.kill(listener, signal.SIGKILL)
    assert lab.reads(".env") == "EPERM"
    assert lab.watch.wait(30) == -signal.SIGKILL
    # What was found clean before is the kernel's own to let through; nothing else is.
    assert lab.reads("fresh.txt") == "EPERM"
    lab.begin()
    until(lambda: lab.reads("fresh.txt") == "fresh", "answers again")
    until(lambda: len(lab.processes()) == 2, "one watch")
    assert lab.end() == 0
    assert lab.reads(".env") == "secret"
    assert lab.processes() == []


def test_a_service_of_its_own_takes_the_policy_of_the_daemon(lab):
    lab.put(".env", "secret\n")
    lab.put("a.key", "key\n")
    lab.begin()
    assert lab.reads(".env") == "EPERM"
    watch = lab.watch
    (lab.folder / "policy.yaml").write_text(POLICY.replace('"**/.env"', '"**/*.key"'))
    lab.begin_daemon(by="service")
    until(lambda: lab.reads("a.key") == "EPERM", "the daemon's policy")
    assert lab.reads(".env") == "secret"
    assert lab.status()["files"]["by"] == "service"
    lab.end()
    # The daemon is gone, and the watch stays.
    assert lab.reads("a.key") == "EPERM"
    watch.terminate()
    assert watch.wait(20) == 0


def test_a_mount_of_its_own_gives_no_file_the_name_of_another(lab):
    lab.put("open/fine", "fine\n")
    lab.put("closed/key", "content\n")
    allowed = f'["{lab.tree}/open/**", "/usr/**", "/lib/**"]'
    policy = POLICY.replace('file_access_allow: ["/**"]', f"file_access_allow: {allowed}")
    lab.begin(policy=policy.replace('"**/.env", ', ""))
    assert lab.reads("open/fine") == "fine"
    assert lab.reads("closed/key") == "EPERM"
    moved = f"mount --bind {lab.tree}/closed {lab.tree}/open && cat {lab.tree}/open/key"
    ran = lab.run(WATCHED, "unshare", "-Urm", "sh", "-c", moved)
    assert "content" not in ran.stdout
    assert "Operation not permitted" in ran.stderr
    refused = [each for each in lab.records() if each["verdict"] == "deny"]
    assert {each["target_path"] for each in refused} == {f"{lab.tree}/closed/key"}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_program_of_a_watched_user_does_as_it_does_unwatched(honest, name):
    script, needs = HONEST[name][1], HONEST[name][0]
    if any(honest.run(0, "which", each).returncode for each in needs.split()):
        pytest.skip(f"needs {needs}")
    number = str([*HONEST].index(name))
    place = honest.inside / number
    place.mkdir()
    os.chown(place, WATCHED, WATCHED)
    words = ["sh", "-c", f"cd {honest.tree}/{number}\n{HEAD}{script}"]
    ran = honest.run(WATCHED, *words)
    refused = [each for each in honest.records() if each["verdict"] == "deny"]
    assert (ran.returncode, refused) == (0, []), ran.stderr


def test_it_needs_four_capabilities_and_no_root(lab):
    lab.put("ok.txt", "content\n")
    lab.put(".env", "secret\n")
    (lab.inside / "ok.txt").chmod(0o600)
    os.chown(lab.folder, OTHER, OTHER)
    kept = "+sys_admin,+dac_read_search,+sys_ptrace,+lease"
    user = ["setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups", "--no-new-privs",
            "--bounding-set=-all," + kept, "--inh-caps=-all," + kept,
            "--ambient-caps=-all," + kept]  # fmt: skip
    lab.begin(f"scan.cache_dir={lab.folder}/cache", wrapper=user)
    assert lab.reads("ok.txt") == "content"
    assert lab.reads(".env") == "EPERM"
    assert lab.does("open(T + '/new', 'w').write('x')\nprint('wrote')") == "wrote"
    until(lambda: any(each["action"] == "file.create" for each in lab.records()), "told")
    status = Path(f"/proc/{lab.listener}/status").read_text()
    sets = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Cap"))
    # DAC_READ_SEARCH, SYS_PTRACE, LEASE: what it began with is given up.
    assert {sets[name] for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {"0000000010080004"}


def test_its_own_record_may_lie_on_what_it_watches_and_a_policy_is_read_anew_on_sighup(lab):
    lab.keep_state_in_the_tree()
    for number in range(50):
        lab.put(f"many/{number}", "x\n")
    lab.put("a.key", "key\n")
    lab.begin("audit.seal_bytes_max=4096")
    assert lab.does("for n in range(50): open(T + f'/many/{n}').read()\nprint('read')") == "read"
    assert lab.reads("a.key") == "key"
    (lab.folder / "policy.yaml").write_text(POLICY.replace('"**/.env"', '"**/*.key"'))
    lab.watch.send_signal(signal.SIGHUP)
    until(lambda: lab.reads("a.key") == "EPERM", "another policy")
    assert len([each for each in lab.records() if each["action"] == "file.open"]) > 50
    os.kill(lab.listener, signal.SIGKILL)
    until(lambda: lab.said.count("are answered by") == 2, "another listener", s_max=60)
    assert lab.reads("a.key") == "EPERM"
    assert lab.reads("many/1") == "x"
