"""``aesp-proxy policy diff``: what changes in meaning from one policy to another.

Exit codes: 0 nothing changes in meaning, 1 something does, 3 a policy is wrong, 5 wrong
use.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from aesp_proxy.cli.exits import ExitCode
from aesp_proxy.cli.output import line as notice
from aesp_proxy.cli.policy.diff_report import json_text, lines_of
from aesp_proxy.cli.policy.paper import write_lines
from aesp_proxy.cli.policy.subject import PATH, read_subject
from aesp_proxy.daemon.policy_files import check_secret_rules
from aesp_proxy.decide.policy.difference import Direction
from aesp_proxy.decide.policy.difference_values import differences
from aesp_proxy.decide.policy.policy import Policy

_TWO: Final = 2


@click.command("diff", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("paths", nargs=-1, metavar="[A B]", type=PATH)
@click.option("--root", "roots", multiple=True, type=PATH, metavar="DIR",
              help="A folder with a hierarchy; twice for two of them.")  # fmt: skip
@click.option("--scope", "scopes", multiple=True, metavar="KEY=NAME,...",
              help="The scope of it; twice for two of them.")  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True
)
def diff(
    *, paths: tuple[Path, ...], roots: tuple[Path, ...], scopes: tuple[str, ...], form: str
) -> int:
    """Say what changes in meaning from policy A to policy B, each change with a witness.

    A witness is an attempt that both policies have decided; it can be given to policy
    explain as it is printed. What is only text is told as such. Exit code: 0 nothing
    changes, 1 something does, and whether any of it is weaker is said.
    """
    before, after = _both(paths, roots, scopes)
    changes = differences(before, after)
    if form == "json":
        sys.stdout.write(json_text(before, after, changes))
    else:
        write_lines(lines_of(before, after, changes))
    real = [change for change in changes if change.direction is not Direction.TEXT]
    if any(change.direction is Direction.WEAKER for change in real):
        notice("the second policy is weaker than the first")
    return ExitCode.FINDINGS if real else ExitCode.DONE


def _both(
    paths: tuple[Path, ...], roots: tuple[Path, ...], scopes: tuple[str, ...]
) -> tuple[Policy, Policy]:
    if bool(paths) == bool(roots):
        raise click.UsageError("give two policy files, or --root and --scope")
    if paths:
        if len(paths) != _TWO or scopes:
            raise click.UsageError("give two policy files")
        before, after = (read_subject(path, None, None) for path in paths)
    else:
        if len(roots) > _TWO or len(scopes) > _TWO or max(len(roots), len(scopes)) != _TWO:
            raise click.UsageError("give --root or --scope twice")
        first, last = scopes[:1], scopes[-1:]
        before = read_subject(None, roots[0], first[0] if first else None)
        after = read_subject(None, roots[-1], last[0] if last else None)
    for policy in (before, after):
        check_secret_rules(policy)
    return before, after
