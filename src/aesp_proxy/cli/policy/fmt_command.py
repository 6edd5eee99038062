"""``aesp-proxy policy fmt``: one layout for policy files, comments kept, meaning unchanged.

Exit codes: 0 done, or nothing to do; 1 with --check or --diff when something would change,
3 a policy cannot be read or laid out, 5 wrong use.
"""

from __future__ import annotations

import difflib
import os
import stat
import sys
from pathlib import Path
from typing import Final

import click

from aesp_proxy.cli.exits import ExitCode
from aesp_proxy.cli.output import error_line, printable
from aesp_proxy.cli.output import line as notice
from aesp_proxy.daemon.policy_files import lone_parents, read_text
from aesp_proxy.decide.policy.document import TEXT_BYTES_MAX
from aesp_proxy.decide.policy.layout.same import laid_out
from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.errors import ConfigError
from aesp_proxy.keys import write_atomic

_STDIN: Final = "-"


@click.command("fmt", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 where it would change.")
@click.option("--diff", is_flag=True, help="The same, and print what would change.")
@click.pass_context
def fmt_command(ctx: click.Context, files: tuple[str, ...], *, check: bool, diff: bool) -> None:
    """Bring policy files into the one layout: order of keys, indentation, quotes, blank lines.

    Comments and the order of lists stay, and the meaning does: what was read and what would be
    written must be the same policy, or nothing is written. '-' reads standard input and writes
    standard output. Exit code: 0 done or nothing to do, 1 with --check or --diff when a file
    would change, 3 a policy cannot be read, 5 wrong use.
    """
    code = ExitCode.DONE
    for name in dict.fromkeys(files):
        try:
            changed = _piped(write=not (check or diff), diff=diff) if name == _STDIN else _laid(
                Path(name), write=not (check or diff), diff=diff
            )  # fmt: skip
        except ConfigError as error:
            error_line(str(error))
            code = ExitCode.CONFIG
            continue
        if changed and (check or diff) and code is ExitCode.DONE:
            code = ExitCode.FINDINGS
        if changed and not diff and name != _STDIN:
            notice(f"{'would change' if check else 'changed'}: {name}")
    ctx.exit(code)


def _laid(path: Path, *, write: bool, diff: bool) -> bool:
    """Lay a file out; return whether that changes it."""
    text = read_text(path)
    made = _same_policy(text, str(path), path)
    data = made.encode()
    if data == _bytes_of(path):
        return False
    if diff:
        _print_diff(text, made, str(path))
    if write:
        # Through a link to the file itself, so that the link stays one.
        target = Path(os.path.realpath(path))
        try:
            write_atomic(target, data, mode=stat.S_IMODE(target.stat().st_mode))
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}", where=str(path)) from None
    return True


def _piped(*, write: bool, diff: bool) -> bool:
    data = sys.stdin.buffer.read(TEXT_BYTES_MAX + 1)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError("not UTF-8", where="standard input") from None
    made = _same_policy(text, "standard input", Path("standard input"))
    if diff:
        _print_diff(text, made, "standard input")
    if write:
        sys.stdout.write(made)
    return made.encode() != data


def _same_policy(text: str, where: str, path: Path) -> str:
    """Return a text laid out; ``ConfigError`` where it is no policy or would be another one."""
    before = load_policy(text, where, lone_parents(path, where))
    made = laid_out(text, where)
    after = load_policy(made, where, lone_parents(path, where))
    if before.hash != after.hash:
        raise ConfigError(
            "the layout would change the policy",
            where=where,
            remedy="the file stays as it is; please report it",
        )
    return made


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from None


def _print_diff(text: str, made: str, where: str) -> None:
    rows = difflib.unified_diff(
        text.splitlines(), made.splitlines(), where, f"{where} (laid out)", lineterm=""
    )
    sys.stdout.writelines(printable(row) + "\n" for row in rows)
