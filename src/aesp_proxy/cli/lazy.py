"""A group of commands that imports a command's module when it is used, and only then."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, override

import click

Table = Mapping[str, tuple[str, str]]
"""Name of a command -> (``module:attribute``, one line of help)."""


class LazyGroup(click.Group):
    """A group that knows its commands by name. ``table`` holds them in the order of help."""

    def __init__(self, *args: Any, table: Table, **extra: Any) -> None:  # noqa: ANN401 - click's
        super().__init__(*args, **extra)
        self.table = table

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.table:
            return None
        module_name, _, attribute = self.table[cmd_name][0].partition(":")
        command = getattr(import_module(module_name), attribute)
        if not isinstance(command, click.Command):
            message = f"{module_name}:{attribute} is not a command"
            raise TypeError(message)
        return command

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.table.items()])
