"""Processes outside for an attacker to turn on: they do nothing, and end when told.

Each lets anybody of its user trace it, so that the machine's own caution (Yama) is not
taken for ours.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

VARIABLE: Final = "AESP_CANARY"
_PROGRAM: Final = """
import ctypes, sys
ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # PR_SET_PTRACER, anybody
print("ready", flush=True)
sys.stdin.read()
"""
_END_S_MAX: Final = 5.0


@contextmanager
def victims(names: Mapping[str, str], *, held: int) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Start a process for each name, with a mark in its environment, and end them all."""
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, mark in names.items():
            started[name] = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={VARIABLE: mark},
                pass_fds=(held,),
            )
        for process in started.values():
            if process.stdout is not None:
                process.stdout.readline()
        yield started
    finally:
        for process in started.values():
            process.kill()
            process.communicate(timeout=_END_S_MAX)
