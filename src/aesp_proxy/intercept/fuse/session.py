"""One session with the kernel: requests in, answers out; nothing is let through unanswered.

Whatever goes wrong with one request is its error number, and the next one is served. The
reading of a request is a blocking call, so a session without requests costs nothing.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from typing import Final

from aesp_proxy.errors import InputError, UnavailableError
from aesp_proxy.intercept.fuse import protocol, replies
from aesp_proxy.intercept.fuse.operations import attributes, changes, content, moves, names
from aesp_proxy.intercept.fuse.others import caught_up
from aesp_proxy.intercept.fuse.protocol import Body, Header, Init, Op
from aesp_proxy.intercept.fuse.tree import Tree

_log = logging.getLogger(__name__)

type Operation = Callable[[Tree, Header, Body], bytes | None]

OPERATIONS: Final[dict[int, Operation]] = {
    Op.LOOKUP: names.lookup,
    Op.FORGET: names.forget,
    Op.BATCH_FORGET: names.batch_forget,
    Op.READLINK: names.readlink,
    Op.READDIR: names.readdir,
    Op.GETATTR: attributes.getattr_,
    Op.SETATTR: attributes.setattr_,
    Op.GETXATTR: attributes.getxattr,
    Op.LISTXATTR: attributes.listxattr,
    Op.SETXATTR: attributes.setxattr,
    Op.REMOVEXATTR: attributes.removexattr,
    Op.STATFS: attributes.statfs,
    Op.OPEN: content.open_,
    Op.READ: content.read,
    Op.WRITE: content.write,
    Op.FALLOCATE: content.fallocate,
    Op.LSEEK: content.lseek,
    Op.FLUSH: content.flush,
    Op.FSYNC: content.fsync,
    Op.FSYNCDIR: content.fsyncdir,
    Op.RELEASE: content.release,
    Op.CREATE: changes.create,
    Op.TMPFILE: changes.tmpfile,
    Op.MKNOD: changes.mknod,
    Op.MKDIR: changes.mkdir,
    Op.SYMLINK: changes.symlink,
    Op.LINK: changes.link,
    Op.UNLINK: changes.unlink,
    Op.RMDIR: changes.rmdir,
    Op.RENAME: moves.rename,
    Op.RENAME2: moves.rename2,
}
_UNANSWERED: Final = frozenset({Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT})
_WANTED: Final = (
    Init.ASYNC_READ
    | Init.ATOMIC_O_TRUNC
    | Init.BIG_WRITES
    | Init.AUTO_INVAL_DATA
    | Init.PARALLEL_DIROPS
    | Init.MAX_PAGES
    | Init.CACHE_SYMLINKS
    | Init.NO_OPENDIR_SUPPORT
    | Init.HANDLE_KILLPRIV_V2
    | Init.INIT_EXT
    | Init.PASSTHROUGH
)
_WRITE_BYTES_MAX: Final = 1 << 20
# What comes before the data of the longest request.
_ROOM: Final = 4096
_BACKGROUND: Final = 64
_EPOCH_MINOR: Final = 44
_KEEP_NS: Final = 60_000_000_000
_INLINE_BYTES: Final = 16384
_AT_ONCE: Final = 64


class Session:
    """The session on ``device``, which is mounted already, for one tree."""

    def __init__(self, device: int, tree: Tree) -> None:
        self.device = device
        self._tree = tree
        self._buffer = bytearray(_WRITE_BYTES_MAX + _ROOM)
        self._view = memoryview(self._buffer)
        self._minor = 0
        self._generation = tree.gate.generation

    def drain(self) -> bool:
        """Serve what waits, and what comes at once; False when the session is over.

        The device does not block. Requests come in rows (one end of a file, the opening of
        the next): to look for one more costs less than to wait for it. Others of the loop
        have their turn after some. A policy changes only in the turn of others.
        """
        self.refresh()
        for _ in range(_AT_ONCE):
            is_served = self._serve_next()
            if not is_served:
                return is_served is not None
        return True

    def step(self) -> bool | None:
        """Serve one request; False when there is none, None when the session is over."""
        self.refresh()
        return self._serve_next()

    def _serve_next(self) -> bool | None:
        try:
            size = os.readv(self.device, (self._buffer,))
        except (InterruptedError, BlockingIOError):
            return False
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.ECONNABORTED):
                return None  # unmounted, or ended by the kernel
            if error.errno == errno.ENOENT:
                return True  # taken back before it was read
            raise
        self._serve(self._view[:size])
        return True

    def _serve(self, request: memoryview) -> None:
        try:
            head = protocol.header(request)
        except InputError:
            return  # there is no number to answer to
        try:
            payload = self._answer(head, request[protocol.HEADER.size :])
        except OSError as error:
            self._fail(head, error.errno or errno.EIO)
        except InputError:
            self._fail(head, errno.EINVAL)
        except Exception:  # noqa: BLE001 - net 4
            # What goes wrong in a new way is refused, and everybody else is served.
            _log.exception("a request of the kernel could not be served")
            self._fail(head, errno.EIO)
        else:
            if payload is not None and not self._send(head, payload):
                self._take_back(head, payload)
        tree = self._tree
        if tree.notices:
            self._tell_notices()
        if tree.nodes.is_full:
            tree.nodes.trim()

    def _tell_notices(self) -> None:
        notices = self._tree.notices
        for notice in notices:
            self.notify(notice)
        notices.clear()

    def _answer(self, head: Header, body: Body) -> bytes | None:
        if head.extension:
            # Extensions follow the body; none was asked for.
            body = body[: -8 * head.extension]
        operation = OPERATIONS.get(head.operation)
        if operation is not None:
            return operation(self._tree, head, body)
        match head.operation:
            case Op.INIT:
                return self._welcome(body)
            case Op.INTERRUPT:
                return None  # served one after the other: what it means is answered already
            case Op.DESTROY:
                return b""
            case Op.IOCTL:
                raise OSError(errno.ENOTTY, "no ioctl")
            case _:
                raise OSError(errno.ENOSYS, "not served")

    def _welcome(self, body: Body) -> bytes:
        said = protocol.hello(body)
        self._minor = min(said.minor, protocol.MINOR_MAX)
        flags = said.flags & _WANTED
        if flags & Init.PASSTHROUGH:
            self._tree.device = self.device
        if self._minor >= _EPOCH_MINOR and self._tree.watch is not None:
            self._tree.keep_ns = _KEEP_NS
        return replies.welcome(
            replies.Welcome(
                minor=self._minor,
                readahead=said.readahead,
                flags=flags,
                write_bytes_max=_WRITE_BYTES_MAX,
                background=_BACKGROUND,
                request_s_max=0,
            )
        )

    def close(self) -> None:
        """Close what the tree holds; the device is whoever's it is."""
        self._tree.close()

    def check_root(self) -> None:
        """Raise UnavailableError where the directory is not what it was.

        The kernel takes a view off wherever it hangs when its directory is removed: what
        comes in its place is seen by the agent with nothing before it.
        """
        tree = self._tree
        try:
            found = os.stat(tree.root)  # noqa: PTH116 - of a path as it is
        except OSError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != tree.nodes.root.inode:
            raise UnavailableError("the guarded directory was removed", where=tree.root)

    def refresh(self) -> None:
        """Have the kernel ask again for what it was told by a policy that is gone."""
        generation = self._tree.gate.generation
        if self._generation == generation:
            return
        self._generation = generation
        self._tree.renew()
        if self._minor >= _EPOCH_MINOR:
            self.notify(replies.forget_names())

    @property
    def watched(self) -> int:
        """What is readable when others have changed files, -1 where that is not heard of."""
        watch = self._tree.watch
        return -1 if watch is None else watch.fileno()

    def catch_up(self) -> None:
        """Tell the kernel what others have changed on disk."""
        changed, names = caught_up(self._tree)
        for number in changed:
            self.notify(replies.forget_attributes(number))
        if names and self._minor >= _EPOCH_MINOR:
            self.notify(replies.forget_names())

    def notify(self, notice: bytes) -> None:
        """Tell the kernel something; it may know nothing of it."""
        try:
            os.write(self.device, notice)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTCONN, errno.ENODEV, errno.EINVAL):
                raise

    def _take_back(self, head: Header, payload: bytes) -> None:
        """Close what was opened for somebody who was interrupted, and never heard of it."""
        if head.operation == Op.OPEN:
            self._tree.drop(replies.handle_of(payload))
        elif head.operation in (Op.CREATE, Op.TMPFILE):
            self._tree.drop(replies.handle_of(payload[-replies.OPENED_BYTES :]))

    def _send(self, head: Header, payload: bytes) -> bool:
        """Answer; False when who asked was interrupted, and waits no more."""
        try:
            if len(payload) < _INLINE_BYTES:
                os.write(self.device, replies.answer(head.unique, payload))
            else:
                os.writev(self.device, (replies.head(head.unique, len(payload)), payload))
        except FileNotFoundError:
            return False
        return True

    def _fail(self, head: Header, number: int) -> None:
        if head.operation in _UNANSWERED:
            return
        try:
            os.write(self.device, replies.failure(head.unique, number))
        except FileNotFoundError:
            return  # as above
