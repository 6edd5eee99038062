"""The labels of what a session has read, from the file guard to the proxy of the same run.

A pair of unix sockets that keep messages apart, one way. The guard sends a label before it
lets the file be opened; the proxy takes what waits each time a rule may ask. So whatever a
command sends after it has read something is decided by who knows of it. An end of the
channel, and what cannot be read in it, make the labels unknown for good: a rule that asks
for them then errs, and refuses if it restricts.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Final

LABELS: Final = "labels"
"""The kind of the descriptor of the guard's end."""
_MESSAGE_BYTES_MAX: Final = 65_536
_LABELS_MAX: Final = 10_000


def label_channel() -> tuple[socket.socket, socket.socket]:
    """Return the guard's end and the proxy's end."""
    tells, hears = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return tells, hears


class LabelsTold:
    """The guard's end: tells each label once."""

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        self._channel = channel
        self._told: set[str] = set()

    def tell(self, labels: tuple[str, ...] | None) -> bool:
        """Say what was read, None for what nobody looked at; False when it cannot be said."""
        new = [""] if labels is None else list(labels)
        try:
            for label in new:
                if label not in self._told:
                    self._channel.send(json.dumps(label or None).encode())
                    self._told.add(label)
        except OSError:
            return False
        return True


class LabelsHeard:
    """The proxy's end: what was told until now."""

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        self._channel = channel
        self._labels: tuple[str, ...] | None = ()

    def now(self) -> tuple[str, ...] | None:
        """Return the labels of what was read, in their order; None when they are not known."""
        while self._labels is not None:
            try:
                data = self._channel.recv(_MESSAGE_BYTES_MAX)
                label = json.loads(data)
            except BlockingIOError:
                break
            except (OSError, ValueError):
                label = None  # it is gone: an end reads as an empty message
            self._labels = _with(self._labels, label)
        return self._labels


def heard_by(channel: socket.socket | None) -> Callable[[], tuple[str, ...] | None]:
    """Return what says the labels of now; without a channel nobody knows them."""
    return (lambda: None) if channel is None else LabelsHeard(channel).now


def _with(labels: tuple[str, ...], label: object) -> tuple[str, ...] | None:
    if not isinstance(label, str) or len(labels) >= _LABELS_MAX:
        return None
    return tuple(sorted({*labels, label}))
