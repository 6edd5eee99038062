"""``aesp-proxy policy prove``: what each level changes, and that it weakens nothing.

Exit codes: 0 proved, 1 something is weakened, 3 a file cannot be used.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from aesp_proxy.cli.exits import ExitCode
from aesp_proxy.cli.output import line as notice
from aesp_proxy.cli.output import printable
from aesp_proxy.cli.policy.compile_table import columns
from aesp_proxy.daemon.policy_compile import steps_of
from aesp_proxy.daemon.policy_hierarchy import SCOPES_MAX, PolicyHierarchy
from aesp_proxy.decide.policy.items import Item, items_of
from aesp_proxy.decide.policy.prove_levels import Known, ProvedStep, prove_steps
from aesp_proxy.decide.policy.scope import Scope, parse_scope

_PATH = click.Path(path_type=Path)
_SHOWN_MAX = 20


@click.command("prove", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--root", type=_PATH, required=True, metavar="DIR", help="The hierarchy's folder.")
@click.option(
    "--scope", "scope_text", metavar="KEY=NAME,...", help="One scope; without it every one."
)
@click.option("--hierarchy", "hierarchy_path", type=_PATH, metavar="FILE", help="The hierarchy.")
@click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", help="The output."
)
@click.pass_context
def prove_command(
    ctx: click.Context,
    root: Path,
    scope_text: str | None,
    hierarchy_path: Path | None,
    form: str,
) -> None:
    """Show what each level adds and takes away, and that none weakens what stands above.

    Without --scope every scope that has files is tried: each region, unit and team that is
    there, with no framework, each alone, and all together. A weakening is told with both
    places and a witness. Exit code: 0 proved, 1 weakened, 3 a file cannot be used.
    """
    found = PolicyHierarchy(root, hierarchy_path)
    one = None if scope_text is None else parse_scope(scope_text)
    scopes = list(found.scopes()) if one is None else [one]
    if len(scopes) == SCOPES_MAX:
        notice(f"warning: only the first {SCOPES_MAX} scopes are tried")
    code = ExitCode.DONE
    answers: list[object] = []
    for scope, proved in _all_proved(found, scopes):
        if not all(step.holds for step in proved):
            code = ExitCode.FINDINGS
        if form == "json":
            answers.append(_as_json(scope, proved))
        else:
            for row in _rows(scope, proved, whole=one is not None):
                sys.stdout.write(printable(row) + "\n")
    if form == "json":
        sys.stdout.write(json.dumps(answers, sort_keys=True, indent=1) + "\n")
    ctx.exit(code)


def _all_proved(
    found: PolicyHierarchy, scopes: Sequence[Scope]
) -> Iterator[tuple[Scope, tuple[ProvedStep, ...]]]:
    """Prove scopes, with a bar where a person sees it and nothing else."""
    shown = len(scopes) > 1 and sys.stderr.isatty() and not sys.stdout.isatty()
    bar = click.progressbar(scopes, label="proving", file=sys.stderr)
    known: Known = {}
    with bar if shown else nullcontext(scopes) as each:
        for scope in each:
            yield scope, prove_steps(steps_of(found, scope), known)


def _rows(scope: Scope, proved: Sequence[ProvedStep], *, whole: bool) -> Iterator[str]:
    yield f"scope {scope}"
    if proved:
        yield from (f"  {row}" for row in columns([_told(step) for step in proved]))
    for step in proved:
        yield from _findings(step)
        if whole:
            yield from _changed(step)
    if whole and proved:
        levels = {step.step.file.where: step.step.level for step in proved}
        yield ""
        yield "what holds, and the level that says it"
        rows = [
            (item.key, item.text[:60], levels.get(item.file, ""), item.source)
            for item in items_of(proved[-1].step.tree)
        ]
        yield from (f"  {row}" for row in columns(rows or [("nothing",)]))


def _told(step: ProvedStep) -> tuple[str, ...]:
    made = step.changes
    counts = f"+{len(made.added)} -{len(made.removed)} ~{len(made.changed)}"
    if not step.holds:
        verdict = f"WEAKENED: {len(step.weakenings) + len(step.doubts)}"
    elif step.step.strict:
        verdict = f"nothing is weakened ({step.events} events decided)"
    else:
        verdict = "stands as it is: nothing above it is closed"
    return step.step.level, step.step.file.where, counts, verdict


def _findings(step: ProvedStep) -> Iterator[str]:
    found = [f"{weakening.below}: {weakening.message}" for weakening in step.weakenings]
    found += [f"{step.step.file.where}: {doubt}" for doubt in step.doubts]
    yield from (f"  ! {text}" for text in found[:_SHOWN_MAX])
    if len(found) > _SHOWN_MAX:
        yield f"  ! and {len(found) - _SHOWN_MAX} more"


def _changed(step: ProvedStep) -> Iterator[str]:
    yield ""
    yield f"{step.step.level} {step.step.file.where}"
    made = step.changes
    yield from (f"  + {item.key} {item.text} ({item.source})" for item in made.added)
    yield from (f"  - {item.key} {item.text} ({item.source})" for item in made.removed)
    for before, after in made.changed:
        yield f"  ~ {after.key} {before.text} -> {after.text} ({before.source}, {after.source})"


def _as_json(scope: Scope, proved: Sequence[ProvedStep]) -> dict[str, Any]:
    return {
        "scope": [list(pair) for pair in scope.pairs],
        "holds": all(step.holds for step in proved),
        "levels": [
            {
                "level": step.step.level,
                "file": step.step.file.where,
                "strict": step.step.strict,
                "events": step.events,
                "added": [_item(item) for item in step.changes.added],
                "removed": [_item(item) for item in step.changes.removed],
                "changed": [
                    {"from": _item(before), "to": _item(after)}
                    for before, after in step.changes.changed
                ],
                "weakenings": [
                    {
                        "key": weakening.key,
                        "what": weakening.what,
                        "above": weakening.above,
                        "below": weakening.below,
                        "witness": weakening.witness,
                    }
                    for weakening in step.weakenings
                ],
                "doubts": [
                    {"what": doubt.what, "above": doubt.above, "below": doubt.below}
                    for doubt in step.doubts
                ],
            }
            for step in proved
        ],
    }


def _item(item: Item) -> dict[str, str]:
    return {"key": item.key, "text": item.text, "source": item.source}
