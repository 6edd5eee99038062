"""The kernel's half of FUSE over a pair of sockets: requests made by hand, answers read.

No mount and no privilege: the session thinks that its socket is the device.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path
from typing import NamedTuple

from aesp_proxy.intercept.file_port import FileGate
from aesp_proxy.intercept.fuse.protocol import HEADER, Op
from aesp_proxy.intercept.fuse.serve import view_of
from aesp_proxy.intercept.other_names import OtherNames

ENTRY = struct.Struct("=QQQQII" + "QQQQQQIIIIIIIIII")
OPEN = struct.Struct("=QIi")
NOTIFY_INVALID = 2
NOTIFY_EPOCH = 8


class RefusedError(OSError):
    """The answer was an error."""


class Seen(NamedTuple):
    """What LOOKUP said."""

    node: int
    inode: int
    size: int
    mode: int
    links: int


class Kernel:
    """Speaks to a session as the kernel does, one request after the other."""

    def __init__(self, root: Path, gate: FileGate, **options: object) -> None:
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for each in (self.ours, theirs):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self._theirs = theirs
        names = OtherNames(gate, [str(root)], entries_max=10_000)
        while not names.is_done:
            names.step()
        self.view = view_of(str(root), theirs.fileno(), gate, other_names=names, **options)
        self._unique = 0
        body = struct.pack("=IIIII44x", 7, 45, 131072, 0xFFFFFFFF & ~(1 << 31), 0)
        self.welcome = self.ask(Op.INIT, 0, body)

    def raw(self, data: bytes) -> bytes | None:
        """Send bytes as they are; return the answer, if one comes."""
        self.ours.send(data)
        assert self.view.step()
        self.ours.setblocking(False)
        try:
            answer = self.ours.recv(4 << 20)
            while answer[8:16] == bytes(8):  # a notice, not the answer
                answer = self.ours.recv(4 << 20)
        except BlockingIOError:
            return None
        finally:
            self.ours.setblocking(True)
        return answer

    def ask(self, operation: int, node: int, body: bytes = b"") -> bytes:
        """Send one request; return the payload of its answer, or raise its error."""
        self._unique += 1
        head = HEADER.pack(
            HEADER.size + len(body), operation, self._unique, node, 1000, 1000, 77, 0, 0
        )
        answer = self.raw(head + body)
        assert answer is not None, "no answer"
        length, error, unique = struct.unpack_from("=IiQ", answer)
        assert (length, unique) == (len(answer), self._unique)
        if error:
            raise RefusedError(-error, os.strerror(-error))
        return answer[16:]

    def lookup(self, parent: int, name: str) -> Seen | None:
        """Look a name up; None when there is none."""
        return seen(self.ask(Op.LOOKUP, parent, os.fsencode(name) + b"\0"))

    def walk(self, path: str) -> int:
        """Return the node of a path."""
        node = 1
        for name in path.split("/"):
            found = self.lookup(node, name)
            if found is None:
                raise RefusedError(errno.ENOENT, path)
            node = found.node
        return node

    def open(self, node: int, flags: int = os.O_RDONLY) -> int:
        """Open a node; return the handle."""
        return OPEN.unpack(self.ask(Op.OPEN, node, struct.pack("=II", flags, 0)))[0]

    def create(self, parent: int, name: str, mode: int = 0o644) -> tuple[int, int]:
        """Create a file; return node and handle."""
        body = struct.pack("=IIII", os.O_RDWR | os.O_CREAT, mode, 0, 0) + os.fsencode(name)
        answer = self.ask(Op.CREATE, parent, body + b"\0")
        return ENTRY.unpack_from(answer)[0], OPEN.unpack_from(answer, ENTRY.size)[0]

    def read(self, node: int, handle: int, size: int = 4096, offset: int = 0) -> bytes:
        """Read from a handle."""
        return self.ask(Op.READ, node, struct.pack("=QQIIQII", handle, offset, size, 0, 0, 0, 0))

    def write(self, node: int, handle: int, data: bytes, offset: int = 0) -> None:
        """Write to a handle."""
        head = struct.pack("=QQIIQII", handle, offset, len(data), 0, 0, 0, 0)
        self.ask(Op.WRITE, node, head + data)

    def close(self, node: int, handle: int) -> int:
        """Close a handle; return the error number that close(2) gives."""
        body = struct.pack("=QIIQ", handle, 0, 0, 0)
        try:
            self.ask(Op.FLUSH, node, body)
        except RefusedError as error:
            return error.errno or -1
        finally:
            self.ask(Op.RELEASE, node, body)
        return 0

    def put(self, parent: int, name: str, data: bytes) -> int:
        """Write a new file and close it; return the error number of the close."""
        node, handle = self.create(parent, name)
        self.write(node, handle, data)
        return self.close(node, handle)

    def rename(self, old: tuple[int, str], new: tuple[int, str], flags: int = 0) -> None:
        """Rename, with the flags of renameat2."""
        names = os.fsencode(old[1]) + b"\0" + os.fsencode(new[1]) + b"\0"
        self.ask(Op.RENAME2, old[0], struct.pack("=QII", new[0], flags, 0) + names)

    def names(self, node: int) -> list[str]:
        """List a directory, without itself and its parent."""
        found: list[str] = []
        some, offset = self.part(node, 0)
        while some:
            found += some
            some, offset = self.part(node, offset)
        return sorted(set(found) - {".", ".."})

    def part(self, node: int, offset: int) -> tuple[list[str], int]:
        """List some names of a directory; return them and the place of the next."""
        body = struct.pack("=QQIIQII", 0, offset, 512, 0, 0, 0, 0)
        data, found = self.ask(Op.READDIR, node, body), []
        while data:
            _, offset, length, _ = struct.unpack_from("=QQII", data)
            found.append(os.fsdecode(data[24 : 24 + length]))
            data = data[24 + (length + 7 & ~7) :]
        return found, offset

    def notices(self) -> list[tuple[int, int | None]]:
        """Return what was told without being asked: kind, and the node that it is about."""
        found: list[tuple[int, int | None]] = []
        self.ours.setblocking(False)
        try:
            while True:
                data = self.ours.recv(4096)
                kind = struct.unpack_from("=i", data, 4)[0]
                node = struct.unpack_from("=Q", data, 16)[0] if kind == NOTIFY_INVALID else None
                found.append((kind, node))
        except BlockingIOError:
            return found
        finally:
            self.ours.setblocking(True)

    def answered(self) -> int:
        """Return how many answers wait to be read."""
        count = 0
        self.ours.setblocking(False)
        try:
            while self.ours.recv(4096):
                count += 1
        except BlockingIOError:
            return count
        finally:
            self.ours.setblocking(True)
        return count

    def end(self) -> None:
        """Close both ends."""
        self.ours.close()
        self.view.close()
        self._theirs.close()


def seen(payload: bytes) -> Seen | None:
    """Read what names a node."""
    fields = ENTRY.unpack_from(payload)
    if fields[0] == 0:
        return None
    return Seen(node=fields[0], inode=fields[6], size=fields[7], mode=fields[15], links=fields[16])
