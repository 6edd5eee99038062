"""``aesp-proxy files``: the opens of files by agents that run already."""

from __future__ import annotations

from typing import Final

import click

from aesp_proxy.cli.lazy import LazyGroup, Table

COMMANDS: Final[Table] = {
    "watch": (
        "aesp_proxy.cli.files_watch:watch",
        "Decide each open of a file by users, groups or cgroups.",
    ),
}


@click.group(
    cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
def files() -> None:
    """Decide which files agents may open that run on this host already.

    For a command that is started now, `run` can do more.
    """
