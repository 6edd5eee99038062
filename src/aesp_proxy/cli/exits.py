"""Exit codes, all in one place; they are API.

``run`` returns the command's own code, or, as a shell does, 126 and 127 for a
command that cannot be run and 128 + N for one that signal N ended.
"""

from __future__ import annotations

from enum import IntEnum

from aesp_proxy.errors import (
    AespError,
    ConfigError,
    InputError,
    RecordError,
    TrustError,
    UnavailableError,
)


class ExitCode(IntEnum):
    """What the program answers with."""

    DONE = 0
    FINDINGS = 1
    REFUSED = 2
    CONFIG = 3
    RUNTIME = 4
    USAGE = 5
    INTERRUPTED = 130
    PIPE_CLOSED = 141


def exit_code_for(error: AespError) -> ExitCode:
    """Return the exit code that an error which reached the top stands for."""
    match error:
        case ConfigError():
            return ExitCode.CONFIG
        case InputError():
            return ExitCode.USAGE
        case TrustError() | RecordError() | UnavailableError():
            return ExitCode.RUNTIME
        case _:
            return ExitCode.RUNTIME
