"""``aesp-proxy policy explain``: why an event gets its verdict.

Exit codes: 0 explained, whatever the verdict, 3 the policy is wrong, 5 wrong use or no
attempt.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click

from aesp_proxy.cli.output import line as notice
from aesp_proxy.cli.policy.attempt import attempt_of
from aesp_proxy.cli.policy.explain_report import Report, json_of, lines_of
from aesp_proxy.cli.policy.paper import write_lines
from aesp_proxy.cli.policy.subject import PATH, read_subject, snapshot_with_secrets
from aesp_proxy.decide.explain import explain_event
from aesp_proxy.decide.near_misses import near_misses


@click.command("explain", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("words", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--policy",
    "policy_path",
    type=PATH,
    metavar="FILE",
    help="The policy; default is the built-in baseline.",
)
@click.option("--root", type=PATH, metavar="DIR", help="A folder with a hierarchy instead.")
@click.option("--scope", metavar="KEY=NAME,...", help="The scope of it.")
@click.option(
    "--request", metavar="FACTS", help="The attempt as facts, YAML or JSON; '-' and '@FILE' too."
)
@click.option("--event", metavar="JSON", help="The attempt as an event; '-' and '@FILE' too.")
@click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True
)
def explain(
    *,
    words: tuple[str, ...],
    policy_path: Path | None,
    root: Path | None,
    scope: str | None,
    request: str | None,
    event: str | None,
    form: str,
) -> None:
    """Say why an attempt gets its verdict: every guard and rule, and what came near.

    The attempt is given as facts: action=http.post host=api.example.com path=/v1
    user.roles=dev,ops. Lists are written with commas; request. may be left out.
    """
    policy = read_subject(policy_path, root, scope)
    attempt, context = attempt_of(words, request, event, time_ns=time.time_ns())
    snapshot = snapshot_with_secrets(policy)
    for warning in policy.warnings:
        notice(f"warning: {warning}")
    explanation = explain_event(attempt, snapshot, context)
    near = near_misses(
        attempt, context, policy, snapshot.rules, explanation.rules, explanation.decision
    )
    report = Report(policy=policy, explanation=explanation, near=near)
    if form == "json":
        sys.stdout.write(json.dumps(json_of(report), indent=2) + "\n")
    else:
        write_lines(lines_of(report))
