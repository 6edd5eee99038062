"""Have the kernel read a big file itself: FUSE passthrough (Linux 6.9, CAP_SYS_ADMIN)."""

from __future__ import annotations

import contextlib
import fcntl
import struct
from typing import Final

# _IOW(229, 1, struct fuse_backing_map) and _IOW(229, 2, uint32_t)
_BACKING_OPEN: Final = 0x4010E501
_BACKING_CLOSE: Final = 0x4004E502


def open_backing(device: int, fd: int) -> int:
    """Register an open file; return its number, 0 where the kernel or privilege does not allow."""
    try:
        # A mutable buffer, or the number that the call returns is lost.
        return int(fcntl.ioctl(device, _BACKING_OPEN, bytearray(struct.pack("=iIQ", fd, 0, 0))))
    except OSError:
        return 0


def close_backing(device: int, number: int) -> None:
    """Take a registration back; whoever has the file open keeps it."""
    if number and device >= 0:
        with contextlib.suppress(OSError):
            fcntl.ioctl(device, _BACKING_CLOSE, bytearray(struct.pack("=I", number)))
