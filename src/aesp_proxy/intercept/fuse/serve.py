"""Serve views of directories until told to stop: the loop of the file guard.

One session blocks in its reading and costs nothing else; where the supervisor may speak or
there are several, they are polled.
"""

from __future__ import annotations

import os
import resource
import select
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from aesp_proxy.intercept.file_port import FileGate, Given
from aesp_proxy.intercept.fuse.roots import outermost
from aesp_proxy.intercept.fuse.session import Session
from aesp_proxy.intercept.fuse.tree import Tree
from aesp_proxy.intercept.stage.survey import survey

_KIND: Final = "fuse"
_READABLE: Final = select.POLLIN | select.POLLERR | select.POLLHUP


def serve(gate: FileGate, given: Given) -> None:
    """Serve the views of a run: the ``Serve`` of this backend."""
    roots = outermost(given.trees)
    devices = [descriptor for kind, descriptor in given.descriptors if kind == _KIND]
    views = [
        view_of(
            root,
            device,
            gate,
            covers={target: source for target, source in given.covers if _lies_in(target, root)},
            entries_max=given.entries_max,
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
) -> Session:
    """Survey a directory for the files that have a forbidden name, and make its session.

    ConfigError for one with more than ``entries_max`` names.
    """
    tree = Tree(root, gate, covers=covers)
    apart = frozenset(covers or ())
    found = survey(Path(root), gate.hides, entries_max=entries_max, apart=apart, notes_links=False)
    tree.forbidden.update(found.inodes)
    return Session(device, tree)


def serve_trees(views: Sequence[Session], control: int | None, heard: Callable[[], bool]) -> None:
    """Serve until all sessions are over, or until ``heard`` says False."""
    os.umask(0)
    _raise_descriptors()
    if control is None and len(views) == 1:
        while views[0].step():
            pass
        return
    poll = select.poll()
    open_views = {view.device: view for view in views}
    for descriptor in (*open_views, *(() if control is None else (control,))):
        poll.register(descriptor, select.POLLIN)
    while open_views:
        for descriptor, event in poll.poll():
            if not event & _READABLE:
                continue
            view = open_views.get(descriptor)
            if view is None:
                if not heard():
                    return
                for each in open_views.values():
                    each.refresh()
            elif not view.step():
                poll.unregister(descriptor)
                del open_views[descriptor]


def _raise_descriptors() -> None:
    """Take as many descriptors as there may be: each open file is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
