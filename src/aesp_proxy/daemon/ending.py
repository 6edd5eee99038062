"""How our processes end: waited for without a thread, and put down when they do not go."""

from __future__ import annotations

import os
import signal

import trio

from aesp_proxy.daemon.process import HelperProcess


async def gone(process: HelperProcess) -> None:
    """Wait until ``process`` has ended."""
    if process.exit_code is not None or not process.pid:
        return
    # Popen.wait would need a thread; a pidfd is readable when its process has ended.
    descriptor = os.pidfd_open(process.pid)
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)
    process.collect()


async def stop(process: HelperProcess, *, grace_s: float, stop_s_max: float) -> bool:
    """Wait ``grace_s`` seconds for its end, then TERM, then KILL; say if it went by itself."""
    if process.exit_code is not None or not process.pid:
        return True
    with trio.move_on_after(grace_s):
        await gone(process)
        return True
    process.send_signal(signal.SIGTERM)
    with trio.move_on_after(stop_s_max):
        await gone(process)
        return False
    process.send_signal(signal.SIGKILL)
    process.collect()
    return False
