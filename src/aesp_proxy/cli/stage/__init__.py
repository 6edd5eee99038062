"""``aesp-proxy stage``: what runs wrote and nobody has published yet."""

from __future__ import annotations

from typing import Final

import click

from aesp_proxy.cli.lazy import LazyGroup, Table

_COMMANDS: Final[Table] = {
    "list": ("aesp_proxy.cli.stage.commands:list_stages", "List the stages that are kept."),
    "diff": ("aesp_proxy.cli.stage.commands:diff", "Show what a stage would change."),
    "publish": ("aesp_proxy.cli.stage.commands:publish", "Vet a stage and publish it, whole."),
    "drop": ("aesp_proxy.cli.stage.commands:drop", "Remove a stage and all that is in it."),
}


@click.group(cls=LazyGroup, table=_COMMANDS)
def stage() -> None:
    """Look at what `run --stage` has held back, publish it or drop it."""
