"""Attacks on files, as small programs: what each tries, and what each backend promises.

Run inside the walls as a script, ``file_attacks.py TREE NAME ...``, with the standard
library only: each attack runs in a process of its own in its own copy of the victims
(``build``), and a JSON line says what it read, or the error it met. Outside,
``harm(attack, tree, line)`` says what came of it: a word of ``HARMS``, or nothing.

Rows are shared by every backend: each is stopped by all but those that
``Attack.except_for`` names, with the reason. ``NEED_PRIVILEGE`` are stopped by the kernel
alone when who tries has none: play nothing of this outside of walls as root.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

SECRET = b"THE-FORBIDDEN-CONTENT"
PATTERNS = ("**/.env", "**/.ssh/**", "**/secret/**", "**/caf\u00e9.key")
NFC, NFD = "caf\u00e9.key", "cafe\u0301.key"

AT_FDCWD, AT_EMPTY_PATH, AT_SYMLINK_FOLLOW = -100, 0x1000, 0x400
_ARM = os.uname().machine == "aarch64"


def nr(x86: int, arm: int) -> int:
    """The number of a system call here."""
    return arm if _ARM else x86


LIBC = ctypes.CDLL(None, use_errno=True)


def syscall(number: int, *arguments: int | bytes | None) -> int:
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = LIBC.syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(result)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One attack. ``tries`` runs inside and returns what it read.

    ``harmed`` looks at the victims from outside afterwards. ``except_for`` has, for a
    backend that does not stop it, the reason in a few words.
    """

    name: str
    tries: Callable[[Path], bytes | str | None]
    harmed: Callable[[Path], bool] | None = None
    except_for: dict[str, str] = field(default_factory=dict)


ATTACKS: dict[str, Attack] = {}


def attack(
    name: str, harmed: Callable[[Path], bool] | None = None, **except_for: str
) -> Callable[[Callable[[Path], bytes | str | None]], Callable[[Path], bytes | str | None]]:
    def keep(tries: Callable[[Path], bytes | str | None]) -> Callable[[Path], bytes | str | None]:
        ATTACKS[name] = Attack(name=name, tries=tries, harmed=harmed, except_for=except_for)
        return tries

    return keep


def build(folder: Path) -> None:
    """Make the victims of one attack."""
    for name in ("sub", ".ssh", "secret", "newd", ".git/hooks", ".git/info"):
        (folder / name).mkdir(parents=True)
    for name in (".env", "sub/.env", ".ssh/id_rsa", "secret/key", ".ENV", NFC, NFD):
        (folder / name).write_bytes(SECRET + b"\n")
    (folder / "ok.txt").write_text("allowed\n")
    (folder / "secret" / "tool").write_bytes(b"#!/bin/sh\necho " + SECRET + b"\n")
    (folder / "secret" / "tool").chmod(0o755)
    shutil.copy(shutil.which("echo") or "/bin/echo", folder / "secret" / "echo")
    (folder / ".git" / "config").write_text("[core]\n\tbare = false\n")
    (folder / ".git" / "hooks" / "pre-commit").write_text("#!/bin/sh\n")
    os.link(folder / ".env", folder / "hl.txt")
    (folder / "link").symlink_to(".env")
    (folder / "dirlink").symlink_to(".ssh")
    (folder / "far").symlink_to("link")


def read(path: Path | str | bytes, *, dir_fd: int | None = None, flags: int = 0) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | flags, dir_fd=dir_fd)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def intact(name: str) -> Callable[[Path], bool]:
    """Whether a victim is no longer what it was."""
    return lambda folder: (
        not (folder / name).is_file() or SECRET not in (folder / name).read_bytes()
    )


def there(name: str) -> Callable[[Path], bool]:
    return lambda folder: (folder / name).is_symlink() or (folder / name).exists()


def has(name: str, text: str) -> Callable[[Path], bool]:
    return lambda folder: (folder / name).is_file() and text in (folder / name).read_text()


# reading by other ways to the name ------------------------------------------------

attack("direct")(lambda folder: read(folder / ".env"))
attack("direct below")(lambda folder: read(folder / "sub" / ".env"))
attack("direct in a directory")(lambda folder: read(folder / ".ssh" / "id_rsa"))
attack("symbolic link")(lambda folder: read(folder / "link"))
attack("link to a link")(lambda folder: read(folder / "far"))
attack("link to a directory")(lambda folder: read(folder / "dirlink" / "id_rsa"))
attack("relative with dots")(lambda folder: read("sub/../sub/./../.env"))
attack("from below")(lambda folder: (os.chdir(folder / ".ssh"), read("id_rsa"))[1])
attack("many slashes")(lambda folder: read(f"//{folder}///.env"))
attack("root of the process")(lambda folder: read(f"/proc/self/root{folder}/.env"))
attack("directory of the process")(lambda folder: read("/proc/self/cwd/.env"))
attack("directory of the thread")(lambda folder: read("/proc/thread-self/cwd/.env"))


@attack("directory of another process")
def _of_child(folder: Path) -> bytes:
    child = subprocess.Popen(["sleep", "30"], cwd=folder)
    try:
        return read(f"/proc/{child.pid}/cwd/.env")
    finally:
        child.kill()
        child.wait()


@attack("held by O_PATH, opened by /proc/self/fd")
def _held(folder: Path) -> bytes:
    held = os.open(folder / ".env", os.O_PATH)
    return read(f"/proc/self/fd/{held}")


@attack("held by O_PATH, opened by /dev/fd")
def _dev_fd(folder: Path) -> bytes:
    held = os.open(folder / ".env", os.O_PATH)
    return read(f"/dev/fd/{held}")


@attack("directory held by O_PATH")
def _held_directory(folder: Path) -> bytes:
    return read("id_rsa", dir_fd=os.open(folder / ".ssh", os.O_PATH))


@attack("parent directory held")
def _held_parent(folder: Path) -> bytes:
    return read(".env", dir_fd=os.open(folder, os.O_PATH | os.O_DIRECTORY))


@attack("memory map")
def _mapped(folder: Path) -> bytes:
    descriptor = os.open(folder / ".env", os.O_RDONLY)
    with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as area:
        return area[:]


def openat2(folder: Path, path: bytes, resolve: int) -> bytes:
    how = struct.pack("=QQQ", os.O_RDONLY, 0, resolve)
    at = os.open(folder, os.O_PATH)
    return os.read(syscall(437, at, path, how, len(how)), 4096)


attack("openat2")(lambda folder: openat2(folder, b".env", 0))
attack("openat2 beneath")(lambda folder: openat2(folder, b"sub/../link", 8))
attack("openat2 in a root")(lambda folder: openat2(folder, b"/sub/../../link", 16))
attack("openat2 without links")(lambda folder: openat2(folder, b".env", 4))


@attack("open_by_handle_at")
def _by_handle(folder: Path) -> bytes:
    handle = bytearray(struct.pack("=Ii", 128, 0) + bytes(128))
    buffer = (ctypes.c_char * len(handle)).from_buffer(handle)
    mount_id = ctypes.c_int()
    path = os.fsencode(folder / ".env")
    if LIBC.name_to_handle_at(AT_FDCWD, path, buffer, ctypes.byref(mount_id), 0) < 0:
        raise OSError(ctypes.get_errno(), "name_to_handle_at")
    at = os.open(folder, os.O_RDONLY)
    descriptor = LIBC.open_by_handle_at(at, buffer, os.O_RDONLY)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "open_by_handle_at")
    return os.read(descriptor, 4096)


@attack("io_uring", fanotify="it can be had; what is opened by it is asked for like the rest")
def _io_uring(folder: Path) -> bytes:
    parameters = (ctypes.c_char * 120)()
    syscall(425, 4, bytes(parameters))
    return SECRET  # it can be had: what it opens nobody sees


@attack("tool of another name: cat")
def _cat(folder: Path) -> bytes:
    return subprocess.run(["cat", ".env"], cwd=folder, capture_output=True, check=False).stdout


@attack("script executed")
def _executed(folder: Path) -> bytes:
    return subprocess.run([folder / "secret" / "tool"], capture_output=True, check=False).stdout


@attack("program executed")
def _program_executed(folder: Path) -> bytes:
    words = [folder / "secret" / "echo", SECRET]
    return subprocess.run(words, capture_output=True, check=False).stdout


@attack("run by an interpreter")
def _interpreted(folder: Path) -> bytes:
    words = ["sh", folder / "secret" / "tool"]
    return subprocess.run(words, capture_output=True, check=False).stdout


@attack("run by the loader")
def _loaded(folder: Path) -> bytes:
    loader = "/lib/ld-linux-aarch64.so.1" if _ARM else "/lib64/ld-linux-x86-64.so.2"
    words = [loader, folder / "secret" / "echo", SECRET]
    return subprocess.run(words, capture_output=True, check=False).stdout


# other names ----------------------------------------------------------------------

attack("hard link that was there")(lambda folder: read(folder / "hl.txt"))


_NAME_ONLY = "the name changes, and is recorded; the content opens under no name"


@attack("hard link made", there("mine"), fanotify=_NAME_ONLY)
def _linked(folder: Path) -> bytes:
    os.link(folder / ".env", folder / "mine")
    return read(folder / "mine")


@attack("hard link of a held one", there("mine"), fanotify=_NAME_ONLY)
def _linked_held(folder: Path) -> bytes:
    held = os.open(folder / ".env", os.O_PATH)
    path = f"/proc/self/fd/{held}".encode()
    mine = os.fsencode(folder / "mine")
    syscall(nr(265, 37), AT_FDCWD, path, AT_FDCWD, mine, AT_SYMLINK_FOLLOW)
    return read(folder / "mine")


@attack("hard link of an empty name", there("mine"), fanotify=_NAME_ONLY)
def _linked_empty(folder: Path) -> bytes:
    held = os.open(folder / ".env", os.O_PATH)
    syscall(nr(265, 37), held, b"", AT_FDCWD, os.fsencode(folder / "mine"), AT_EMPTY_PATH)
    return read(folder / "mine")


@attack("renamed out", intact(".env"), fanotify=_NAME_ONLY)
def _renamed(folder: Path) -> bytes:
    (folder / ".env").rename(folder / "mine")
    return read(folder / "mine")


@attack("its directory renamed", intact(".ssh/id_rsa"), fanotify=_NAME_ONLY)
def _renamed_directory(folder: Path) -> bytes:
    (folder / ".ssh").rename(folder / "mine")
    return read(folder / "mine" / "id_rsa")


@attack("exchanged with another", intact(".env"), fanotify=_NAME_ONLY)
def _exchanged(folder: Path) -> bytes:
    names = os.fsencode(folder / ".env"), os.fsencode(folder / "ok.txt")
    syscall(nr(316, 276), AT_FDCWD, names[0], AT_FDCWD, names[1], 2)
    return read(folder / "ok.txt")


attack("another case")(lambda folder: read(folder / ".ENV"))
attack("composed name")(lambda folder: read(folder / NFC))
attack("decomposed name")(lambda folder: read(folder / NFD))


# other mounts and namespaces --------------------------------------------------------


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None) -> None:
    words = [os.fsencode(each) if each else None for each in (source, target, kind, data)]
    syscall(nr(165, 40), words[0], words[1], words[2], flags, words[3])


@attack("bind mount")
def _bound(folder: Path) -> bytes:
    mount(str(folder / ".ssh"), str(folder / "newd"), None, 4096, None)
    return read(folder / "newd" / "id_rsa")


def unshared() -> None:
    os.unshare(0x10000000 | 0x00020000)  # CLONE_NEWUSER, CLONE_NEWNS


@attack("namespaces of its own, same path")
def _unshared(folder: Path) -> bytes:
    unshared()
    return read(folder / ".env")


@attack("namespaces of its own, bind mount")
def _unshared_bound(folder: Path) -> bytes:
    unshared()
    mount(str(folder), "/mnt", None, 4096, None)
    return read("/mnt/.env")


@attack("namespaces of its own, overlay")
def _unshared_overlay(folder: Path) -> bytes:
    unshared()
    mount("none", "/mnt", "overlay", 0, f"lowerdir={folder}:{folder / 'sub'}")
    return read("/mnt/.env")


@attack("namespaces of its own, covers taken off")
def _unshared_uncovered(folder: Path) -> bytes:
    unshared()
    for place in (folder / ".env", folder, *folder.parents[:-1]):
        try:
            syscall(nr(166, 39), os.fsencode(place), 2)  # MNT_DETACH
        except OSError:
            continue
    return read(folder / ".env")


@attack("chroot")
def _chrooted(folder: Path) -> bytes:
    os.chroot(folder)
    return read("/.env")


# what can be seen of it ---------------------------------------------------------------

_SEEN = "names and their metadata stay visible"
attack("status", notify=_SEEN, fanotify=_SEEN)(lambda folder: _seen(folder / ".env"))
attack("listed", notify=_SEEN, fanotify=_SEEN)(lambda folder: _seen_in(folder, ".env"))
attack("its directory listed")(lambda folder: _seen_in(folder / ".ssh", "id_rsa"))


def _seen(path: Path) -> bytes:
    return SECRET if os.stat(path).st_size else b""  # noqa: PTH116


def _seen_in(folder: Path, name: str) -> bytes:
    return SECRET if name in os.listdir(folder) else b""  # noqa: PTH208


# changing ---------------------------------------------------------------------------


def write(path: Path | str, flags: int, data: bytes = b"AGENT", mode: int = 0o644) -> None:
    descriptor = os.open(path, os.O_WRONLY | flags, mode)
    os.write(descriptor, data)
    os.close(descriptor)


_NOT_STOPPED = "changes of names and modes are recorded, not stopped"
attack("appended", has(".env", "AGENT"))(lambda folder: write(folder / ".env", os.O_APPEND))
attack("overwritten", intact(".env"))(lambda folder: write(folder / ".env", os.O_TRUNC))
attack("truncated", intact("sub/.env"), fanotify=_NOT_STOPPED)(
    lambda folder: os.truncate(folder / "sub/.env", 0)
)
attack("opened to be read, and truncated", intact(".env"))(
    lambda folder: os.close(os.open(folder / ".env", os.O_RDONLY | os.O_TRUNC))
)
attack("mode changed", lambda f: bool((f / ".env").stat().st_mode & 0o022), fanotify=_NOT_STOPPED)(
    lambda folder: (folder / ".env").chmod(0o666)
)
attack("attribute set", lambda f: bool(os.listxattr(f / ".env")), fanotify=_NOT_STOPPED)(
    lambda folder: os.setxattr(folder / ".env", "user.mine", b"x")
)
attack("removed", intact(".env"), fanotify=_NOT_STOPPED)(lambda folder: (folder / ".env").unlink())
attack("forbidden name created", has("newd/.env", "AGENT"))(
    lambda folder: write(folder / "newd" / ".env", os.O_CREAT | os.O_EXCL)
)
attack("created in a forbidden directory", has(".ssh/authorized_keys", "AGENT"))(
    lambda folder: write(folder / ".ssh" / "authorized_keys", os.O_CREAT)
)
attack("forbidden directory made", there("newd/.ssh"), fanotify=_NOT_STOPPED)(
    lambda folder: (folder / "newd" / ".ssh").mkdir()
)
attack("forbidden link made", there("newd/.env"), fanotify=_NOT_STOPPED)(
    lambda folder: (folder / "newd" / ".env").symlink_to("../ok.txt")
)


@attack("renamed into a forbidden name", there("newd/.env"), fanotify=_NOT_STOPPED)
def _renamed_in(folder: Path) -> None:
    write(folder / "mine", os.O_CREAT)
    (folder / "mine").rename(folder / "newd" / ".env")


@attack("linked into a forbidden name", there("newd/.env"), fanotify=_NOT_STOPPED)
def _linked_in(folder: Path) -> None:
    os.link(folder / "ok.txt", folder / "newd" / ".env")


@attack("nameless file linked in", there("newd/.env"), fanotify=_NOT_STOPPED)
def _nameless_linked_in(folder: Path) -> None:
    descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(descriptor, b"AGENT")
    path, forbidden = f"/proc/self/fd/{descriptor}", folder / "newd" / ".env"
    names = path.encode(), os.fsencode(forbidden)
    syscall(nr(265, 37), AT_FDCWD, names[0], AT_FDCWD, names[1], AT_SYMLINK_FOLLOW)


@attack("directory renamed to a forbidden name", there("newd/.ssh"), fanotify=_NOT_STOPPED)
def _directory_renamed_in(folder: Path) -> None:
    (folder / "mine").mkdir()
    write(folder / "mine" / "authorized_keys", os.O_CREAT)
    (folder / "mine").rename(folder / "newd" / ".ssh")


# what others run ----------------------------------------------------------------------

attack("git hook written", has(".git/hooks/pre-commit", "AGENT"))(
    lambda folder: write(folder / ".git/hooks/pre-commit", os.O_TRUNC)
)
attack("git hook created", there(".git/hooks/post-commit"), fanotify=_NOT_STOPPED)(
    lambda folder: write(folder / ".git/hooks/post-commit", os.O_CREAT, b"#!/bin/sh\n", 0o755)
)


def _executable(name: str) -> Callable[[Path], bool]:
    return lambda folder: bool((folder / name).stat().st_mode & 0o111)


@attack("git hook made executable", _executable(".git/hooks/pre-commit"), fanotify=_NOT_STOPPED)
def _hook_made_executable(folder: Path) -> None:
    descriptor = os.open(folder / ".git/hooks/pre-commit", os.O_RDONLY)
    os.fchmod(descriptor, 0o755)


@attack("git hook written by another name", has(".git/hooks/pre-commit", "AGENT"))
def _hook_by_link(folder: Path) -> None:
    os.link(folder / ".git/hooks/pre-commit", folder / "mine")
    write(folder / "mine", os.O_TRUNC)


@attack("git hooks renamed in", there("repo/.git/hooks/post-commit"), fanotify=_NOT_STOPPED)
def _hooks_renamed_in(folder: Path) -> None:
    (folder / "mine" / "hooks").mkdir(parents=True)
    (folder / "repo").mkdir()
    write(folder / "mine/hooks/post-commit", os.O_CREAT, b"#!/bin/sh\n", 0o755)
    (folder / "mine").rename(folder / "repo" / ".git")


@attack(
    "git's programs configured",
    has(".git/config", "fsmonitor"),
    fanotify="what is written is looked at when it is closed, and recorded",
)
def _configured(folder: Path) -> None:
    write(folder / ".git" / "config", os.O_APPEND, b"[core]\n\tfsmonitor = /tmp/x\n")


@attack("git's programs renamed in", has(".git/config", "fsmonitor"), fanotify=_NOT_STOPPED)
def _configured_by_rename(folder: Path) -> None:
    write(folder / "mine", os.O_CREAT, b"[core]\n\tfsmonitor = /tmp/x\n")
    (folder / "mine").rename(folder / ".git" / "config")


# races ----------------------------------------------------------------------------------


def _while_swapping(swap: Callable[[], None], tries: Callable[[], bytes], seconds: float) -> bytes:
    """Try again and again while another process swaps what the name means."""
    child = os.fork()
    if child == 0:
        while True:
            try:
                swap()
            except OSError:
                continue
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if SECRET in (found := tries()):
                    return found
            except OSError:
                continue
        return b""
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


@attack("link swapped while it is opened")
def _link_swapped(folder: Path) -> bytes:
    names = [folder / "ok.txt", folder / ".env"]

    def swap() -> None:
        names.reverse()
        (folder / "next").symlink_to(names[0])
        (folder / "next").rename(folder / "swapped")

    return _while_swapping(swap, lambda: read(folder / "swapped"), 0.3)


@attack("directory swapped while it is walked")
def _directory_swapped(folder: Path) -> bytes:
    (folder / "a").mkdir()
    (folder / "a" / "id_rsa").write_text("harmless")
    targets = ["a", ".ssh"]

    def swap() -> None:
        targets.reverse()
        (folder / "next").symlink_to(targets[0])
        (folder / "next").rename(folder / "swapped")

    return _while_swapping(swap, lambda: read(folder / "swapped" / "id_rsa"), 0.3)


def _racing_path(folder: Path, seconds: float) -> bytes:
    """Change the path in memory, by another thread, while the call is under way."""
    import threading

    good, bad = (os.fsencode(folder / name) + b"\0" for name in ("ok.txt", ".env"))
    path = ctypes.create_string_buffer(max(len(good), len(bad)))
    over = threading.Event()

    def rewrite() -> None:
        while not over.is_set():
            ctypes.memmove(path, bad, len(bad))
            ctypes.memmove(path, good, len(good))

    thread = threading.Thread(target=rewrite)
    thread.start()
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            descriptor = LIBC.openat(AT_FDCWD, path, os.O_RDONLY)
            if descriptor >= 0:
                found = os.read(descriptor, 100)
                os.close(descriptor)
                if SECRET in found:
                    return found
        return b""
    finally:
        over.set()
        thread.join()


attack("path rewritten while it is opened")(lambda folder: _racing_path(folder, 0.3))


NEED_PRIVILEGE = frozenset({"bind mount", "chroot", "open_by_handle_at"})

# who they are played as ----------------------------------------------------------------

USERS = {
    "root": "root",
    "user": "an ordinary user",
    "userns": "root of a user namespace",
    "container": "root in a container",
    "container-user": "a user in a container",
}
_NO_MOUNTS = "not to be had: no mounts there, and the run says so"
PLAYED: dict[str, dict[str, str]] = {
    "fuse": {"container": _NO_MOUNTS, "container-user": _NO_MOUNTS},
    "stage": {"container": _NO_MOUNTS, "container-user": _NO_MOUNTS},
    "notify": {},
    "fanotify": {"root": "not watched", "container": "not watched"},
}
"""For each backend who it is not for, and why: all others have every attack played."""


def reached(backend: str, user: str) -> set[str]:
    """Return the attacks that a backend does not stop of this user."""
    found = {one.name for one in ATTACKS.values() if backend in one.except_for}
    # A container's own filter refuses it.
    return found - {"io_uring"} if user.startswith("container") else found


# playing them ------------------------------------------------------------------------


def folder_of(tree: Path, name: str) -> Path:
    """Where the victims of one attack are."""
    return tree / name.replace(" ", "-").replace("/", "-").replace("'", "").replace(":", "")


def build_all(tree: Path) -> None:
    """Make the victims of every attack."""
    for name in ATTACKS:
        build(folder_of(tree, name))


def _control(folder: Path) -> None:
    """Read what is allowed: a place where nothing can be opened stops every attack."""
    try:
        found = read(folder / "ok.txt")
    except OSError as error:
        raise RuntimeError("what is allowed cannot be read") from error
    if found != b"allowed\n":
        raise RuntimeError("what is allowed reads as something else")


def _played(one: Attack, folder: Path) -> dict[str, str]:
    """Run one attack in a process of its own, which may do with itself what it likes."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        try:
            os.chdir(folder)
            _control(folder)
            found = one.tries(folder)
            line = {"read": found.decode("latin-1") if isinstance(found, bytes) else ""}
        except OSError as error:
            line = {"error": errno.errorcode.get(error.errno or 0, str(error))}
        except Exception as error:  # noqa: BLE001 - told, as a row that could not be tried
            line = {"broken": f"{type(error).__name__}: {error}"}
        with os.fdopen(write_end, "w") as file:
            json.dump(line, file)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as file:
        text = file.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else {"broken": "it ended"}


def main() -> None:
    tree, names = Path(sys.argv[1]), sys.argv[2:] or list(ATTACKS)
    for name in names:
        line = _played(ATTACKS[name], folder_of(tree, name))
        print(json.dumps({"name": name, **line}), flush=True)


def lines_of(output: str) -> Iterator[tuple[Attack, dict[str, str]]]:
    """Read what ``main`` printed."""
    for text in output.splitlines():
        line = json.loads(text)
        yield ATTACKS[line.pop("name")], line


def harm(one: Attack, tree: Path, line: dict[str, str]) -> str:
    """Say what an attack achieved: ``read``, ``changed``, or nothing."""
    if SECRET.decode() in line.get("read", ""):
        return "read"
    if one.harmed is not None and one.harmed(folder_of(tree, one.name)):
        return "changed"
    return ""


def forget(tree: Path) -> None:
    """Remove what the attacks were played on."""
    shutil.rmtree(tree, ignore_errors=True)


if __name__ == "__main__":
    main()
