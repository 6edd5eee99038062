"""Fuzz target: what the kernel says of a held call, and paths looked up in a real tree.

The first byte chooses. A notification and an open_how give a value or an error of their
own. A path leads to where the kernel itself leads (openat2 in a root), or ends in an
error, and no descriptor is left open.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

from aesp_proxy.errors import InputError
from aesp_proxy.intercept.notify.kernel import (
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    openat2,
    read_how,
    read_notification,
)
from aesp_proxy.intercept.notify.processes import Processes
from aesp_proxy.intercept.notify.resolve import Place, Resolver


class FindingError(AssertionError):
    """A promise that did not hold."""


class Asker:
    """This very process."""

    thread = os.getpid()

    def check(self) -> None:
        pass


@cache
def root() -> str:
    """A small tree with links of every kind, which is the root of all paths."""
    folder = Path(tempfile.mkdtemp(prefix="aesp-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in ("a/b/c", "d"):
        (folder / name).mkdir(parents=True)
    for name in ("f", "a/f", "a/b/f", "d/x"):
        (folder / name).write_text(name)
    links = {"l": "a", "a/up": "..", "a/b/root": "/", "d/abs": "/a/b", "loop": "loop",
             "d/far": "../l/b/./c/../f", "d/gone": "none", "d/slash": "../a/b/", "p": "q", "q": "p",
             "file": "f", "a/deep": "b/root/d/abs/root/l/up/f"}  # fmt: skip
    for name, target in links.items():
        (folder / name).symlink_to(target)
    return str(folder)


@cache
def resolver() -> Resolver:
    held = os.open(root(), os.O_PATH | os.O_DIRECTORY)
    return Resolver(held, Processes(os.getpid()))


def by_us(path: bytes, *, follow: bool) -> object:
    try:
        found = resolver().find(Asker(), -100, path, follow=follow)
    except OSError as error:
        return error.errno
    found.close()
    return found.status.st_ino


def by_kernel(path: bytes, *, follow: bool) -> object:
    flags = os.O_PATH | (0 if follow else os.O_NOFOLLOW)
    at = os.open(root(), os.O_PATH)
    try:
        held = openat2(at, path, flags, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        return error.errno
    finally:
        os.close(at)
    inode = os.fstat(held).st_ino
    os.close(held)
    return inode


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def fuzz_path(text: bytes) -> None:
    """Look one absolute path up in both ways."""
    path = b"/" + text
    resolver()
    before = descriptors()
    for follow in (True, False):
        ours, kernels = by_us(path, follow=follow), by_kernel(path, follow=follow)
        if ours != kernels:
            raise FindingError(f"{path!r}: {ours}, and to the kernel {kernels}")
    try:
        place = resolver().place(Asker(), -100, path)
    except OSError:
        place = None
    if place is not None:
        if isinstance(place, Place) and b"/" in place.name.rstrip(b"/"):
            raise FindingError("a place of more than one name")
        place.close()
    if descriptors() != before:
        raise FindingError("a descriptor is left open")


def fuzz_one(data: bytes) -> None:
    """Run one input."""
    kind, rest = data[0] % 3 if data else 0, data[1:]
    if kind == 0:
        try:
            read_notification(rest)
        except InputError:
            return
    elif kind == 1:
        try:
            read_how(rest)
        except OSError:
            return
    elif b"\0" not in rest and len(rest) < 4000:
        fuzz_path(rest)
