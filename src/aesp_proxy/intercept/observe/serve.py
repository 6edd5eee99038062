"""Record what happens to files, and stop nothing: for where no privilege and no wall is to be had.

What is seen has happened. An opening is recorded where the policy forbids it, a change
always; who did it is not told by the kernel.
"""

from __future__ import annotations

import os
import select
import stat
from typing import Final

from aesp_proxy.errors import AespError
from aesp_proxy.intercept.file_port import NOBODY, FileGate, Given
from aesp_proxy.intercept.observe.watches import Seen, Watches, What
from aesp_proxy.model.event import FileOperation

_OPERATIONS: Final = {
    What.OPENED: FileOperation.OPEN,
    What.CREATED: FileOperation.CREATE,
    What.WRITTEN: FileOperation.WRITE,
    What.CHANGED: FileOperation.WRITE,
    What.RENAMED: FileOperation.RENAME,
    What.DELETED: FileOperation.DELETE,
}
_GAP: Final = (
    "too much happened at once: what came and went meanwhile is not recorded; "
    "everything is looked through anew"
)


def serve(gate: FileGate, given: Given) -> None:
    """Record until told to end."""
    watches = Watches(given.trees, given.apart, entries_max=given.entries_max)
    poll = select.poll()
    poll.register(watches.fileno(), select.POLLIN)
    poll.register(given.control, select.POLLIN)
    given.ready()
    try:
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if watches.fileno() in ready:
                _hear(gate, watches)
            if given.control in ready and not given.heard():
                # What the command did last is not lost.
                _hear(gate, watches)
                return
    finally:
        watches.close()


def _hear(gate: FileGate, watches: Watches) -> None:
    try:
        seen = watches.read()
    except AespError as error:
        gate.note_gap(str(error))
        return
    for each in seen:
        _note(gate, each)


def _note(gate: FileGate, seen: Seen) -> None:
    path = seen.path
    if seen.what is What.GAP:
        gate.note_gap(_GAP)
        return
    if seen.what is What.OPENED and not gate.hides(path):
        return
    # Times, owners and numbers of links change all the time.
    if seen.what is What.CHANGED and gate.permits(FileOperation.WRITE, path, path):
        return
    place = seen.to or path
    gate.note_done(
        _OPERATIONS[seen.what],
        path,
        place,
        NOBODY,
        size=_size(place),
        is_directory=seen.is_directory,
    )


def _size(path: str) -> int:
    try:
        status = os.lstat(path)
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
