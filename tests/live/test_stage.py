"""``run --stage`` with the kernel's own overlay: what is hidden, held back, refused, published."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).parent / "aesp-proxy"
TIME_S = 120
POLICY = """\
version: "1.2.0"
name: staged
guards:
  egress_allowlist: {default_action: block, allow: []}
  forbidden_path: {enabled: true, patterns: ["**/.env", "**/.ssh/**"]}
  secret_leak: {enabled: true}
"""


class Place:
    """A project with forbidden files in it and in the home directory, and a state directory."""

    def __init__(self, folder: Path) -> None:
        self.project, self.home, self.state = (folder / each for each in ("p", "home", "state"))
        self.policy = folder / "policy.yaml"
        self.policy.write_text(POLICY)
        (self.project / "src").mkdir(parents=True)
        (self.home / ".ssh").mkdir(parents=True)
        (self.home / ".ssh" / "id").write_text("THE-KEY")
        (self.home / "notes").write_text("notes")
        (self.project / ".env").write_text("THE-TOKEN")
        os.link(self.project / ".env", self.project / "src" / "innocent")
        os.link(self.home / ".ssh" / "id", self.home / "copy")
        (self.project / "src" / "a.py").write_text("print(1)\n")
        (self.project / "link").symlink_to(".env")

    def run(self, script: str, *options: str) -> subprocess.CompletedProcess[str]:
        words = [*self.options, *options, "--stage", "--", "sh", "-c", script]
        return self.call("run", *words)

    @property
    def options(self) -> list[str]:
        return ["--state", str(self.state), "--policy", str(self.policy)]

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(PROGRAM), *words],
            cwd=self.project,
            env={**os.environ, "HOME": str(self.home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIME_S,
            check=False,
        )

    def stages(self) -> list[str]:
        told = self.call("stage", "list", "--state", str(self.state))
        assert told.returncode == 0, told.stderr
        return [line.split()[0] for line in told.stdout.splitlines()]

    def tree(self) -> dict[str, str]:
        files = (path for path in self.project.rglob("*") if path.is_file())
        return {str(path.relative_to(self.project)): path.read_text() for path in files}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


READ = """
for path in .env ./src/../.env src/innocent link "$PWD/.env" /proc/self/root"$PWD"/.env \
    /proc/self/cwd/.env /proc/1/cwd/.env /proc/$$/cwd/.env "$HOME/.ssh/id" "$HOME/copy"; do
    cat "$path" 2>/dev/null && echo "READ $path"
done
(cd "$HOME" && cat .ssh/id 2>/dev/null)
cat "$HOME/notes" src/a.py; ls -A . src
"""


def test_forbidden_files_cannot_be_read_by_any_name_and_others_can(place):
    ran = place.run(READ)
    assert ran.returncode == 0, ran.stderr
    assert "READ" not in ran.stdout
    assert "THE-" not in ran.stdout
    assert "notes" in ran.stdout
    assert "print(1)" in ran.stdout
    assert ".env" not in ran.stdout.split()
    assert "innocent" not in ran.stdout


def test_what_is_written_is_held_back_until_it_is_published(place):
    before = place.tree()
    ran = place.run("echo 'print(2)' > src/a.py; mkdir d; echo x > d/new; rm link")
    assert ran.returncode == 0, ran.stderr
    assert place.tree() == before
    (stage,) = place.stages()
    shown = place.call("stage", "diff", "--state", str(place.state), stage).stdout
    assert "+print(2)" in shown
    published = place.call("stage", "publish", "--state", str(place.state))
    assert published.returncode == 0, published.stderr
    after = place.tree()
    assert after["src/a.py"] == "print(2)\n"
    assert after["d/new"] == "x\n"
    assert after[".env"] == "THE-TOKEN"
    assert not (place.project / "link").is_symlink()
    assert place.stages() == []


REFUSED = {
    ".env": "echo x > a; mv a .env",
    "x/.ssh/authorized_keys": "mkdir -p x/.ssh && echo x > x/.ssh/authorized_keys",
    ".git/hooks/pre-commit": "mkdir -p .git/hooks && echo x > .git/hooks/pre-commit",
    "mine": 'ln -s "$HOME/.ssh/id" mine',
    "pipe": "mkfifo pipe",
    "out": "echo gh''p_x7Kq2Wm9Zt4Rb6Yn1Vc8Lp3Hd5Js0Fg2Ua4E > out",
    "src/": "rm -r src",
}


def test_one_refusal_refuses_the_whole(place):
    before = place.tree()
    ran = place.run("echo fine > fine; " + "; ".join(REFUSED.values()), "--publish")
    refused = [line.split()[1] for line in ran.stderr.splitlines() if "  refused: " in line]
    assert set(refused) - {"x/.ssh/"} == REFUSED.keys()
    assert "+ fine\n" in ran.stderr
    assert place.tree() == before
    (stage,) = place.stages()
    # By the policy of the run, though nobody names it.
    again = place.call("stage", "publish", "--state", str(place.state), stage)
    assert again.returncode == 2, again.stderr
    assert place.call("stage", "drop", "--state", str(place.state), stage).returncode == 0
    assert place.stages() == []
    verified = place.call("audit", "verify", str(place.state))
    assert verified.returncode == 0, verified.stdout


def test_what_the_host_changed_meanwhile_is_not_overwritten(place):
    place.run("echo agent > src/a.py")
    (place.project / "src" / "a.py").write_text("person\n")
    (stage,) = place.stages()
    told = place.call("stage", "publish", *place.options, stage)
    assert told.returncode == 3
    assert "changed on the host" in told.stderr
    assert place.tree()["src/a.py"] == "person\n"


FULL = """
mkdir -m 700 -p "$1/stage" && mount -t tmpfs -o size=1m none "$1/stage" || exit 9
shift
"$@" run --stage -- sh -c '
    echo two >> kept; dd if=/dev/zero of=big bs=1M count=4 2> /dev/null || echo full
    echo three >> other || echo full; cat kept'
echo "ran $?: $(cat kept)"
"$PROGRAM" stage diff --state "$STATE" > diff.txt; echo "shown $?"
"$PROGRAM" stage publish --state "$STATE" > /dev/null; echo "published $?: $(echo $(cat kept))"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts a small file system")
def test_a_full_stage_is_an_error_to_the_command_and_nothing_of_the_tree_is_lost(place):
    (place.project / "kept").write_text("one\n")
    (place.project / "big").write_text("was here\n")
    place.state.mkdir(mode=0o700)
    script = FULL.replace('"$@" run', f'"$@" run {" ".join(place.options)}')
    words = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "-"]
    ran = subprocess.run(
        [*words, str(place.state), str(PROGRAM)],
        cwd=place.project,
        env={**os.environ, "HOME": str(place.home), "PROGRAM": str(PROGRAM),
             "STATE": str(place.state)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIME_S,
        check=False,
    )  # fmt: skip
    lines = ran.stdout.splitlines()
    assert "full" in lines, ran.stderr
    assert "ran 0: one" in lines
    assert lines[-1] == "published 0: one two", ran.stderr


def test_the_layers_cannot_be_reached_from_inside(place):
    script = (
        f"ls -A {place.state}; ls {place.state}/stage 2>&1; "
        f"echo x > {place.policy}; umount . 2>&1; mount -t tmpfs x . 2>&1; true"
    )
    ran = place.run(script)
    assert ran.stdout.splitlines()[0] == "ca"
    assert "No such file" in ran.stdout
    assert place.policy.read_text() == POLICY


def test_honest_tools_work_on_a_stage(place):
    script = (
        "set -e; git init -q . && git config user.email a@b && git config user.name a; "
        "git add src/a.py && git commit -qm one && git status --short >/dev/null; "
        "echo 'print(3)' > src/a.py && git commit -qam two && git gc -q && git log --oneline; "
        "tar cf t.tar src && mkdir un && tar xf t.tar -C un; "
        f'{sys.executable} -c \'import sqlite3; c=sqlite3.connect("db"); '
        'c.execute("create table t(x)"); c.commit()\'; '
        f'{sys.executable} -c \'import mmap; f=open("m","w+b"); f.truncate(4096); '
        'm=mmap.mmap(f.fileno(),0); m[:2]=b"hi"; m.flush()\''
    )
    ran = place.run(script, "--publish")
    assert ran.returncode == 0, ran.stderr
    assert "published" in ran.stderr, ran.stderr
    told = subprocess.run(
        ["git", "log", "--oneline"], cwd=place.project, capture_output=True, text=True, check=True
    )
    assert len(told.stdout.splitlines()) == 2
    assert (place.project / "un" / "src" / "a.py").read_text() == "print(3)\n"
    assert (place.project / "m").read_bytes()[:2] == b"hi"


def test_a_policy_that_says_nothing_of_files_is_an_error(place):
    place.policy.write_text('version: "1.2.0"\nname: x\nguards: {}\n')
    ran = place.run("true")
    assert ran.returncode == 3
    assert "says nothing of files" in ran.stderr
