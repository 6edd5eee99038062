"""The stage of a run: made before the command starts, looked at when it has ended.

Before: forbidden names are found in the staged tree and the directories besides, told by
the policy in force. After: what was written is shown with the decision on each change,
and published only when every one passes and the person, or ``--publish``, says so. What
is not published stays, for ``aesp-proxy stage``.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from aesp_proxy.cli.output import error_line, line
from aesp_proxy.daemon.scrub import masked
from aesp_proxy.decide.engine import decide
from aesp_proxy.errors import ConfigError
from aesp_proxy.intercept.stage.stage import Phase, Stage, make_stage
from aesp_proxy.intercept.stage.survey import Survey, hide_other_names, survey
from aesp_proxy.model.event import FileAccess, FileOperation
from aesp_proxy.model.principal import Principal

if TYPE_CHECKING:
    from aesp_proxy.daemon.config import Settings
    from aesp_proxy.decide.secrets.exact import ExactIndex
    from aesp_proxy.decide.snapshot import Snapshot

_SHOWN_MAX: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStage:
    """A stage, the rows of the view that make it seen, and what was decided by.

    ``held`` is the descriptor that says that its run goes on.
    """

    stage: Stage
    held: int
    rows: tuple[tuple[str, ...], ...]
    snapshot: Snapshot
    exact: ExactIndex


def start_stage(
    settings: Settings,
    snapshot: Snapshot,
    *,
    session_id: str,
    command: Sequence[str],
    exact: ExactIndex,
) -> RunStage:
    """Survey the trees and make the stage; ConfigError when it cannot be had here.

    ``command`` is kept to be shown, without secrets: those of rules and of ``exact``.
    """
    began_ns = time.time_ns()
    if not any(guard.name in _FILE_GUARDS for guard in snapshot.guards):
        raise ConfigError(
            "the policy says nothing of files, and so allows none",
            where=snapshot.policy_where,
            remedy="give it guards.forbidden_path",
        )
    tree = Path(settings.files.tree or Path.cwd()).resolve()
    if not tree.is_dir():
        raise ConfigError("is no directory", where=str(tree), remedy="set files.tree")
    staged, *beside = _surveys(settings, snapshot, tree)
    folder = settings.state_dir / "stage"
    stage = make_stage(
        folder,
        [staged],
        session_id=session_id,
        command=masked(" ".join(command), snapshot.scanner, exact),
        began_ns=began_ns,
        policy=str(settings.policy.resolve()) if settings.policy else "",
    )
    layers = stage.trees[0]
    rows = [("stage", str(layers.path), str(layers.upper), str(layers.work))]
    return RunStage(
        stage=stage,
        held=stage.hold(),
        rows=(*rows, *_masks(stage.folder, beside)),
        snapshot=snapshot,
        exact=exact,
    )


_FILE_GUARDS: Final = frozenset({"forbidden_path", "path_allowlist"})


def _surveys(settings: Settings, snapshot: Snapshot, tree: Path) -> list[Survey]:
    """Survey the tree and, without it, the directories besides."""
    principal = Principal(
        principal_id=settings.agent.principal_id,
        agent_id=settings.agent.id,
        agent_type=settings.agent.type,
        session_id="",
    )

    def forbids(path: str) -> bool:
        event = FileAccess(
            event_id="",
            time_ns=time.time_ns(),
            principal=principal,
            operation=FileOperation.OPEN,
            path=path,
            resolved=path,
        )
        return not decide(event, snapshot).verdict.passes

    most = settings.files.entries_max
    found = [survey(tree, forbids, entries_max=most)]
    for directory in _besides(settings, tree):
        apart = frozenset({str(tree), str(settings.state_dir)})
        found.append(survey(directory, forbids, entries_max=most, apart=apart))
    hide_other_names(found)
    return found


def _besides(settings: Settings, tree: Path) -> Iterator[Path]:
    named = settings.files.hide.split(":") if settings.files.hide else [os.path.expanduser("~")]  # noqa: PTH111
    for name in named:
        directory = Path(name).resolve()
        if directory.is_dir() and not directory.is_relative_to(tree):
            yield directory


def _masks(folder: Path, surveys: Sequence[Survey]) -> Iterator[tuple[str, str, str]]:
    """Cover forbidden files by an empty one that nobody may open, directories likewise."""
    file, directory = folder / "no-file", folder / "no-directory"
    file.touch(mode=0o000)
    directory.mkdir(mode=0o000)
    for each in surveys:
        for name in sorted(each.hidden):
            path = each.tree / name
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode):
                yield "cover", str(directory), str(path)
            elif not stat.S_ISLNK(status.st_mode):
                yield "cover", str(file), str(path)


def end_stage(settings: Settings, made: RunStage, *, publish: bool) -> None:
    """Show what was written, vetted, and publish it where that is allowed and wanted."""
    from aesp_proxy.cli.stage.vetting import refusals, show, vetted

    stage = made.stage.moved_to(Phase.ENDED)
    changes = vetted(settings, stage, made.snapshot, made.exact)
    if not changes:
        stage.drop()
        line("aesp-proxy: stage: nothing was written")
        return
    show(changes, shown_max=_SHOWN_MAX)
    if refusals(changes):
        error_line(f"stage {stage.id}: refused as a whole; {_hint(stage)}")
    elif publish or _agrees(stage, len(changes)):
        publish_stage(stage)
    else:
        error_line(f"stage {stage.id}: not published yet; `stage publish` does it, {_hint(stage)}")


def publish_stage(stage: Stage) -> None:
    """Publish a vetted stage, unless the host has changed what it would overwrite."""
    from aesp_proxy.intercept.stage.publish import conflicts_of, publish

    if stage.phase is Phase.ENDED and (conflicts := conflicts_of(stage)):
        names = ", ".join(str(each.tree / each.name) for each in conflicts[:3])
        more = f" and {len(conflicts) - 3} more" if len(conflicts) > 3 else ""
        raise ConfigError(
            f"changed on the host since the run began: {names}{more}",
            where=f"stage {stage.id}",
            remedy="look at both with `aesp-proxy stage diff`, then drop the stage",
        )
    publish(stage)
    line(f"aesp-proxy: stage {stage.id}: published")


def _agrees(stage: Stage, count: int) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    what = "1 change" if count == 1 else f"{count} changes"
    return click.confirm(f"aesp-proxy: publish {what} to {stage.trees[0].path}?", err=True)


def _hint(stage: Stage) -> str:
    return f"`aesp-proxy stage diff {stage.id}` shows it, `stage drop` removes it"
