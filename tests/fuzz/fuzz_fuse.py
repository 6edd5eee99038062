"""Fuzz target: requests of the kernel's FUSE give a value or an InputError.

The first byte chooses the operation, the rest is its body. What is read as a name is one
name, and data is never longer than the request.
"""

from __future__ import annotations

import contextlib
import os

from aesp_proxy.errors import InputError
from aesp_proxy.intercept.fuse import protocol

READERS = (
    protocol.header, protocol.name, protocol.hello, protocol.forget, protocol.forgets,
    protocol.getattr_handle, protocol.attributes, protocol.open_flags, protocol.create,
    protocol.tmpfile, protocol.mknod, protocol.mkdir, protocol.symlink, protocol.link,
    protocol.rename, protocol.rename2, protocol.handle, protocol.transfer, protocol.write,
    protocol.fsync, protocol.fallocate, protocol.lseek, protocol.getxattr,
    protocol.listxattr, protocol.setxattr,
)  # fmt: skip
NAMED = (protocol.create, protocol.mknod, protocol.mkdir, protocol.link)


class FindingError(AssertionError):
    """A promise that did not hold."""


def fuzz_one(data: bytes) -> None:
    """Run one input; anything but a value or an InputError is a finding."""
    if not data:
        return
    reader, body = READERS[data[0] % len(READERS)], data[1:]
    with contextlib.suppress(InputError):
        found = reader(memoryview(body))
        if reader in NAMED:
            name = os.fsencode(found[-1])
            if not name or b"/" in name or b"\0" in name or name in {b".", b".."}:
                raise FindingError(data)
        if reader is protocol.write and len(found[1]) > len(body):
            raise FindingError(data)
