"""The commands of ``aesp-proxy stage``."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from aesp_proxy.cli.exits import ExitCode
from aesp_proxy.cli.flags import settings_of
from aesp_proxy.cli.output import error_line, line, printable
from aesp_proxy.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from aesp_proxy.daemon.config import Settings
    from aesp_proxy.intercept.stage.stage import Stage

_PATH: Final = click.Path(path_type=Path)
_state = click.option("--state", type=str, metavar="DIR", help="State directory.")
_config = click.option("--config", type=_PATH, metavar="FILE", help="Settings file.")
_SECOND_NS: Final = 1_000_000_000
_SHOWN_MAX: Final = 200


@click.command("list")
@_state
@_config
def list_stages(*, state: str | None, config: Path | None) -> None:
    """List the stages that are kept: id, when, phase, tree, command."""
    from aesp_proxy.intercept.stage.stage import read_stages

    kept = list(read_stages(_folder(_settings(state, config))))
    if not kept:
        line("aesp-proxy: no stage is kept")
    for stage in kept:
        began = datetime.fromtimestamp(stage.began_ns / _SECOND_NS, UTC)
        tree = stage.trees[0].path if stage.trees else ""
        words = (stage.id, f"{began:%Y-%m-%dT%H:%M:%SZ}", stage.phase, tree, stage.command)
        sys.stdout.write("  ".join(printable(str(word)) for word in words) + "\n")


@click.command()
@_state
@_config
@click.argument("number", metavar="[ID]", default="")
def diff(*, state: str | None, config: Path | None, number: str) -> None:
    """Show what stage ID would change, as a patch; nothing is decided or recorded.

    Without ID the only stage that is kept.
    """
    from aesp_proxy.daemon.staging import difference
    from aesp_proxy.intercept.stage.changes import changes_of

    stage = _stage(_settings(state, config), number)
    for tree in stage.trees:
        for change in changes_of(tree):
            text = difference(tree, change).decode("utf-8", "backslashreplace")
            lines = (printable(each) for each in text.splitlines())
            sys.stdout.write("".join(f"{each}\n" for each in lines))


@click.command()
@_state
@_config
@click.option("--policy", type=str, metavar="FILE", help="Policy; default is the one of the run.")
@click.argument("number", metavar="[ID]", default="")
def publish(*, state: str | None, config: Path | None, policy: str | None, number: str) -> int:
    """Decide every change of stage ID by the policy, and publish all of it or nothing.

    Without ID the only stage that is kept, without --policy by the policy of its run.

    Exit code: 0 published, 2 refused, 3 it cannot be, 4 it was cut short: then again.
    """
    from aesp_proxy.cli.run_stage import publish_stage
    from aesp_proxy.cli.stage.vetting import refusals, show, vetted
    from aesp_proxy.daemon.fingerprint import load_fingerprint_key
    from aesp_proxy.daemon.policy_files import load_snapshot
    from aesp_proxy.intercept.stage.stage import Phase

    stage = _stage(_settings(state, config), number)
    settings = _settings(state, config, policy=policy or stage.policy)
    if stage.phase is Phase.OPEN:
        stage = _ended(stage)
    if stage.phase is Phase.ENDED:
        snapshot = load_snapshot(
            settings.policy,
            fingerprint_key=load_fingerprint_key(settings.state_dir),
            serial=1,
            cache_dir=settings.rule_cache_dir,
        )
        changes = vetted(settings, stage, snapshot)
        show(changes, shown_max=_SHOWN_MAX)
        if count := refusals(changes):
            error_line(f"stage {stage.id}: {count} of {len(changes)} changes are refused")
            return ExitCode.REFUSED
    publish_stage(stage)
    return ExitCode.DONE


@click.command()
@_state
@_config
@click.argument("number", metavar="ID")
def drop(*, state: str | None, config: Path | None, number: str) -> None:
    """Remove stage ID and what the run wrote; the tree stays as it is."""
    from aesp_proxy.intercept.stage.stage import Phase

    stage = _stage(_settings(state, config), number)
    if stage.phase is Phase.PUBLISHING:
        raise ConfigError(
            "half of it is in the tree",
            where=f"stage {stage.id}",
            remedy="`aesp-proxy stage publish` carries it through",
        )
    _ended(stage).drop()


def _ended(stage: Stage) -> Stage:
    """Take a stage whose run has died for ended; ConfigError while somebody holds it."""
    from aesp_proxy.intercept.stage.stage import Phase

    if stage.is_held():
        raise UnavailableError(
            "its run goes on", where=f"stage {stage.id}", remedy="wait for its end"
        )
    return stage.moved_to(Phase.ENDED) if stage.phase is Phase.OPEN else stage


def _stage(settings: Settings, number: str) -> Stage:
    from aesp_proxy.intercept.stage.stage import read_stage

    return read_stage(_folder(settings), number)


def _settings(state: str | None, config: Path | None, *, policy: str | None = None) -> Settings:
    flags = {name: value for name, value in {"state_dir": state, "policy": policy}.items() if value}
    return settings_of(flags, config, agent_type=os.environ.get("AESP_AGENT_TYPE", "stage"))


def _folder(settings: Settings) -> Path:
    return settings.state_dir / "stage"
