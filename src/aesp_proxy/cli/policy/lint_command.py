"""``aesp-proxy policy lint``: find in policies that load what is likely wrong.

Exit codes: 0 nothing worse than a note, 1 a warning or an error, 3 a policy does not load,
5 wrong use.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from aesp_proxy.cli.exits import ExitCode
from aesp_proxy.cli.output import error_line, printable
from aesp_proxy.cli.policy.lint_files import lint_file, lint_scope
from aesp_proxy.cli.policy.lint_report import as_json, as_sarif, readable
from aesp_proxy.decide.policy.lint.checks import CHECKS, told
from aesp_proxy.decide.policy.lint.finding import FindingLevel, LintFinding
from aesp_proxy.decide.policy.lint.run import ordered
from aesp_proxy.decide.policy.scope import parse_scope
from aesp_proxy.errors import ConfigError

_PATH: Final = click.Path(path_type=Path)
_LEVELS: Final = ("none", *(level.value for level in FindingLevel))


@click.command("lint", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", nargs=-1, metavar="[FILE]...", type=_PATH)
@click.option("--root", type=_PATH, metavar="DIR", help="Look at a hierarchy instead.")
@click.option("--scope", "scope_text", metavar="KEY=NAME,...", help="The scope of it.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "sarif"]),
    default="table",
    show_default=True,
    help="For people, as JSON, or as SARIF 2.1.0 for code scanning.",
)
@click.option(
    "--max-severity",
    "accepted",
    type=click.Choice(_LEVELS),
    default="note",
    show_default=True,
    help="The worst finding that still exits with 0.",
)
@click.option("--list", "lists", is_flag=True, help="Print the table of checks and do nothing.")
@click.pass_context
def lint_command(
    ctx: click.Context,
    files: tuple[Path, ...],
    root: Path | None,
    scope_text: str | None,
    form: str,
    accepted: str,
    *,
    lists: bool,
) -> None:
    """Find in policies that load what is likely wrong, and show it by a request.

    Each FILE is looked at with what it extends; --root and --scope look at the policy that a
    hierarchy gives. Only what is sure is told. Exit code: 0 notes at most, 1 warnings or
    errors, 3 a policy does not load, 5 wrong use. --list prints the checks.
    """
    if lists:
        _print_checks()
        return
    if bool(files) == (root is not None):
        raise click.UsageError("give files, or --root and --scope", ctx)
    if scope_text is not None and root is None:
        raise click.UsageError("--scope goes with --root", ctx)
    findings, failures = _looked_at(files, root, scope_text)
    if form == "sarif":
        sys.stdout.write(as_sarif(findings, loads=not failures) + "\n")
    elif form == "json":
        sys.stdout.write(as_json(findings) + "\n")
    else:
        sys.stdout.writelines(printable(row) + "\n" for row in readable(findings))
    for failure in failures:
        error_line(str(failure))
    if failures:
        ctx.exit(ExitCode.CONFIG)
    worst = max((each.level.rank for each in findings), default=-1)
    limit = _LEVELS.index(accepted) - 1
    ctx.exit(ExitCode.FINDINGS if worst > limit else ExitCode.DONE)


def _looked_at(
    files: Sequence[Path], root: Path | None, scope_text: str | None
) -> tuple[tuple[LintFinding, ...], list[ConfigError]]:
    """Return all findings, and why what does not load does not."""
    found: list[LintFinding] = []
    failures: list[ConfigError] = []
    for path in dict.fromkeys(files):
        try:
            found.extend(lint_file(path))
        except ConfigError as error:
            failures.append(error)
            found.append(told("policy-invalid", error.message, error.where or str(path)))
    if root is not None:
        try:
            found.extend(lint_scope(root, parse_scope(scope_text or "")))
        except ConfigError as error:
            failures.append(error)
            found.append(told("policy-invalid", error.message, error.where or str(root)))
    return ordered(found), failures


def _print_checks() -> None:
    for check in CHECKS.values():
        sys.stdout.write(f"{check.check_id}  ({check.level.value})  {check.title}\n")
        sys.stdout.write(f"    {check.help}\n")
