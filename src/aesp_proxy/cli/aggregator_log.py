"""``aesp-proxy aggregator log``: how the transparency log stands, its keys, and its proof."""

from __future__ import annotations

import json
from pathlib import Path

import click

from aesp_proxy.cli.exits import ExitCode
from aesp_proxy.cli.output import line, printable

_DATA = click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="The aggregator's data directory.",
)


@click.group("log")
def log_group() -> None:
    """Look after the transparency log of accepted batches."""


@log_group.command()
@_DATA
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
def show(*, data: Path, form: str) -> int:
    """Say how far the log is, who has cosigned it, and what is wrong; exit code 1 for that."""
    from aesp_proxy.aggregator.identity import existing
    from aesp_proxy.aggregator.log.keys import load_log_keys
    from aesp_proxy.aggregator.log.status import read_log_status

    home = existing(data)
    origin, said = load_log_keys(home).origin, read_log_status(home)
    witnesses = [
        {"name": name, "cosigned": size, "error": error} for name, size, error in said.witnesses
    ]
    if form == "json":
        shown = {"origin": origin, "size": said.size, "published": said.published}
        click.echo(json.dumps(shown | {"alarm": said.alarm, "witnesses": witnesses}, indent=2))
    else:
        click.echo(f"{origin}: {said.size} batches logged, published up to {said.published}")
        for one in witnesses:
            wrong = f", {one['error']}" if one["error"] else ""
            click.echo(printable(f"witness {one['name']}: {one['cosigned']} cosigned{wrong}"))
        if said.alarm:
            click.echo(printable(f"ALARM: {said.alarm}"))
    return ExitCode.FINDINGS if said.alarm else ExitCode.DONE


@log_group.command()
@_DATA
@click.option("--rotate", is_flag=True, help="Add a new key; it signs beside the old ones.")
@click.option("--retire", is_flag=True, help="Drop all keys but the newest.")
def keys(*, data: Path, rotate: bool, retire: bool) -> None:
    """Print the keys that verify the log, newest first, for witnesses and auditors.

    To change the key: --rotate, start the aggregator again, give the new key to all who
    verify, then --retire and start it again.
    """
    from aesp_proxy.aggregator.identity import existing, living
    from aesp_proxy.aggregator.log import keys as log_keys

    if rotate and retire:
        raise click.UsageError("first --rotate; --retire when everyone has the new key")
    home = living(data) if rotate or retire else existing(data)
    if rotate:
        found = log_keys.rotate(home)
    elif retire:
        found = log_keys.retire(home)
    else:
        found = log_keys.load_log_keys(home)
    for key in found.public:
        click.echo(str(key))
    if rotate or retire:
        line("aggregator: these sign from its next start on")


@log_group.command()
@_DATA
def check(*, data: Path) -> None:
    """Prove the whole log from its first entry on, and that the ledger says the same."""
    from aesp_proxy.aggregator.identity import existing
    from aesp_proxy.aggregator.log.check import check_log

    report = check_log(existing(data))
    click.echo(
        f"holds: {report.signed.size} entries of {report.signed.origin}, published up to"
        f" {report.published.size}, {report.not_logged} batches not logged yet"
    )
