"""Evaluate a filter of system calls, instruction by instruction."""

from __future__ import annotations

import struct


def evaluate(code: bytes, data: bytes) -> int:
    """Run a classic BPF program on one ``seccomp_data``."""
    steps = list(struct.iter_unpack("=HBBI", code))
    accumulator, at = 0, 0
    while True:
        operation, when, unless, value = steps[at]
        at += 1
        match operation:
            case 0x20:
                accumulator = struct.unpack_from("=I", data, value)[0]
            case 0x54:
                accumulator &= value
            case 0x15:
                at += when if accumulator == value else unless
            case 0x35:
                at += when if accumulator >= value else unless
            case 0x45:
                at += when if accumulator & value else unless
            case 0x06:
                return value
            case _:
                raise AssertionError(operation)
