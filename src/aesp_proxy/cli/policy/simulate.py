"""``aesp-proxy policy simulate``: recorded decisions under a candidate policy.

Exit codes: 0 nothing that can be judged would change, 1 something would, 3 a policy is
wrong, 4 a record cannot be read, 5 wrong use or no records.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

import click

from aesp_proxy.cli.exits import ExitCode
from aesp_proxy.cli.output import line as notice
from aesp_proxy.cli.policy.paper import write_lines
from aesp_proxy.cli.policy.record_rows import Source, find_records, rows_of
from aesp_proxy.cli.policy.replay_rows import Replay
from aesp_proxy.cli.policy.simulate_report import Report, json_text, lines_of
from aesp_proxy.cli.policy.subject import PATH
from aesp_proxy.daemon.pack_files import packs_of
from aesp_proxy.daemon.policy_files import read_policy
from aesp_proxy.decide.policy.policy import Policy
from aesp_proxy.decide.replay_judge import Judge
from aesp_proxy.decide.snapshot import secret_rules
from aesp_proxy.errors import InputError
from aesp_proxy.normalize.fact_table import moment_ns

_DRAWN_EVERY_S: Final = 0.2
_DRAWN_AFTER_S: Final = 0.5
_BAR_CHARS: Final = 30
_END_NS: Final = 2**63


@click.command("simulate", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("records", type=PATH)
@click.option("--policy", "policy_path", type=PATH, required=True, metavar="FILE",
              help="The candidate.")  # fmt: skip
@click.option("--against", type=PATH, metavar="FILE",
              help="The policy to compare with, instead of what was recorded.")  # fmt: skip
@click.option("--since", metavar="TIME", help="From here on, RFC 3339.")
@click.option("--until", metavar="TIME", help="Up to here, RFC 3339.")
@click.option("--limit", type=click.IntRange(0, 10_000), default=20, show_default=True,
              help="Changes that are shown one by one.")  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True
)
def simulate(
    *,
    records: Path,
    policy_path: Path,
    against: Path | None,
    since: str | None,
    until: str | None,
    limit: int,
    form: str,
) -> int:
    """Replay the decisions in RECORDS under another policy, and say which would change.

    RECORDS is a state directory, a directory with batches (a spool, an aggregator's store),
    a batch, or a file that `audit tail --json` wrote. What depends on facts that records do
    not hold is counted apart. Exit code: 0 nothing would change, 1 something would.
    """
    candidate, before = read_policy(policy_path), _optional(against)
    replay = Replay(
        judge=_judge(candidate, before),
        against=None if before is None else _judge(before, before),
        limit=limit,
        since_ns=0 if since is None else moment_ns(since, "--since"),
        until_ns=_END_NS if until is None else moment_ns(until, "--until"),
    )
    source = find_records(records)
    started_s = time.monotonic()
    progress = _Progress(source, shown=sys.stderr.isatty())
    replay.feed(rows_of(source), progress.at)
    progress.clear()
    tally = replay.result()
    if not tally.decisions:
        raise InputError("holds no decision in that time", where=str(records))
    report = Report(
        candidate=candidate, before=before, tally=tally, seconds=time.monotonic() - started_s
    )
    if form == "json":
        sys.stdout.write(json_text(report))
    else:
        write_lines(lines_of(report))
    return ExitCode.FINDINGS if tally.changed else ExitCode.DONE


def _optional(path: Path | None) -> Policy | None:
    return None if path is None else read_policy(path)


def _judge(policy: Policy, before: Policy | None) -> Judge:
    for warning in policy.warnings:
        notice(f"warning: {warning}")
    packs = packs_of(policy)
    rules = secret_rules(policy, packs) if packs else ()
    return Judge(policy, {rule.id: rule.severity for rule in rules}, before)


class _Progress:
    """A bar on standard error: records done, how many a second."""

    def __init__(self, source: Source, *, shown: bool) -> None:
        self._total, self._shown = source.total, shown
        self._started_s = self._drawn_s = time.monotonic()
        self._is_drawn = False

    def at(self, done: int) -> None:
        now = time.monotonic()
        due = now - self._drawn_s >= _DRAWN_EVERY_S and now - self._started_s >= _DRAWN_AFTER_S
        if not self._shown or not due:
            return
        self._drawn_s, self._is_drawn = now, True
        share = min(1.0, done / self._total) if self._total else 0.0
        bar = "█" * int(_BAR_CHARS * share)
        of = f"/{self._total:,}" if self._total else ""
        rate = done / (now - self._started_s)
        sys.stderr.write(f"\r{bar:<{_BAR_CHARS}} {done:,}{of} records, {rate:,.0f}/s ")
        sys.stderr.flush()

    def clear(self) -> None:
        if self._is_drawn:
            sys.stderr.write("\r" + " " * 79 + "\r")
