"""What the log's process last said of itself; advice, for figures and for `aggregator log show`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aesp_proxy import keys

if TYPE_CHECKING:
    from aesp_proxy.aggregator.identity import DataDir


@dataclass(frozen=True, slots=True, kw_only=True)
class LogStatus:
    """What the log's process last said: ``alarm`` is why nothing is signed or published."""

    size: int = 0
    published: int = 0
    alarm: str = ""
    witnesses: tuple[tuple[str, int, str], ...] = ()
    """Name, how many entries it has cosigned, what is wrong with it."""


def write_log_status(data: DataDir, status: LogStatus) -> None:
    """Say how the log is, for figures and for ``aggregator log show``."""
    said = {
        "size": status.size,
        "published": status.published,
        "alarm": status.alarm,
        "witnesses": status.witnesses,
    }
    keys.write_atomic(data.log_status, json.dumps(said).encode())


def read_log_status(data: DataDir) -> LogStatus:
    """Return what was last said; nothing where nothing was."""
    try:
        said = json.loads(data.log_status.read_bytes())
        return LogStatus(
            size=int(said["size"]),
            published=int(said["published"]),
            alarm=str(said["alarm"]),
            witnesses=tuple((str(n), int(size), str(e)) for n, size, e in said["witnesses"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return LogStatus()
