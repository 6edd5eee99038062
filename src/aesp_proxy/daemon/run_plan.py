"""What a run is made of, and how it ends: the words of the supervisor and its callers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from aesp_proxy.daemon.config import Settings
from aesp_proxy.daemon.denials import Door
from aesp_proxy.daemon.secret_registry import Registry


class Child(Protocol):
    """The command under enforcement, prepared but not yet let go."""

    async def release(self) -> None:
        """Let it start."""

    async def run(self) -> int:
        """Wait for its end; return what a shell would say."""

    async def signal(self, number: int) -> None:
        """Relay a signal to it."""

    async def end(self, *, grace_s: float) -> None:
        """Ask it to end, kill it after ``grace_s``."""


class Ended(StrEnum):
    """Why a run ended."""

    CHILD = "the command ended"
    INTERRUPTED = "interrupted before the command was started"
    WORKER_FAILED = "the proxy could not start"
    WORKER_DIED = "the proxy died"
    FILES_DIED = "the file guard died"
    SEALER_FAILED = "the record could not be opened"
    SEALER_DIED = "the record could not be sealed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run is made of. ``notice`` takes one line for the person.

    ``registry`` holds the secret values that may not leave. ``door`` is where the command
    hears why it was refused.
    """

    settings: Settings
    session_id: str
    log: Path
    notice: Callable[[str], None]
    registry: Registry | None = None
    door: Door | None = None
    start_s_max: float = 30.0
    drain_s_max: float = 3.0
    seal_s_max: float = 40.0
    stop_s_max: float = 2.0
    child_grace_s: float = 5.0
    sealer_pause_s: float = 0.5
    sealer_steady_s: float = 60.0
    guard_silence_s_max: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """How a run ended: the child's ``exit_code`` when ``ended`` is CHILD, else 3, 4 or 130.

    ``epoch`` and ``files_epoch`` are those of the journals of the proxy and the file guard, 0
    for none.
    """

    ended: Ended
    exit_code: int
    epoch: int = 0
    message: str = ""
    files_epoch: int = 0
