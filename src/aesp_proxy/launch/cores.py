"""Leave no core of a process that holds secret values, and none the less one of its command."""

from __future__ import annotations

import resource
from contextlib import suppress
from functools import cache
from typing import Final

_NO_CORE: Final = 1
"""A byte, not none: for this value alone the kernel feeds no program either (core(5))."""


@cache
def _before() -> int:
    return resource.getrlimit(resource.RLIMIT_CORE)[0]


def keep_none() -> None:
    """Have the kernel write no core of this process. The hard limit stays, for ``give_back``."""
    _before()
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if hard:  # none at all allows no byte either; a pipe is the operator's affair then
        resource.setrlimit(resource.RLIMIT_CORE, (_NO_CORE, hard))


def give_back(pid: int) -> None:
    """Give a process that was started since the limit that was here before (prlimit(2))."""
    with suppress(OSError, ValueError):  # it has ended, or is another user's by now
        hard = resource.prlimit(pid, resource.RLIMIT_CORE)[1]
        resource.prlimit(pid, resource.RLIMIT_CORE, (_before(), hard))
