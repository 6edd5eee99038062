"""``aesp-proxy aggregator export``: what leaves for a SIEM, how far it is, and what did not."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aesp_proxy.cli.exits import ExitCode
from aesp_proxy.cli.output import line, printable
from aesp_proxy.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aesp_proxy.aggregator.export.settings import ExportSettings
    from aesp_proxy.aggregator.identity import DataDir
    from aesp_proxy.aggregator.store.exports import Exports
    from aesp_proxy.aggregator.store.ledger import LedgerReader

_DIR = click.Path(path_type=Path)
_DATA = click.option(
    "--data", type=_DIR, required=True, metavar="DIR", help="The aggregator's data directory."
)
_SETTINGS = click.option(
    "--settings", type=_DIR, metavar="FILE", help="Sinks; default is DATA/export.yaml."
)
_SINK = click.option("--sink", required=True, metavar="NAME")
_FORM = click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")


@click.group("export")
def export_group() -> None:
    """Send stored records to SIEM sinks; at least once, each with an id that tells repeats."""


@export_group.command("list")
@_DATA
@_SETTINGS
def list_sinks(*, data: Path, settings: Path | None) -> None:
    """Check the settings file and list its sinks."""
    _, found = _load(data, settings)
    for sink in found.sinks:
        where = sink.url or sink.address
        click.echo(f"{sink.name}  {sink.type}  {sink.format}  {printable(where)}")


@export_group.command()
@_DATA
@_SETTINGS
@_FORM
def status(*, data: Path, settings: Path | None, form: str) -> None:
    """Say how far each sink is, what it refused, and what is wrong; exit 1 when one is not well."""
    home, found = _load(data, settings)
    with _stores(home) as (store, ledger):
        shown = [_standing(sink.name, store, ledger) for sink in found.sinks]
    if form == "json":
        click.echo(json.dumps(shown, indent=2))
    else:
        for item in shown:
            _show_standing(item)
    if any(item["failing"] or item["stopped_ns"] for item in shown):
        raise SystemExit(ExitCode.FINDINGS)


@export_group.command()
@_DATA
@_SETTINGS
@click.option("--once", is_flag=True, help="Deliver what is stored, then end; 1 if not all is.")
def run(*, data: Path, settings: Path | None, once: bool) -> None:
    """Deliver in the foreground; ``aggregator serve`` does it by itself."""
    from aesp_proxy.aggregator.export.run import ExportRun, deliver_all
    from aesp_proxy.aggregator.identity import FileLock
    from aesp_proxy.aggregator.process import log_to_stderr

    home, found = _load(data, settings)
    log_to_stderr()
    lock = FileLock(home.export_lock)
    if not lock.take():
        raise UnavailableError(
            "is being exported", where=str(home.root), remedy="the aggregator does it already"
        )
    try:
        if once:
            reached = deliver_all(home, found)
            for name, is_done in reached.items():
                line(f"aggregator: {name} {'is up to date' if is_done else 'is NOT up to date'}")
            if not all(reached.values()):
                raise SystemExit(ExitCode.FINDINGS)
            return
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        running = ExportRun(home, found)
        running.start()
        while not running.failed and not stop.wait(0.2):
            pass
        running.stop()
        if running.failed:
            raise UnavailableError("an exporter has ended", remedy="see the log and restart")
    finally:
        lock.release()


@export_group.command()
@_DATA
@_SETTINGS
@_SINK
@click.option("--since", metavar="TIME", help="From what was received then: ISO 8601, or 7d.")
@click.option("--from-position", type=click.IntRange(0), metavar="N", help="Or after position N.")
def backfill(
    *, data: Path, settings: Path | None, sink: str, since: str | None, from_position: int | None
) -> None:
    """Send a sink again what it had, from a place on; beside what is new."""
    from aesp_proxy.aggregator.export.reading import first_position_since
    from aesp_proxy.aggregator.query import parse_time
    from aesp_proxy.aggregator.store.exports import BACKFILL, Cursor

    if (since is None) == (from_position is None):
        raise click.UsageError("give one of --since and --from-position")
    home, found = _load(data, settings)
    found.sink(sink)
    with _stores(home) as (store, ledger):
        live = store.cursor(sink)
        until = live.position if live is not None else 0
        if since is not None:
            time_ns = parse_time(since, now_ns=time.time_ns(), where="--since")
            from_position = first_position_since(ledger, time_ns)
        position = from_position or 0
        if position >= until:
            line(f"aggregator: {sink} has had nothing after position {position}")
            return
        store.begin(sink, Cursor(position=position, until_position=until), BACKFILL)
    line(f"aggregator: {sink} gets positions {position + 1} to {until} again")


@export_group.command("dead-letters")
@_DATA
@_SETTINGS
@_SINK
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@click.option("--after", type=click.IntRange(0), default=0, metavar="ID", help="Only later ones.")
@_FORM
def dead_letters(
    *, data: Path, settings: Path | None, sink: str, limit: int, after: int, form: str
) -> None:
    """List what a sink has refused for itself, and why, oldest first."""
    home, found = _load(data, settings)
    found.sink(sink)
    with _stores(home) as (store, _):
        letters = store.dead_letters(sink, limit=limit, after=after)
        count = store.dead_count(sink)
    if form == "json":
        click.echo(json.dumps([asdict(letter) for letter in letters], indent=2))
        return
    for letter in letters:
        again = "  (queued)" if letter.queued else ""
        click.echo(f"{letter.id}  {printable(letter.event)}  {printable(letter.reason)}{again}")
    line(f"aggregator: {count} dead letters of {sink}")


@export_group.command()
@_DATA
@_SETTINGS
@_SINK
@click.option("--id", "ids", type=int, multiple=True, metavar="N", help="Only these; default all.")
def replay(*, data: Path, settings: Path | None, sink: str, ids: tuple[int, ...]) -> None:
    """Have dead letters of a sink tried again by the exporter that runs, or the next."""
    home, found = _load(data, settings)
    found.sink(sink)
    with _stores(home) as (store, _):
        marked = store.queue_dead(sink, ids)
    line(f"aggregator: {marked} dead letters of {sink} are queued")


@export_group.command()
@_DATA
@_SETTINGS
@_SINK
@click.option("--id", "ids", type=int, multiple=True, metavar="N", help="Only these.")
@click.option("--all", "is_all", is_flag=True, help="All of them.")
def drop(
    *, data: Path, settings: Path | None, sink: str, ids: tuple[int, ...], is_all: bool
) -> None:
    """Throw dead letters of a sink away for good; the events stay in the aggregator's record."""
    if bool(ids) == is_all:
        raise click.UsageError("give one of --id and --all")
    home, found = _load(data, settings)
    found.sink(sink)
    with _stores(home) as (store, _):
        gone = store.drop_dead(sink, ids)
    line(f"aggregator: {gone} dead letters of {sink} are dropped")


def _load(data: Path, settings: Path | None) -> tuple[DataDir, ExportSettings]:
    from aesp_proxy.aggregator.export.settings import load_settings
    from aesp_proxy.aggregator.identity import living

    home = living(data)
    path = settings or home.export_settings
    if not path.is_file():
        raise ConfigError("does not exist", where=str(path), remedy="write it: see docs/siem.md")
    return home, load_settings(path, environment=os.environ)


@contextmanager
def _stores(home: DataDir) -> Iterator[tuple[Exports, LedgerReader]]:
    from aesp_proxy.aggregator.stores import open_exports, open_ledger_reader, open_objects

    objects = open_objects(home)
    try:
        ledger = open_ledger_reader(home, objects)
        try:
            store = open_exports(home)
            try:
                yield store, ledger
            finally:
                store.close()
        finally:
            ledger.close()
    finally:
        objects.close()


def _standing(name: str, store: Exports, ledger: LedgerReader) -> dict[str, Any]:
    from aesp_proxy.aggregator.store.exports import BACKFILL

    live, filling = store.cursor(name), store.cursor(name, BACKFILL)
    position = live.position if live is not None else 0
    return {
        **asdict(store.health(name)),
        "position": position,
        "batches_behind": max(0, ledger.last_position() - position),
        "backfill": None if filling is None else asdict(filling),
        "dead_letters": store.dead_count(name),
    }


def _show_standing(item: dict[str, Any]) -> None:
    from aesp_proxy.aggregator.query import format_time

    behind = item["batches_behind"]
    click.echo(
        f"{item['sink']}  {'up to date' if not behind else f'{behind} batches behind'},"
        f" {item['delivered']} delivered, {item['dead_letters']} dead letters"
    )
    if item["backfill"] is not None:
        lane = item["backfill"]
        click.echo(f"  back-fill at position {lane['position']} of {lane['until_position']}")
    if item["stopped_ns"]:
        since = format_time(item["stopped_ns"])
        click.echo(
            f"  STOPPED since {since}: no more dead letters may be kept; replay or drop some"
        )
    if item["failing"]:
        when = format_time(item["last_error_ns"])
        click.echo(f"  FAILING, {item['failing']} times since: {printable(item['last_error'])}")
        click.echo(f"  last at {when}, next try at {format_time(item['next_try_ns'])}")
