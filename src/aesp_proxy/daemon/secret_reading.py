"""Look at the sources of registered values again and again, and hand on what is new."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from aesp_proxy.daemon.freed import overwrite_freed
from aesp_proxy.daemon.secret_registry import Registry, told_broken
from aesp_proxy.decide.secrets.registered import Entry

LOOK_S: Final = 2.0


async def keep_reading(
    registry: Registry,
    give: Callable[[list[Entry]], Awaitable[None]],
    notice: Callable[[str], None],
) -> None:
    """Register what changed sources say, for ever; ``give`` hands what is new to workers.

    ``notice`` is told once of a source that has changed and cannot be read.
    """
    watch = registry.watch
    told: set[str] = set()
    known_broken = set() if watch is None else set(watch.broken)
    if len(registry):
        overwrite_freed()  # what was read at the start: later than then, it delays nobody
    while watch is not None:
        await trio.sleep(LOOK_S)
        added, _ = registry.add(await trio.to_thread.run_sync(watch.changed))
        if added:
            await give(added)
            overwrite_freed()
        for source in watch.unread.keys() - told:
            notice(f"{watch.unread[source]}: what is new in it is not looked for")
        told = set(watch.unread)
        for line in told_broken(
            {one: watch.broken[one] for one in watch.broken.keys() - known_broken}
        ):
            notice(line)
        known_broken = set(watch.broken)
