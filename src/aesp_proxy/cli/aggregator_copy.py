"""``aesp-proxy aggregator copy``: a whole aggregator into other stores, and back."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from aesp_proxy.cli.output import line

_DIR = click.Path(path_type=Path)
_TOLD_S: Final = 5.0


@click.command()
@click.option(
    "--data",
    type=_DIR,
    required=True,
    metavar="DIR",
    help="The new data directory: empty, or with the stores.yaml that it is to have.",
)
@click.option(
    "--from",
    "source",
    type=_DIR,
    required=True,
    metavar="DIR",
    help="The data directory that is copied; nothing may serve it.",
)
def copy(*, data: Path, source: Path) -> None:
    """Copy an aggregator into other stores: embedded to PostgreSQL and S3, and back.

    All of it is proved before the copy can serve, and then the old directory serves no more.
    Whatever interrupts it: give the same command again, and it goes on.
    """
    from aesp_proxy.aggregator.copying import copy_aggregator

    told = [0.0]

    def progress(what: str, done: int, total: int) -> None:
        if done == total or time.monotonic() - told[0] >= _TOLD_S:
            told[0] = time.monotonic()
            line(f"aggregator: {what} {done} of {total} batches")

    copied = copy_aggregator(data, source, now=datetime.now(UTC), progress=progress)
    line(
        f"aggregator: {copied.batches} batches, {copied.rows} other rows and a log of"
        f" {copied.logged} entries are proved; {source} serves no more"
    )
    line(f"aggregator: now: aesp-proxy aggregator serve --data {data} ...; it indexes anew")
