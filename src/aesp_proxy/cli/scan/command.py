"""``aesp-proxy scan``: find secrets in files, git history, staged changes, standard input.

By the scanner of the proxy: what is found here is what would be stopped there. Exit
codes: 0 nothing found, 1 (``--exit-code``) leaks, 3 rules, baseline or output cannot be
used, 4 something could not be scanned (leaks or not), 5 wrong use.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import click

from aesp_proxy.cli.exits import ExitCode
from aesp_proxy.cli.output import line as notice
from aesp_proxy.cli.scan.asked import Asked, Mode, asked
from aesp_proxy.cli.scan.gather import Gathered, Sieve, gather
from aesp_proxy.cli.scan.known import Known
from aesp_proxy.cli.scan.report import as_csv, as_json, as_table
from aesp_proxy.cli.scan.rules import looking_for
from aesp_proxy.cli.scan.sarif import as_sarif
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.errors import ConfigError
from aesp_proxy.keys import write_atomic
from aesp_proxy.model.decision import Severity

_FILE: Final = click.Path(path_type=Path)
_NOTES_MAX: Final = 50
_IGNORE_FILE: Final = ".gitleaksignore"
_REPORT_MODE: Final = 0o644


@click.command("scan", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("paths", nargs=-1, metavar="[PATH]...|-")
@click.option("--history", is_flag=True, help="Every line that a commit of PATH (.) ever added.")
@click.option("--staged", is_flag=True, help="What is staged in PATH (.), for a pre-commit hook.")
@click.option("--since", metavar="REV", help="Of the history, what REV does not have.")
@click.option("--log-opts", "log_options", metavar="OPTIONS", help="Of the history, by git log's.")
@click.option(
    "--rules",
    "rule_files",
    multiple=True,
    metavar="FILE",
    type=_FILE,
    help="Rules instead of those that come along; may be given again.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "sarif", "csv"]),
    default="table",
    show_default=True,
    help="For people, as gitleaks' JSON or CSV, or as SARIF 2.1.0.",
)
@click.option("--output", metavar="FILE", type=_FILE, help="Write the report there.")
@click.option(
    "--baseline",
    metavar="FILE",
    type=_FILE,
    help="Leave out what an earlier JSON report has, ours or gitleaks'.",
)
@click.option(
    "--ignore-file",
    metavar="FILE",
    type=_FILE,
    help="Fingerprints to leave out.  [default: .gitleaksignore here and in PATH]",
)
@click.option(
    "--min-severity",
    "severity",
    type=click.Choice([each.word for each in Severity]),
    default="info",
    show_default=True,
    help="Leave out what is below it.",
)
@click.option(
    "--redact",
    type=click.IntRange(75, 100),
    default=75,
    show_default=True,
    metavar="PERCENT",
    help="How much of a secret is hidden; 75 at least.",
)
@click.option("--no-comments", is_flag=True, help="Do not let gitleaks:allow let anything be.")
@click.option("--no-ignore", is_flag=True, help="Scan what git ignores, too.")
@click.option(
    "--max-target-megabytes",
    "megabytes_max",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Leave out larger files.  [default: none]",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Processes for many files.  [default: one a core]",
)
@click.option(
    "--exit-code",
    "leaks_code",
    type=click.IntRange(0, 255),
    default=1,
    show_default=True,
    metavar="N",
    help="What leaks exit with.",
)
@click.pass_context
def scan(  # noqa: PLR0913 - one a flag
    ctx: click.Context,
    paths: tuple[str, ...],
    *,
    rule_files: tuple[Path, ...],
    form: str,
    output: Path | None,
    baseline: Path | None,
    ignore_file: Path | None,
    severity: str,
    redact: int,
    since: str | None,
    log_options: str | None,
    megabytes_max: int,
    jobs: int | None,
    leaks_code: int,
    history: bool,
    staged: bool,
    no_comments: bool,
    no_ignore: bool,
) -> None:
    """Find secrets in files and folders, in git history, or in standard input.

    Folders without what git ignores. No report holds a secret. Exit code: 0 nothing found,
    1 leaks, 3 rules or baseline cannot be used, 4 something could not be scanned, 5 wrong
    use.
    """
    what = asked(
        paths,
        history=history,
        staged=staged,
        since=since,
        log_options=log_options,
        megabytes_max=megabytes_max,
        jobs=jobs or len(os.sched_getaffinity(0)),
        ignoring=not no_ignore,
    )
    key = os.urandom(32)
    looking = looking_for(rule_files, key)
    for warning in looking.warnings:
        notice(f"left out: {warning}")
    sieve = Sieve(
        severity=next(each for each in Severity if each.word == severity),
        known=_known(key, baseline, ignore_file, what),
        comments=not no_comments,
    )
    found = gather(looking.spot, what, sieve)
    found.leaks = [
        replace(leak, masked=_shown(leak.masked, leak.length, redact)) for leak in found.leaks
    ]
    _write(_report(form, found, looking.rules), output)
    _say(found, what)
    if found.unread:
        ctx.exit(ExitCode.RUNTIME)
    ctx.exit(leaks_code if found.leaks else ExitCode.DONE)


def _known(key: bytes, baseline: Path | None, ignore_file: Path | None, what: Asked) -> Known:
    known = Known(key)
    if baseline is not None:
        known.read_baseline(baseline)
    if ignore_file is not None:
        known.read_ignore_file(ignore_file)
        return known
    folders = [Path(), *(Path(path) for path in what.paths if what.mode is not Mode.STDIN)]
    for folder in dict.fromkeys(folders):
        if (folder / _IGNORE_FILE).is_file():
            known.read_ignore_file(folder / _IGNORE_FILE)
    return known


def _shown(masked: str, length: int, redact: int) -> str:
    """Hide ``redact`` percent of a secret: a mask never shows more than a quarter."""
    shown = masked.rstrip("*")
    return shown[: length * (100 - redact) // 100] + masked[len(shown) :]


def _report(form: str, found: Gathered, rules: Sequence[Rule]) -> str:
    kinds = {rule.id: rule for rule in rules}
    match form:
        case "json":
            return as_json(found.leaks, kinds)
        case "csv":
            return as_csv(found.leaks, kinds)
        case "sarif":
            return as_sarif(found.leaks, rules, found.unread) + "\n"
        case _:
            return as_table(found.leaks, kinds)


def _write(report: str, output: Path | None) -> None:
    if output is None:
        sys.stdout.write(report)
        sys.stdout.flush()
        return
    place = Path(os.path.realpath(output))  # of a link, what it leads to
    data = report.encode("utf-8", "backslashreplace")
    if place.exists() and not (place.is_file() or place.is_dir()):
        _write_into(place, data)
    else:
        write_atomic(place, data, mode=_REPORT_MODE)


def _write_into(place: Path, data: bytes) -> None:
    """Write to a pipe or a device, which a file in its place would destroy."""
    try:
        with place.open("wb") as file:
            file.write(data)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(place)) from error


def _say(found: Gathered, what: Asked) -> None:
    """Tell on standard error what was scanned, and what was not."""
    for notes, word in ((found.skipped, "left out"), (found.unread, "NOT SCANNED")):
        for file, reason in notes[:_NOTES_MAX]:
            notice(f"{word}: {file}: {reason}")
        if len(notes) > _NOTES_MAX:
            notice(f"{word}: {len(notes) - _NOTES_MAX} more")
    notice(_summary(found, what))


def _summary(found: Gathered, what: Asked) -> str:
    match what.mode:
        case Mode.FILES:
            scanned = _counted(found.files, "file")
        case Mode.HISTORY:
            scanned = _counted(found.commits, "commit")
        case _:
            scanned = what.mode.value
    parts = [_counted(len(found.leaks), "leak")]
    if found.known:
        parts.append(f"{found.known:,} known")
    if found.allowed:
        parts.append(f"{found.allowed:,} let be by a comment")
    if found.unread:
        parts.append(f"{len(found.unread):,} NOT SCANNED")
    return f"{scanned}, {_size(found.bytes_read)}: {', '.join(parts)}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _size(count: int) -> str:
    for step, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= step:
            return f"{count / step:,.1f} {unit}"
    return _counted(count, "byte")
