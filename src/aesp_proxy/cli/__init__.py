"""The command line: ``aesp-proxy COMMAND``, each command in a module of its own.

A command's module is imported when the command is used, and only then: asking for
help or a wrong command costs no cryptography and no event loop. Errors reach the
person here and nowhere else, as one line, with the exit codes of ``exits``.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from aesp_proxy import __version__
from aesp_proxy.cli.exits import ExitCode, exit_code_for
from aesp_proxy.cli.lazy import LazyGroup, Table
from aesp_proxy.cli.output import error_line, mend_streams, write_crash
from aesp_proxy.errors import AespError, without_tokens
from aesp_proxy.launch import cores

_COMMANDS: Final[Table] = {
    "run": ("aesp_proxy.cli.run:run", "Run a command whose traffic is decided and recorded."),
    "daemon": ("aesp_proxy.cli.daemon:daemon", "Serve as the proxy of this host."),
    "status": ("aesp_proxy.cli.status:status", "Say how the service of this host is."),
    "capture": (
        "aesp_proxy.cli.capture:capture",
        "Bring what users of this host send to the service.",
    ),
    "files": (
        "aesp_proxy.cli.files:files",
        "Decide which files users of this host may open.",
    ),
    "secrets": (
        "aesp_proxy.cli.secrets:secrets",
        "Register secret values that may not leave, list and forget them.",
    ),
    "why": ("aesp_proxy.cli.why:why", "Say why the last attempts were refused."),
    "check": ("aesp_proxy.cli.check:check", "Decide events from a file, without running anything."),
    "scan": ("aesp_proxy.cli.scan.command:scan", "Find secrets in files, history, or input."),
    "stage": ("aesp_proxy.cli.stage:stage", "Publish or drop what runs have held back."),
    "policy": ("aesp_proxy.cli.policy:policy", "Compile policies, check them, say what they mean."),
    "doctor": (
        "aesp_proxy.cli.doctor:doctor",
        "Say what this machine can enforce, or attack it to see.",
    ),
    "enroll": ("aesp_proxy.cli.enroll:enroll", "Let this host in at an aggregator, by a token."),
    "audit": ("aesp_proxy.cli.audit:audit", "Read, verify and ship the record."),
    "aggregator": (
        "aesp_proxy.cli.aggregator:aggregator",
        "Serve and query the regional aggregator.",
    ),
    "witness": (
        "aesp_proxy.cli.witness:witness",
        "Cosign the log of an aggregator, so that it shows one history only.",
    ),
}


_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class _ReaderGoneError(Exception):
    """Nobody reads standard output any more; click would take the system's own error for itself."""


class _Program(LazyGroup):
    """The whole program: errors become one line and an exit code here, and nowhere else."""

    def main(  # type: ignore[override]  # click's overloads; this one never returns a value
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        **extra: Any,  # noqa: ANN401 - handed on to click
    ) -> NoReturn:
        arguments = list(args) if args is not None else sys.argv[1:]
        extra["standalone_mode"] = False
        mend_streams()
        cores.keep_none()  # every command reads what may hold a secret: keys, policies, records
        try:
            answer = super().main(arguments, prog_name or "aesp-proxy", **extra)
            sys.stdout.flush()
        except Exception as error:  # noqa: BLE001 - the process run loop: no traceback shown
            sys.exit(_answer_for(error, arguments))
        except KeyboardInterrupt:
            sys.exit(ExitCode.INTERRUPTED)
        sys.exit(answer if isinstance(answer, int) else ExitCode.DONE)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - what the command returns
        """Run the command; click would exit with 1, which is for findings, at a closed pipe."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderGoneError from error


def _answer_for(error: Exception, arguments: Sequence[str]) -> int:
    """Tell the person about an error, in a line, and return the exit code."""
    match error:
        case AespError():
            error_line(str(error))
            return exit_code_for(error)
        case click.Abort():
            return ExitCode.INTERRUPTED
        case click.ClickException():
            error_line(_usage(error))
            return ExitCode.USAGE
        case BrokenPipeError() | _ReaderGoneError():
            _drop_output()
            return ExitCode.PIPE_CLOSED
        case OSError() if error.errno in _NO_ROOM:
            _drop_output()
            error_line(f"cannot write: {error.strerror} (make room, and run it again)")
            return ExitCode.RUNTIME
        case _:
            place = write_crash(error, _state_dir(arguments))
            told = f"; the details are in {place}" if place else ""
            error_line(f"a fault of ours stopped it: {type(error).__name__}{told}")
            return ExitCode.RUNTIME


def _drop_output() -> None:
    """Let what is left in standard output go: the flush at exit must not complain of it again."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f" (see {context.command_path} --help)" if context else ""
    return without_tokens(" ".join(error.format_message().split())) + hint


def _state_dir(arguments: Sequence[str]) -> Path:
    """Return the state directory as it was named, for a fault that came before it was read."""
    for index, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument.startswith("--state="):
            return Path(argument.partition("=")[2])
        if argument == "--state" and index + 1 < len(arguments):
            return Path(arguments[index + 1])
    from aesp_proxy.daemon.config_load import default_state_dir

    return default_state_dir(os.environ, is_root=os.geteuid() == 0)


@click.group(
    cls=_Program, table=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="aesp-proxy")
def main() -> None:
    """Stand between an AI agent and everything outside its task: decide, record, prove."""
