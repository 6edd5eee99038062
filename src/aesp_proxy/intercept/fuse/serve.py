"""Serve views of directories until told to stop: the loop of the file guard.

Polled are the sessions, what others change on disk, and what the supervisor says.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from aesp_proxy.intercept.file_port import FileGate, Given
from aesp_proxy.intercept.fuse.roots import outermost
from aesp_proxy.intercept.fuse.session import Session
from aesp_proxy.intercept.fuse.tree import Tree
from aesp_proxy.intercept.fuse.watch import Watch
from aesp_proxy.intercept.other_names import OtherNames

_KIND: Final = "fuse"
_READABLE: Final = select.POLLIN | select.POLLERR | select.POLLHUP


def serve(gate: FileGate, given: Given) -> None:
    """Serve the views of a run: the ``Serve`` of this backend."""
    roots = outermost(given.trees)
    devices = [descriptor for kind, descriptor in given.descriptors if kind == _KIND]
    other_names = OtherNames(
        gate,
        roots,
        entries_max=given.entries_max,
        apart=[target for target, _ in given.covers],
        tend=partial(_heed, given),
    )
    views = [
        view_of(
            root,
            device,
            gate,
            covers={target: source for target, source in given.covers if _lies_in(target, root)},
            other_names=other_names,
        )
        for root, device in zip(roots, devices, strict=True)
    ]
    given.ready()
    serve_trees(views, given.control, given.heard, other_names)


def _heed(given: Given) -> None:
    """Answer the supervisor while all others wait; its end is noticed by who serves."""
    if select.select([given.control], [], [], 0)[0]:
        given.heard()


def _lies_in(path: str, root: str) -> bool:
    return path.startswith(f"{root}/")


def view_of(
    root: str,
    device: int,
    gate: FileGate,
    *,
    covers: Mapping[str, str] | None = None,
    other_names: OtherNames,
) -> Session:
    """Make the session of a directory; ``other_names`` is shared by all views of a run."""
    tree = Tree(root, gate, covers=covers, other_names=other_names)
    with contextlib.suppress(OSError):
        # Without it the kernel keeps what it is told for a second only.
        tree.watch = Watch()
    return Session(device, tree)


def serve_trees(
    views: Sequence[Session],
    control: int | None,
    heard: Callable[[], bool],
    other_names: OtherNames | None = None,
) -> None:
    """Serve until all sessions are over, or until ``heard`` says False.

    ``other_names`` are looked for while there is nothing else to do.
    UnavailableError when a directory was removed while it was served.
    """
    os.umask(0)
    _raise_descriptors()
    poll = select.poll()
    open_views = {view.device: view for view in views}
    watched = {view.watched: view for view in views if view.watched >= 0}
    for device in open_views:
        os.set_blocking(device, False)
    for descriptor in (*open_views, *watched, *(() if control is None else (control,))):
        poll.register(descriptor, select.POLLIN)
    while open_views:
        is_idle = other_names is None or other_names.is_done
        for descriptor, event in poll.poll(None if is_idle else 0):
            if not event & _READABLE:
                continue
            if descriptor == control:
                if not heard():
                    return
                for each in open_views.values():
                    each.refresh()
            elif descriptor in watched:
                watched[descriptor].catch_up()
            elif not open_views[descriptor].drain():
                open_views[descriptor].check_root()
                poll.unregister(descriptor)
                del open_views[descriptor]
        if other_names is not None:
            other_names.step()


def _raise_descriptors() -> None:
    """Take as many descriptors as there may be: each open file is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
