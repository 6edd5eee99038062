"""What an exporter asks of a sink, and how a sink says no.

A sink takes events in order and says of each whether it has it, will never take it,
or may take it later. A sink that raises has promised nothing about any of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from aesp_proxy.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aesp_proxy.aggregator.export.event import ExportEvent


class LaterError(UnavailableError):
    """The sink cannot be reached, is busy, or is set up wrongly: try all again later."""

    def __init__(self, message: str, *, where: str = "", after_s: float = 0.0) -> None:
        super().__init__(message, where=where)
        self.after_s = after_s


class UnacceptableError(InputError):
    """The sink takes the request for wrong or too large: try with fewer events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """An event and what is sent of it: JSON values, or a line."""

    event: ExportEvent
    body: dict[str, Any] | str

    @property
    def id(self) -> str:
        """The identity by which a receiver can tell a repeat."""
        return self.event.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What became of events, by their index; those not named were taken."""

    refused: dict[int, str] = field(default_factory=dict)
    later: dict[int, str] = field(default_factory=dict)
    after_s: float = 0.0


class Sink(Protocol):
    """One receiver."""

    def deliver(self, events: Sequence[Outgoing]) -> Delivery:
        """Send ``events``; on return those not named in the answer are the receiver's.

        LaterError: nothing is known to be taken. UnacceptableError: the request as a
        whole is refused, one with fewer events may not be.
        """

    def close(self) -> None:
        """Let connections go."""
