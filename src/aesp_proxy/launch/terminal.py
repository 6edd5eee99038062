"""Leave the terminal as it was found, when the command could not do so itself.

A full-screen agent that is killed leaves the terminal raw: without echo, without
line ends. A shell mends that only for a job that a signal ended, and we end with
a number. So the settings are kept at the start and put back after such an end.
"""

from __future__ import annotations

import contextlib
import os
import termios
from typing import Final

_STDIN: Final = 0


class Terminal:
    """The terminal on standard input, if there is one."""

    def __init__(self) -> None:
        try:
            self._settings = termios.tcgetattr(_STDIN)
        except termios.error:
            self._settings = []

    def restore(self) -> None:
        """Put the settings back; nothing when there is no terminal or it is not ours now."""
        if not self._settings:
            return
        with contextlib.suppress(OSError, termios.error):
            # From the background this would stop us (SIGTTOU), and the terminal is another's.
            if os.tcgetpgrp(_STDIN) == os.getpgrp():
                termios.tcsetattr(_STDIN, termios.TCSADRAIN, self._settings)
