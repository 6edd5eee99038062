"""Fuzz target: what processes hand each other, and structures the kernel copies from the agent.

Each reads its own bytes back; anything else is the error its page names.
"""

from __future__ import annotations

import contextlib

from aesp_proxy.errors import InputError
from aesp_proxy.intercept.capture.wish import read_wish as read_capture
from aesp_proxy.intercept.notify.kernel import read_how, read_notification
from aesp_proxy.launch.files import read_wish as read_files
from aesp_proxy.launch.isolation.layers import read_report
from aesp_proxy.launch.isolation.wish import read_wish as read_isolation
from aesp_proxy.record.enrolment import EnrolmentRequest, Token


def fuzz_one(data: bytes) -> None:
    """Run one input; anything but a value or the error named is a finding."""
    text = data.decode("utf-8", "replace")
    for read in (read_capture, read_files):
        with contextlib.suppress(ValueError):
            read(text)
    with contextlib.suppress(ValueError):
        read_report(text.split(" "))
    with contextlib.suppress(ValueError):
        read_isolation(text.split(" "))
    with contextlib.suppress(InputError):
        read_notification(data)
    with contextlib.suppress(OSError):
        read_how(data)
    with contextlib.suppress(InputError):
        Token.parse(text)
    with contextlib.suppress(InputError):
        EnrolmentRequest.decode(data)
