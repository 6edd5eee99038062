"""``aesp-proxy policy compile``."""

from __future__ import annotations

import click


@click.command("compile")
def compile_command() -> None:
    """Stand in until the command is here."""
    message = "policy compile is not here yet"
    raise click.UsageError(message)
