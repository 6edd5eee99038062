"""``aesp-proxy policy compile``: the levels of a hierarchy as the policy of one scope.

The same files give the same bytes on every machine: the time of the version is given,
``SOURCE_DATE_EPOCH``, or that of the last commit, never the clock.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from aesp_proxy.cli.exits import ExitCode
from aesp_proxy.cli.output import error_line, printable
from aesp_proxy.cli.output import line as notice
from aesp_proxy.cli.policy.compile_table import table_of
from aesp_proxy.daemon.policy_compile import (
    VersionTime,
    compile_file,
    compile_scope,
    steps_of,
    version_time,
)
from aesp_proxy.daemon.policy_exceptions import read_keys
from aesp_proxy.daemon.policy_files import check_secret_rules
from aesp_proxy.daemon.policy_hierarchy import PolicyHierarchy
from aesp_proxy.decide.policy.compile import Compiled
from aesp_proxy.decide.policy.compiled_json import to_json
from aesp_proxy.decide.policy.scope import parse_scope
from aesp_proxy.errors import ConfigError
from aesp_proxy.keys import write_atomic

_PATH = click.Path(path_type=Path)


@click.command("compile", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--root", type=_PATH, metavar="DIR", help="The folder with the hierarchy.")
@click.option(
    "--scope", "scope_text", metavar="KEY=NAME,...", help="framework, region, unit, team."
)
@click.option("--policy", "policy_path", type=_PATH, metavar="FILE", help="Compile one file alone.")
@click.option("--hierarchy", "hierarchy_path", type=_PATH, metavar="FILE", help="The hierarchy.")
@click.option("--out", "out_path", type=_PATH, metavar="FILE", help="Write it there.")
@click.option("--time", "time_text", metavar="RFC3339", help="The time of the version.")
@click.option(
    "--exception", "exceptions", type=_PATH, multiple=True, metavar="FILE", help="One more."
)
@click.option(
    "--exception-key",
    "key_paths",
    type=_PATH,
    multiple=True,
    metavar="FILE",
    help="A public key that signs exceptions (PEM, Ed25519).",
)
@click.option("--format", "form", type=click.Choice(["table", "json"]), help="What is printed.")
@click.pass_context
def compile_command(
    ctx: click.Context,
    root: Path | None,
    scope_text: str | None,
    policy_path: Path | None,
    hierarchy_path: Path | None,
    out_path: Path | None,
    time_text: str | None,
    exceptions: tuple[Path, ...],
    key_paths: tuple[Path, ...],
    form: str | None,
) -> None:
    """Join the levels of a hierarchy into the policy of one scope.

    A level that would weaken what stands above it is refused, with both places and a
    witness. Prints a table, or the compiled policy as JSON; --out writes the JSON to a file,
    which can be given wherever a policy can.
    """
    if (root is None) == (policy_path is None):
        raise click.UsageError("give either --root or --policy", ctx)
    if policy_path is not None and (scope_text or exceptions or hierarchy_path):
        raise click.UsageError("--policy takes no scope, hierarchy or exceptions", ctx)
    time = _time(time_text, root or policy_path or Path())
    if root is None:
        made = compile_file(policy_path or Path(), time=time)
    else:
        found, scope = PolicyHierarchy(root, hierarchy_path), parse_scope(scope_text or "")
        weakenings = [each for step in steps_of(found, scope) for each in step.weakenings]
        for weakening in weakenings:
            error_line(str(weakening.error()))
        if weakenings:
            ctx.exit(ExitCode.CONFIG)
        made = compile_scope(
            found,
            scope,
            time=time,
            keys=read_keys(key_paths),
            more_exceptions=exceptions,
        )
    check_secret_rules(made.policy)
    for warning in made.policy.warnings:
        notice(f"warning: {warning}")
    data = to_json(made)
    if out_path is not None:
        _write(out_path, data)
    if out_path is not None and form is None:
        sys.stdout.write(printable(f"compiled {made.policy.stamp} to {out_path}") + "\n")
        return
    _print(made, data, form)


def _time(text: str | None, folder: Path) -> VersionTime:
    time = version_time(text, os.environ, folder)
    if not time.source:
        notice("warning: no commit and no --time, so the version has the time 19700101000000")
    return time


def _write(path: Path, data: bytes) -> None:
    if path.is_dir():
        raise ConfigError("a directory, not a file", where=str(path), remedy="name the file")
    write_atomic(path, data, mode=0o644)


def _print(made: Compiled, data: bytes, form: str | None) -> None:
    if form == "json":
        sys.stdout.write(data.decode())
        return
    for row in table_of(made):
        sys.stdout.write(printable(row) + "\n")
