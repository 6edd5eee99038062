"""Fuzz target: what a fanotify group hands out gives events or an InputError.

Never are there more of them than there are bytes for.
"""

from __future__ import annotations

import contextlib

from aesp_proxy.errors import InputError
from aesp_proxy.intercept.fanotify.kernel import read_changes, read_events
from aesp_proxy.intercept.fanotify.who import read_intent


class FindingError(AssertionError):
    """A promise that did not hold."""


def fuzz_one(data: bytes) -> None:
    """Run one input; anything but a value or an InputError is a finding."""
    read_intent(data)
    for read in (read_events, read_changes):
        with contextlib.suppress(InputError):
            if len(read(data)) * 24 > len(data):
                raise FindingError(data)
