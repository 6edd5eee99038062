"""``aesp-proxy policy test``: try suites of cases on the policies that they are about.

Exit codes: 0 every case is answered as expected, 1 one is not or too little is covered,
3 a policy or a suite is wrong, 5 wrong use (also: no suite, or no case by that name).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from aesp_proxy.cli.exits import ExitCode
from aesp_proxy.cli.output import line, printable
from aesp_proxy.cli.policy.suite_files import SuiteResult, SuiteRunner, find_suites
from aesp_proxy.cli.policy.suite_report import as_json, as_junit, readable
from aesp_proxy.daemon.rule_cache import shared_cache_dir

_PERCENT: Final = click.FloatRange(0, 100)
_BAR_SUITES_MIN: Final = 4


@click.command("test", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "junit"]),
    default="table",
    show_default=True,
    help="For people, as JSON, or as JUnit XML.",
)
@click.option(
    "--coverage-min",
    type=_PERCENT,
    metavar="PERCENT",
    help="Fail when a suite covers a smaller share of the rules: each matched by one case, "
    "and by one not.",
)
@click.option(
    "--conjuncts-min",
    type=_PERCENT,
    metavar="PERCENT",
    help="The same for the parts of conditions that && joins: each seen true, and seen false.",
)
@click.option("-k", "part", metavar="TEXT", default="", help="Only cases whose names hold this.")
@click.pass_context
def test_command(
    ctx: click.Context,
    paths: tuple[Path, ...],
    form: str,
    coverage_min: float | None,
    conjuncts_min: float | None,
    part: str,
) -> None:
    """Try suites of cases on the policies that they are about.

    PATH is a suite (NAME.test.yaml), a policy with its suite beside it, or a folder, whose
    suites are all run; the folder you are in when there is none. Exit code: 0 all as
    expected, 1 not, or less covered than asked for, 3 a policy or suite is wrong, 5 wrong use.
    """
    if part and (coverage_min is not None or conjuncts_min is not None):
        message = "-k runs a part of the cases, and a minimum of coverage speaks of all"
        raise click.UsageError(message, ctx)
    results = _run(find_suites(paths or (Path(),)), part)
    if not any(result.results for result in results):
        message = f"no case has a name that holds {part!a}"
        raise click.UsageError(message, ctx)
    _print(results, form)
    too_little = [
        f"{result.where}: {name} {percent:.1f}% covered, {least:g}% asked for"
        for result in results
        for name, percent, least in (
            ("rules", result.covered.rules_percent, coverage_min),
            ("conjuncts", result.covered.conjuncts_percent, conjuncts_min),
        )
        if least is not None and percent < least
    ]
    for text in too_little:
        line(text)
    failed = any(result.failures for result in results)
    ctx.exit(ExitCode.FINDINGS if failed or too_little else ExitCode.DONE)


def _run(suites: Sequence[Path], part: str) -> tuple[SuiteResult, ...]:
    """Run the suites, with a bar where a person waits for many."""
    runner = SuiteRunner(shared_cache_dir(), part)
    if len(suites) < _BAR_SUITES_MIN or not sys.stderr.isatty():
        return tuple(runner.run(suite) for suite in suites)
    with click.progressbar(suites, label="testing", file=sys.stderr) as bar:
        return tuple(runner.run(suite) for suite in bar)


def _print(results: Sequence[SuiteResult], form: str) -> None:
    if form == "json":
        sys.stdout.write(as_json(results) + "\n")
        return
    lines = as_junit(results) if form == "junit" else map(printable, readable(results))
    sys.stdout.writelines(text + "\n" for text in lines)
