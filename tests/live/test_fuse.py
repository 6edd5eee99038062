"""The live view over the kernel's FUSE: attacks, failures, and honest programs unbroken."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import file_attacks
import pytest
from file_attacks import ATTACKS, harm, lines_of
from file_lab import FILES_POLICY, TOKEN
from fuse_lab import FuseLab, fuse_lab, why_not
from honest_files import HEAD, HONEST

MISSING = "needs root: it makes namespaces for the test" if os.geteuid() else why_not()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"no FUSE here: {MISSING}")
PLAIN = FILES_POLICY.replace(", max_additions: 50, max_deletions: 50", "")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FuseLab]:
    root = tmp_path_factory.mktemp("shared")
    with fuse_lab(root, policy=PLAIN) as lab:
        yield lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[FuseLab]:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "good").write_text("good\n")
    (root / ".env").write_text("FORBIDDEN")
    with fuse_lab(root, policy=PLAIN) as made:
        yield made


def test_every_attack_of_the_table_is_stopped(tmp_path: Path):
    root = tmp_path / "tree"
    root.mkdir()
    file_attacks.build_all(root)
    with fuse_lab(root, policy=PLAIN) as lab:
        ran = lab.run(sys.executable, "-I", file_attacks.__file__, str(root), time_s=300)
    rows = list(lines_of(ran.stdout))
    assert {one.name for one, _ in rows} == ATTACKS.keys(), ran.stderr
    assert [line for _, line in rows if "broken" in line] == []
    reached = {one.name for one, line in rows if harm(one, root, line)}
    assert reached == {one.name for one in ATTACKS.values() if "fuse" in one.except_for}


@pytest.mark.parametrize("name", HONEST)
def test_honest_programs_are_unbroken(shared: FuseLab, name: str):
    needs, script = HONEST[name]
    if needs != "pytest" and shutil.which(needs) is None:
        pytest.skip(f"{needs} is not installed")
    place = shared.root / str(list(HONEST).index(name))
    place.mkdir()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = shared.sh(f"cd {place.name}\n{HEAD}{script}", env={**os.environ, "PATH": path})
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"


def test_what_was_written_is_the_same_outside(lab: FuseLab):
    ran = lab.sh("mkdir d; echo new > d/new; echo more >> good; chmod 600 good; ln good twin")
    assert ran.returncode == 0, ran.stderr
    assert (lab.root / "d" / "new").read_text() == "new\n"
    assert (lab.root / "good").read_text() == "good\nmore\n"
    assert (lab.root / "good").stat().st_mode & 0o777 == 0o600
    assert (lab.root / "twin").samefile(lab.root / "good")


def test_what_is_written_outside_is_seen_inside(lab: FuseLab):
    with lab.start(["sh"], stdin=subprocess.PIPE) as shell:
        assert shell.stdin
        assert shell.stdout

        def ask(script: str) -> str:
            print(f"{script}; echo .", file=shell.stdin, flush=True)
            lines = []
            while (line := shell.stdout.readline()) != ".\n":
                lines.append(line)
            return "".join(lines)

        assert ask("cat good") == "good\n"
        (lab.root / "good").write_text("changed outside\n")
        (lab.root / "other").write_text("other\n")
        assert ask("until grep -q changed good && test -e other; do :; done; cat good other") == (
            "changed outside\nother\n"
        )


def test_a_refused_close_says_so_and_nothing_of_it_is_kept(lab: FuseLab):
    script = (
        "import os\n"
        "fd = os.open('leak', os.O_CREAT | os.O_WRONLY)\n"
        f"os.write(fd, b'{TOKEN}')\n"
        "try: os.close(fd)\n"
        "except PermissionError: print('refused')\n"
        "print(sorted(os.listdir('.')))\n"
    )
    ran = lab.run(sys.executable, "-c", script)
    assert ran.stdout == "refused\n['good']\n", ran.stderr
    assert not (lab.root / "leak").exists()
    for line in (f"echo {TOKEN} > t; mv t good", f"echo {TOKEN} > good", f"echo {TOKEN} >> good"):
        lab.sh(line)
        assert (lab.root / "good").read_text() == "good\n", line


def test_a_secret_written_through_a_mapping_never_lands(lab: FuseLab):
    script = (
        "import mmap, os\n"
        "f = open('good', 'r+b'); f.truncate(4096); m = mmap.mmap(f.fileno(), 4096)\n"
        f"f.close(); m[:{len(TOKEN)}] = b'{TOKEN}'; m.close()\n"
    )
    lab.run(sys.executable, "-c", script)
    assert TOKEN not in (lab.root / "good").read_text()
    lab.sh(f"exec 3<>good; echo {TOKEN} >&3")
    assert TOKEN not in (lab.root / "good").read_text()


def test_a_killed_guard_closes_what_it_served(lab: FuseLab):
    script = "exec 3<good; echo open; read line; cat good; cat <&3; ls; echo x > new"
    with lab.start(["sh", "-c", script], stdin=subprocess.PIPE) as shell:
        assert shell.stdout
        assert shell.stdout.readline() == "open\n"
        lab.server.kill()
        lab.server.wait()
        out, err = shell.communicate("go\n", timeout=30)
    assert out == ""
    assert err.count("Transport endpoint is not connected") >= 3, err


def test_a_stopped_guard_lets_nothing_through_and_its_end_ends_the_waiting(lab: FuseLab):
    lab.server.send_signal(signal.SIGSTOP)
    with lab.start(["cat", "good"]) as waits:
        with pytest.raises(subprocess.TimeoutExpired):
            waits.communicate(timeout=1)
        lab.server.kill()
        out, _ = waits.communicate(timeout=30)
    assert out == ""
    assert waits.returncode != 0


def test_a_stopped_guard_that_goes_on_answers(lab: FuseLab):
    lab.server.send_signal(signal.SIGSTOP)
    with lab.start(["cat", "good"]) as waits:
        lab.server.send_signal(signal.SIGCONT)
        assert waits.communicate(timeout=30)[0] == "good\n"


def test_a_new_policy_bites_at_once_whatever_the_kernel_keeps(lab: FuseLab):
    with lab.start(["sh"], stdin=subprocess.PIPE) as shell:
        assert shell.stdin
        assert shell.stdout
        print("cat good; ls", file=shell.stdin, flush=True)
        assert [shell.stdout.readline(), shell.stdout.readline()] == ["good\n", "good\n"]
        policy = PLAIN.replace('"**/.env"', '"**/.env", "**/good"')
        Path(f"{lab.records}.policy").write_text(policy)
        lab.server.send_signal(signal.SIGUSR1)
        wait = "until ! cat good 2>/dev/null; do :; done; ls; echo over"
        print(wait, file=shell.stdin, flush=True)
        assert "over\n" in iter(shell.stdout.readline, "")


def test_a_policy_that_changes_while_many_open_refuses_from_then_on_and_breaks_nothing(
    lab: FuseLab,
):
    script = """
import errno, threading
told, go = [], threading.Event()
def one():
    last = "read"
    while not go.is_set() or last == "read":
        try:
            with open("good") as file: now = file.read().replace("good\\n", "read")
        except OSError as error:
            now = errno.errorcode[error.errno]
        if (last, now) != (last, last): told.append((last, now))
        last = now
threads = [threading.Thread(target=one) for _ in range(20)]
for each in threads: each.start()
print("go", flush=True)
input()
go.set()
for each in threads: each.join()
print(len(told), {each[0] for each in told}, {each[1] for each in told} <= {"ENOENT", "EACCES"})
"""
    with lab.start([sys.executable, "-c", script], stdin=subprocess.PIPE) as running:
        assert running.stdout
        assert running.stdout.readline() == "go\n"
        policy = PLAIN.replace('"**/.env"', '"**/.env", "**/good"')
        Path(f"{lab.records}.policy").write_text(policy)
        lab.server.send_signal(signal.SIGUSR1)
        out, err = running.communicate("\n", timeout=60)
    assert out == "20 {'read'} True\n", err


def test_two_hundred_openers_at_once_are_all_served(lab: FuseLab):
    script = """
import os, threading
found = []
def one(number):
    with open(f"f{number}", "w") as file: file.write(str(number))
    found.append(open(f"f{number}").read() == str(number) and open("good").read() == "good\\n")
threads = [threading.Thread(target=one, args=(number,)) for number in range(200)]
for each in threads: each.start()
for each in threads: each.join()
print(len(found), all(found))
"""
    assert lab.run(sys.executable, "-c", script).stdout == "200 True\n"


def test_a_full_disk_loses_nothing(tmp_path: Path):
    """On a file system of 2 MiB, in a mount namespace of the test's own."""
    script = f"mount -t tmpfs -o size=2m none {tmp_path} && exec {sys.executable} -c '{FULL}'"
    told = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", f"{script} {tmp_path}"],
        capture_output=True, text=True, timeout=90, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "plugins")},
    )  # fmt: skip
    assert told.stdout == "kept\n", told.stderr


FULL = """
import sys
from pathlib import Path
from fuse_lab import fuse_lab
root = Path(sys.argv[1])
(root / "big").write_bytes(b"b" * 1200000)
with fuse_lab(root) as lab:
    for line in ("echo x >> big", "cat big big > two", "cat big >> big.new && mv big.new big",
                 "dd if=/dev/zero of=big bs=1M count=3 conv=notrunc"):
        lab.sh(line)
print("kept" if (root / "big").read_bytes() == b"b" * 1200000 else "lost")
"""


def test_big_files_are_read_by_the_kernel_itself_and_not_written_meanwhile(tmp_path: Path):
    root = tmp_path / "tree"
    root.mkdir()
    (root / "big").write_bytes(os.urandom(3 << 20))
    with fuse_lab(root, policy=PLAIN, reading_refuses=False, content_bytes_max=1 << 20) as lab:
        assert lab.sh("cat big | sha256sum").stdout == lab.sh("sha256sum < big").stdout
        ran = lab.sh("exec 3<big; echo x >> big; head -c 3 <&3 | wc -c")
        assert ran.stdout == "3\n"
        assert "Text file busy" in ran.stderr
        assert (
            "File too large"
            in lab.sh("cat good big > more").stderr
            + lab.sh(f"{sys.executable} -c \"open('big', 'ab').write(b'x')\"").stderr
        )
    assert (root / "big").stat().st_size == 3 << 20


def test_a_tree_that_vanishes_is_an_error_and_no_crash(lab: FuseLab):
    assert lab.sh("ls").stdout == "good\n"
    shutil.rmtree(lab.root)
    ran = lab.sh("ls; cat good; echo x > new; mkdir d")
    assert ran.returncode != 0
    # The kernel takes the view off: what comes in its place would be seen unguarded.
    assert lab.server.wait(timeout=30) == 1


def test_devices_and_pipes_are_the_kernels_own(lab: FuseLab):
    ran = lab.sh("mkfifo p; (echo through > p &); cat p; mknod d c 1 3; ls; cat d")
    assert "through" in ran.stdout
    assert "Operation not permitted" in ran.stderr


@pytest.mark.long
def test_a_hundred_thousand_small_files(lab: FuseLab):
    script = """
import os
for folder in range(100):
    os.mkdir(f"d{folder}")
    for number in range(1000): open(f"d{folder}/f{number}", "w").write("x")
print(sum(len(os.listdir(f"d{folder}")) for folder in range(100)))
print(sum(os.stat(f"d{i}/f{j}").st_size for i in range(100) for j in range(1000)))
"""
    ran = lab.run(sys.executable, "-c", script, time_s=900)
    assert ran.stdout == "100000\n100000\n", ran.stderr
    assert len(os.listdir(lab.root / "d99")) == 1000  # noqa: PTH208
