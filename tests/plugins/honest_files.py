"""What honest programs do with files, as scripts of the shell: each must do as it does without us.

``HONEST`` maps a name to a script that ends with 0 in an empty directory, and to the
programs that it needs. Scripts are run with ``set -e``, HOME there, and git told who it is.
"""

from __future__ import annotations

HEAD = """
set -e
export HOME=$PWD GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=n@example
export GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=n@example
"""

PLAYED = {
    "fuse": "tests/live/test_fuse.py",
    "notify": "tests/live/test_notify.py",
    "fanotify": "tests/live/test_fanotify.py",
    "stage": "tests/live/test_honest_runs.py",
    "observe": "tests/live/test_honest_runs.py",
}
"""What plays all of them with each backend."""

HONEST: dict[str, tuple[str, str]] = {
    "git commits, rebases, stashes, packs and clones": (
        "git",
        """
git init -q -b main g && cd g
for i in 1 2 3; do echo $i > f$i; git add f$i; git commit -qm $i; done
test -z "$(git status --short)"
git checkout -q -b side HEAD~1; echo z > z; git add z; git commit -qm z; git rebase -q main
echo dirty >> z; git stash -q; git stash pop -q; git checkout -q z
git gc -q; git fsck --strict; test "$(git log --oneline | wc -l)" = 4
git clone -q . ../h; cd ../h; git mv f1 g1; git commit -qam moved; git pull -q --rebase
""",
    ),
    "tar and cp keep links, modes and times": (
        "tar",
        """
mkdir a; for i in $(seq 100); do echo $i > a/f$i; done
ln -s f1 a/link; ln a/f2 a/hard; mkfifo a/fifo; chmod 640 a/f3; touch -d 2001-02-03 a/f4
mkdir b; tar cf - a | tar xpf - -C b; cp -a a c
for d in b/a c; do
    test "$(stat -c %a $d/f3)" = 640; test "$(stat -c %Y $d/f4)" = "$(stat -c %Y a/f4)"
    test "$(readlink $d/link)" = f1; test $d/f2 -ef $d/hard; test -p $d/fifo
    rm $d/fifo; diff -r -x fifo a $d
done
rm -r a b c; test -z "$(ls)"
""",
    ),
    "rsync copies, changes and deletes": (
        "rsync",
        """
mkdir a; for i in $(seq 50); do echo $i > a/f$i; done; rsync -aH a/ b/; diff -r a b
echo more >> a/f7; rm a/f8; rsync -aH --delete a/ b/; diff -r a b; rsync -a --inplace a/ b/
""",
    ),
    "sqlite3 keeps a database in every journal mode": (
        "python3",
        """
python3 - <<'E'
import sqlite3
for mode in ("delete", "truncate", "persist", "wal"):
    one = sqlite3.connect(f"{mode}.db"); two = sqlite3.connect(f"{mode}.db")
    one.execute(f"pragma journal_mode={mode}")
    one.execute("create table t(a)"); one.commit()
    for number in range(10):
        one.execute("insert into t values(?)", (number,)); one.commit()
        assert two.execute("select count(*) from t").fetchone()[0] == number + 1
    one.execute("begin immediate"); one.execute("delete from t"); one.rollback()
    one.close(); two.close()
    again = sqlite3.connect(f"{mode}.db")
    assert again.execute("select sum(a) from t").fetchone()[0] == 45
    assert again.execute("pragma integrity_check").fetchone()[0] == "ok"
E
""",
    ),
    "make and cc build, and what they build runs": (
        "cc",
        r"""
printf 'all: prog\nprog: a.o b.o\n\tcc -o prog a.o b.o\n' > Makefile
echo 'int b(void); int main(void) { return b(); }' > a.c; echo 'int b(void) { return 0; }' > b.c
make -s -j2; ./prog; make -q
""",
    ),
    "a virtual environment runs": (
        "python3",
        "python3 -m venv --without-pip v; v/bin/python -c 'import json; print(json.dumps(1))'",
    ),
    "npm installs a package of a directory": (
        "npm",
        """
mkdir dep app; echo '{"name":"dep","version":"1.0.0"}' > dep/package.json
echo 'module.exports = 7' > dep/index.js; cd app; echo '{"name":"app"}' > package.json
npm install --silent --no-audit --no-fund --offline --install-links ../dep
node -e 'process.exit(require("dep") - 7)'
""",
    ),
    "editors save by a rename, by a backup and in place": (
        "sed",
        """
echo one > f; chmod 640 f; sed -i s/one/two/ f; test "$(cat f)" = two; test "$(stat -c %a f)" = 640
cp f f~; echo three > .f.swp; mv .f.swp f; test "$(cat f)" = three
ln f twin; echo four > f; test "$(cat twin)" = four
mv f f.bak; echo five > f; rm f.bak; test "$(cat f)" = five; test "$(cat twin)" = four
echo a > log; (exec 3>>log; echo b >&3; echo c >&3); test "$(echo $(cat log))" = "a b c"
echo hi | tee -a log | cat; cat log log > both; test "$(wc -l < both)" = 8
""",
    ),
    "vim saves by a rename, in place and with a backup": (
        "vim",
        """
for how in "backupcopy=no" "backupcopy=yes" "nowritebackup" "backup"; do
    echo one > f; chmod 640 f
    vim -Nu NONE -es -c "set backupskip= $how" -c '%s/one/two/' -c wq f
    test "$(cat f)" = two; test "$(stat -c %a f)" = 640
done
test "$(cat f~)" = one; test "$(ls)" = "f
f~"
""",
    ),
    "a shared mapping is written, and what it writes after the close": (
        "python3",
        """
python3 - <<'E'
import mmap
f = open("m", "w+b"); f.truncate(8192); m = mmap.mmap(f.fileno(), 8192)
m[0:5] = b"hello"; m.flush(); f.close(); m[4096:4099] = b"abc"; m.close()
data = open("m", "rb").read()
assert (data[:5], data[4096:4099], len(data)) == (b"hello", b"abc", 8192)
f = open("m", "r+b"); m = mmap.mmap(f.fileno(), 0); m[1:2] = b"E"; m.close(); f.close()
assert open("m", "rb").read(5) == b"hEllo"
E
""",
    ),
    "locks exclude each other": (
        "flock",
        """
touch l; flock l sh -c 'flock -n l true && exit 1 || exit 0'; flock -n l true
python3 - <<'E'
import fcntl, os
f = open("l", "r+"); fcntl.lockf(f, fcntl.LOCK_EX)
pid = os.fork()
if pid == 0:
    g = open("l", "r+")
    try: fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB); os._exit(1)
    except OSError: os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
E
""",
    ),
    "extended attributes are kept": (
        "python3",
        """
python3 - <<'E'
import os
open("x", "w").close(); os.setxattr("x", "user.a", b"1"); os.setxattr("x", "user.b", b"")
assert sorted(os.listxattr("x")) == ["user.a", "user.b"] and os.getxattr("x", "user.a") == b"1"
os.removexattr("x", "user.a"); os.rename("x", "y"); assert os.listxattr("y") == ["user.b"]
E
""",
    ),
    "sparse files stay sparse, and holes are punched": (
        "fallocate",
        """
truncate -s 40M s; printf x | dd of=s bs=1 seek=20M conv=notrunc status=none
test "$(du -k s | cut -f1)" -lt 1000; cp --sparse=always s t; cmp s t
dd if=/dev/zero of=z bs=1M count=4 status=none; fallocate -p -o 0 -l 2M z
test "$(stat -c %s z)" = 4194304; fallocate -l 5M z; test "$(stat -c %s z)" = 5242880
truncate -s 3M z; truncate -s 6M z; cmp -n 6291456 z /dev/zero
""",
    ),
    "files that are open stay so when their names go": (
        "python3",
        """
python3 - <<'E'
import os
f = os.open("gone", os.O_CREAT | os.O_RDWR); os.unlink("gone")
os.write(f, b"hey"); assert os.pread(f, 3, 0) == b"hey"; os.close(f)
open("old", "w").write("old"); g = open("old"); open("new", "w").write("new")
os.rename("new", "old"); assert g.read() == "old" and open("old").read() == "new"
f = os.open(".", os.O_TMPFILE | os.O_RDWR); os.write(f, b"tmp")
here = os.open(".", os.O_PATH)
os.link(f"/proc/self/fd/{f}", "named", dst_dir_fd=here, follow_symlinks=True)
assert open("named").read() == "tmp"
append = os.O_CREAT | os.O_WRONLY | os.O_APPEND
a = os.open("ap", append); b = os.open("ap", append)
for fd, byte in ((a, b"1"), (b, b"2"), (a, b"3"), (b, b"4")): os.write(fd, byte)
os.close(a); os.close(b); assert open("ap").read() == "1234"
w = open("rw", "w+"); w.write("a" * 100); w.flush(); os.fsync(w.fileno())
assert os.stat("rw").st_size == 100; w.seek(50); w.write("b"); w.flush(); w.seek(49)
assert w.read(3) == "aba"
E
""",
    ),
    "names of any bytes and of any length": (
        "python3",
        """
python3 - <<'E'
import errno, os
odd = b"caf\\xff\\xfe \\n\\x01"; open(odd, "w").write("odd")
assert odd in os.listdir(b".") and open(odd).read() == "odd"; os.rename(odd, odd + b"2")
os.mkdir("x" * 255); os.rmdir("x" * 255)
def fails(number, call, *words):
    try: call(*words)
    except OSError as error: assert error.errno == number, error
    else: raise AssertionError(words)
fails(errno.ENAMETOOLONG, os.mkdir, "x" * 256)
fails(errno.ENAMETOOLONG, open, "x/" * 2100)
os.symlink("loop", "loop"); fails(errno.ELOOP, open, "loop")
here = os.getcwd()
for _ in range(40): os.mkdir("d" * 100); os.chdir("d" * 100)
open("deep", "w").write("deep"); assert open("deep").read() == "deep"; os.chdir(here)
import shutil; shutil.rmtree("d" * 100)
E
""",
    ),
    "pytest finds, runs and caches": (
        "pytest",
        """
printf 'def test_a(tmp_path):\\n    (tmp_path / "x").write_text("x")\\n' > test_a.py
pytest -q -p no:cacheprovider --basetemp=tmp test_a.py
""",
    ),
}
