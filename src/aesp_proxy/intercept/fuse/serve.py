"""Serve views of directories until told to stop: the loop of the file guard.

Polled are the sessions, what others change on disk, and what the supervisor says.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from aesp_proxy.intercept.file_port import FileGate, Given
from aesp_proxy.intercept.fuse.nodes import Inode
from aesp_proxy.intercept.fuse.roots import outermost
from aesp_proxy.intercept.fuse.session import Session
from aesp_proxy.intercept.fuse.tracked import tracked_paths
from aesp_proxy.intercept.fuse.tree import Tree
from aesp_proxy.intercept.fuse.watch import Watch
from aesp_proxy.intercept.stage.survey import survey

_KIND: Final = "fuse"
_READABLE: Final = select.POLLIN | select.POLLERR | select.POLLHUP


def serve(gate: FileGate, given: Given) -> None:
    """Serve the views of a run: the ``Serve`` of this backend."""
    roots = outermost(given.trees)
    devices = [descriptor for kind, descriptor in given.descriptors if kind == _KIND]
    forbidden: set[Inode] = set()
    views = [
        view_of(
            root,
            device,
            gate,
            covers={target: source for target, source in given.covers if _lies_in(target, root)},
            entries_max=given.entries_max,
            forbidden=forbidden,
        )
        for root, device in zip(roots, devices, strict=True)
    ]
    given.ready()
    serve_trees(views, given.control, given.heard)


def _lies_in(path: str, root: str) -> bool:
    return path.startswith(f"{root}/")


def view_of(
    root: str,
    device: int,
    gate: FileGate,
    *,
    covers: Mapping[str, str] | None = None,
    entries_max: int,
    forbidden: set[Inode] | None = None,
) -> Session:
    """Survey a directory for the files that have a forbidden name, and make its session.

    ``forbidden`` is what several views know of each other's. ConfigError for a directory
    with more than ``entries_max`` names.
    """
    tree = Tree(root, gate, covers=covers)
    with contextlib.suppress(OSError):
        # Without it the kernel keeps what it is told for a second only.
        tree.watch = Watch()
    apart = frozenset(covers or ())
    found = survey(Path(root), gate.hides, entries_max=entries_max, apart=apart, notes_links=False)
    if forbidden is not None:
        tree.forbidden = forbidden
    tree.forbidden.update(found.inodes)
    tree.shown = tracked_paths(root, found.hidden)
    return Session(device, tree)


def serve_trees(views: Sequence[Session], control: int | None, heard: Callable[[], bool]) -> None:
    """Serve until all sessions are over, or until ``heard`` says False.

    UnavailableError when a directory was removed while it was served.
    """
    os.umask(0)
    _raise_descriptors()
    poll = select.poll()
    open_views = {view.device: view for view in views}
    watched = {view.watched: view for view in views if view.watched >= 0}
    for descriptor in (*open_views, *watched, *(() if control is None else (control,))):
        poll.register(descriptor, select.POLLIN)
    while open_views:
        for descriptor, event in poll.poll():
            if not event & _READABLE:
                continue
            if descriptor == control:
                if not heard():
                    return
                for each in open_views.values():
                    each.refresh()
            elif descriptor in watched:
                watched[descriptor].catch_up()
            elif not open_views[descriptor].step():
                open_views[descriptor].check_root()
                poll.unregister(descriptor)
                del open_views[descriptor]


def _raise_descriptors() -> None:
    """Take as many descriptors as there may be: each open file is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
