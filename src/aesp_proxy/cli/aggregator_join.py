"""``aesp-proxy aggregator join``: one more aggregator on the same database and objects."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from aesp_proxy.cli.output import line

_DIR = click.Path(path_type=Path)


@click.command()
@click.option(
    "--data", type=_DIR, required=True, metavar="DIR", help="The new one's data directory."
)
@click.option(
    "--from",
    "source",
    type=_DIR,
    required=True,
    metavar="DIR",
    help="The first one's data directory, or a copy of ca/, receipts/ and stores.yaml.",
)
def join(*, data: Path, source: Path) -> None:
    """Prepare one more aggregator on the stores of another; then `serve` it.

    Its receipts, certificates and log are the first one's, so hosts take it for the same.
    """
    from aesp_proxy.aggregator.joining import join as join_stores

    known = join_stores(data, source, now=datetime.now(UTC))
    line(f"aggregator: {known} hosts are known; now: aesp-proxy aggregator serve --data {data}")
