"""``aesp-proxy policy prove``."""

from __future__ import annotations

import click


@click.command("prove")
def prove_command() -> None:
    """Stand in until the command is here."""
    message = "policy prove is not here yet"
    raise click.UsageError(message)
