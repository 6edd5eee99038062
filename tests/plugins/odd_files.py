"""What is odd about files, tried in a directory: one line of JSON, an outcome for each case.

``odd_files.py DIRECTORY``. Run without a guard it says what the kernel does; behind one the
same must come out, but for what is named ``forbidden``.
"""

# ruff: noqa: PTH102, PTH103, PTH104, PTH108, PTH109, PTH110, PTH115, PTH116, PTH123, PTH208, PTH211

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

LONGEST = 4095
_HALVES: Final = (b"first " * 2000, b"other " * 4000)
CASES: dict[str, Callable[[], object]] = {}


def case(call: Callable[[], object]) -> Callable[[], object]:
    """Take a case into the table, under its name."""
    CASES[call.__name__] = call
    return call


def outcome(call: Callable[[], object]) -> object:
    """Return what a case says, or the name of the error that it ends in."""
    try:
        return call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def size(descriptor: int) -> object:
    return outcome(lambda: os.fstat(descriptor).st_size)


def put(path: str | bytes, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def get(path: str | bytes) -> str:
    with open(path, "rb") as file:
        return file.read().decode("latin-1")


@case
def not_utf8() -> str:
    os.mkdir(b"caf\xff")
    put(b"caf\xff/\xfe\x80", b"odd")
    os.rename(b"caf\xff/\xfe\x80", b"caf\xff/\xc3\x28")
    return get(b"caf\xff/\xc3\x28") + str(os.listdir(b"caf\xff"))


@case
def not_utf8_forbidden() -> str:
    return get(b"kept\xff/.env")


def longest(start: str) -> Iterator[str]:
    """Make directories down to the longest path, a directory at a time; yield how long."""
    os.chdir(start)
    length = len(os.getcwd())
    while length < LONGEST - 8:
        name = "d" * min(200, LONGEST - 8 - length - 1)
        os.mkdir(name)
        os.chdir(name)
        length += 1 + len(name)
    yield os.getcwd()
    os.chdir(start)


@case
def long_path() -> list[object]:
    here = os.getcwd()
    os.mkdir("long")
    for path in longest("long"):
        put("file", b"long")
        whole = f"{path}/file".ljust(LONGEST, "x")
        put(whole, b"whole")
        found = [len(whole), get(f"{path}/file"), get(whole), outcome(partial(get, f"{whole}x"))]
        os.chdir(here)
        return found
    return []


@case
def long_forbidden() -> object:
    here = os.getcwd()
    os.mkdir("longer")
    for _ in longest("longer"):
        made = outcome(lambda: put(".env", b"x"))
        os.chdir(here)
        return made
    return None


@case
def loop() -> list[object]:
    os.symlink("two", "one")
    os.symlink("one", "two")
    os.symlink(".", "self")
    deep = "self/" * 39 + "plain"
    return [outcome(lambda: get("one")), outcome(lambda: get(deep)),
            outcome(lambda: get("self/" * 41 + "plain")), os.readlink("one")]  # fmt: skip


@case
def device_forbidden() -> str:
    os.mknod("device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    return "made"


@case
def fifo() -> str:
    os.mkfifo("fifo")
    writer = threading.Thread(target=put, args=("fifo", b"through"))
    writer.start()
    got = get("fifo")
    writer.join()
    return got


@case
def local_socket() -> list[object]:
    os.mknod("socket", stat.S_IFSOCK | 0o600)
    mode = stat.S_ISSOCK(os.stat("socket").st_mode)
    return [mode, outcome(lambda: get("socket"))]


@case
def bound_socket() -> bool:
    # Within a run there are none; without one there are.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
        sock.bind("bound")
    return True


@case
def changing() -> list[bool]:
    put("changes", _HALVES[0])
    ended = threading.Event()

    def change() -> None:
        while not ended.is_set():
            for half in _HALVES:
                put("next", half)
                os.rename("next", "changes")
                with open("changes", "r+b") as file:
                    file.write(half[:100])

    thread = threading.Thread(target=change)
    thread.start()
    try:
        whole = all(get("changes").encode() in _HALVES for _ in range(60))
    finally:
        ended.set()
        thread.join()
    return [whole, get("changes").encode() in _HALVES]


@case
def vanishing() -> list[object]:
    os.makedirs("gone/below")
    put("gone/below/file", b"still open")
    with open("gone/below/file", "rb") as file:
        here = os.getcwd()
        os.chdir("gone/below")
        shutil.rmtree(f"{here}/gone")
        left = outcome(lambda: put("new", b"x")), outcome(lambda: get("file"))
        os.chdir(here)
        return [file.read().decode(), size(file.fileno()), *left, os.path.exists("gone")]


@case
def unlinked() -> list[object]:
    put("unlinked", b"0123456789")
    with open("unlinked", "r+b") as file, open("unlinked", "rb") as reader:
        os.unlink("unlinked")
        sizes = [size(each.fileno()) for each in (file, reader)]
        file.seek(8)
        wrote = outcome(lambda: (file.write(b"abcd"), file.flush())[0])
        sizes.append(size(file.fileno()))
        read = outcome(lambda: (file.seek(0), file.read().decode())[1])
        cut = outcome(lambda: os.ftruncate(file.fileno(), 3))
        sizes.append(size(file.fileno()))
        return [*sizes, wrote, read, cut, os.path.exists("unlinked")]


@case
def directory_as_file() -> list[object]:
    return [outcome(lambda: get(".")), outcome(lambda: get("plain/x")), outcome(lambda: get(""))]


def prepare(directory: str) -> None:
    """Make what a case needs to be there, from outside."""
    path = os.fsencode(directory)
    put(path + b"/plain", b"plain")
    os.mkdir(path + b"/kept\xff")
    put(path + b"/kept\xff/.env", b"THE-TOKEN")


def main() -> None:
    os.chdir(sys.argv[1])
    print(json.dumps({name: outcome(call) for name, call in CASES.items()}))


if __name__ == "__main__":
    main()
