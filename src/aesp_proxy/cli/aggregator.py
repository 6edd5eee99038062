"""``aesp-proxy aggregator``: serve, enroll hosts and readers, query, look after origins.

Standard output carries answers, standard error what is said about them. Values
that come from records are escaped before a terminal sees them.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from aesp_proxy.cli.aggregator_copy import copy
from aesp_proxy.cli.aggregator_export import export_group
from aesp_proxy.cli.aggregator_join import join
from aesp_proxy.cli.aggregator_log import log_group
from aesp_proxy.cli.aggregator_read import check, extract, fetch, proof, stats
from aesp_proxy.cli.aggregator_token import token, trust
from aesp_proxy.cli.flags import split_listen
from aesp_proxy.cli.output import line, printable
from aesp_proxy.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aesp_proxy.aggregator.local import OriginReport

_DIR = click.Path(path_type=Path)
_DATA = click.option(
    "--data", type=_DIR, required=True, metavar="DIR", help="The aggregator's data directory."
)
_COLUMNS: Final = (
    ("time", "TIME"),
    ("id", "EVENT"),
    ("verdict", "VERDICT"),
    ("reason", "REASON"),
    ("action", "ACTION"),
    ("host", "HOST"),
    ("agent", "AGENT"),
)
_CELL_CHARS_MAX: Final = 60
_SILENT_S_MAX: Final = 180  # three heartbeats of a host


# The root's names of the help option, here too: tests call this group by itself.
@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def aggregator() -> None:
    """Serve and query the regional aggregator."""


aggregator.add_command(join)
aggregator.add_command(copy)
aggregator.add_command(token)
aggregator.add_command(trust)
aggregator.add_command(export_group)
aggregator.add_command(log_group)
aggregator.add_command(stats)
aggregator.add_command(extract)
aggregator.add_command(proof)
aggregator.add_command(fetch)
aggregator.add_command(check)


@aggregator.command()
@_DATA
@click.option("--listen", default="127.0.0.1:8443", show_default=True, metavar="HOST:PORT")
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="NAME",
    help="Host name or address in the server certificate; the first is in the URL of enroll.",
)
@click.option(
    "--url",
    "urls",
    multiple=True,
    metavar="URL",
    help="Where hosts reach this aggregator and the others on its stores; once for each.",
)
@click.option("--ready-file", type=_DIR, metavar="FILE", help="Written as JSON when it accepts.")
@click.option("--ready-fd", type=int, metavar="N", help="One line when it accepts, then closed.")
@click.option("--export", type=_DIR, metavar="FILE", help="Sinks; default is DATA/export.yaml.")
@click.option(
    "--metrics-listen",
    metavar="HOST:PORT",
    help="Figures over HTTP without a certificate, on loopback: 127.0.0.1:9464.",
)
def serve(
    *,
    data: Path,
    listen: str,
    names: tuple[str, ...],
    urls: tuple[str, ...],
    ready_file: Path | None,
    ready_fd: int | None,
    export: Path | None,
    metrics_listen: str | None,
) -> None:
    """Take batches over HTTPS, verify and store them, answer queries."""
    from aesp_proxy.aggregator.process import log_to_stderr
    from aesp_proxy.aggregator.run import ServeOptions
    from aesp_proxy.aggregator.run import serve as serve_until_told

    host, port = split_listen(listen)
    metrics = split_listen(metrics_listen, where="--metrics-listen") if metrics_listen else None
    log_to_stderr()
    serve_until_told(
        ServeOptions(
            data=data,
            host=host,
            port=port,
            names=names,
            urls=urls,
            ready_file=ready_file,
            ready_fd=ready_fd,
            export=export,
            metrics=metrics,
        ),
        announce=lambda url: line(
            f"aggregator: {url} is accepting; let a host in with:"
            f" aesp-proxy aggregator enroll --data {data} --state HOST_STATE_DIR"
        ),
    )
    line("aggregator: stopped, everything it has receipted is on disk")


@aggregator.command()
@_DATA
@click.option("--state", type=_DIR, metavar="DIR", help="State directory of a host here.")
@click.option("--origin", metavar="NAME", help="A host elsewhere: its origin ...")
@click.option("--key", type=_DIR, metavar="FILE", help="... and its public key, audit/keys/*.pub.")
@click.option("--reader", metavar="NAME", help="Not a host but someone who may query everything.")
@click.option("--out", type=_DIR, metavar="DIR", help="Where to write; with --state its forward/.")
@click.option("--url", metavar="URL", help="Address for the host, if not the one last served.")
@click.option("--tenant", "tenants", multiple=True, metavar="NAME", help="Tenant it may write for.")
def enroll(
    *,
    data: Path,
    state: Path | None,
    origin: str | None,
    key: Path | None,
    reader: str | None,
    out: Path | None,
    url: str | None,
    tenants: tuple[str, ...],
) -> None:
    """Let a host or a reader in: issue its certificate and write its directory.

    The operator does this where the data directory is. A host that can reach this
    aggregator enrols itself with a token: `aggregator token`, `aesp-proxy enroll`.
    """
    from aesp_proxy.aggregator import enrolment
    from aesp_proxy.aggregator.identity import living

    ways = [state is not None, origin is not None or key is not None, reader is not None]
    if sum(ways) != 1:
        raise click.UsageError("give one of --state, --origin with --key, or --reader")
    place = state / "forward" if state is not None and out is None else out
    if place is None:
        raise click.UsageError("give --out DIR")
    home = living(data)
    url = url or "\n".join(enrolment.served_urls(home))
    where = " ".join(url.split())
    now = datetime.now(UTC)
    if reader is not None:
        enrolment.admit_reader(home, reader, out=place, url=url, now=now)
        line(f"aggregator: reader {reader} may query {where} with --client {place}")
        return
    if state is not None:
        host = enrolment.host_of_state(state)
    elif origin is not None and key is not None:
        host = enrolment.host_of_key(origin, key)
    else:
        raise click.UsageError("--origin and --key belong together")
    enrolment.enrol_host(home, host, out=place, url=url, tenants=tenants, now=now)
    line(f"aggregator: origin {host.origin} may ship to {where}; its files are in {place}")


@aggregator.command()
@click.option("--data", type=_DIR, metavar="DIR", help="Ask the data directory on this machine.")
@click.option("--url", metavar="URL", help="Ask over HTTPS; default is the one in --client.")
@click.option("--client", type=_DIR, metavar="DIR", help="What enroll wrote: certificate and CA.")
@click.option("--since", metavar="TIME", help="From here on: 2026-01-31T12:00:00Z, or 15m, 1h, 7d.")
@click.option("--until", metavar="TIME", help="Up to here, not included.")
@click.option("--agent", metavar="ID")
@click.option("--host", metavar="NAME", help="Host the agent aimed at.")
@click.option("--verdict", metavar="WORD", help="allow, audit, redact, ask or deny.")
@click.option("--reason", metavar="WORD")
@click.option("--session", metavar="ID")
@click.option("--tenant", metavar="ID")
@click.option("--origin", metavar="NAME", help="Host the record comes from.")
@click.option("--kind", metavar="WORD", help="decision, outcome or lifecycle.")
@click.option("--path", metavar="TEXT", help="Path of URL or file, or its beginning and `*`.")
@click.option("--rule", metavar="NAME", help="Rule that found something, or that applied.")
@click.option("--limit", metavar="N", help="Events a page, 1 to 1000; default 100.")
@click.option("--cursor", metavar="TEXT", help="Go on after an earlier page.")
@click.option("--full", is_flag=True, help="With the whole record of each event (JSON).")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
def query(
    *,
    data: Path | None,
    url: str | None,
    client: Path | None,
    full: bool,
    form: str,
    **filters: str | None,
) -> None:
    """Find events, newest first."""
    parameters = {name: text for name, text in filters.items() if text is not None}
    if (data is None) == (client is None):
        raise click.UsageError("give one of --data and --client")
    if data is not None:
        events, cursor, behind = _ask_stores(data, parameters, full=full)
    else:
        events, cursor, behind = _ask_server(url, client, parameters, full=full)
    if form == "json":
        answer = {"events": events, "cursor": cursor, "batches_not_indexed": behind}
        click.echo(json.dumps(answer, indent=2))
    else:
        _show_table(events)
        if cursor:
            line(f"aggregator: more with --cursor {cursor}")
    if behind > 0:
        line(f"aggregator: {behind} batches are stored and not indexed yet")


@aggregator.command()
@_DATA
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
def origins(*, data: Path, form: str) -> None:
    """List the enrolled hosts: last batch, quarantine, what was noted and refused."""
    from aesp_proxy.aggregator.identity import existing
    from aesp_proxy.aggregator.local import origin_reports

    reports = origin_reports(existing(data))
    if form == "json":
        click.echo(json.dumps([_report_json(report) for report in reports], indent=2))
        return
    if not reports:
        line("aggregator: no host is enrolled")
    for report in reports:
        _show_report(report)


@aggregator.command()
@_DATA
@click.argument("origin")
def release(*, data: Path, origin: str) -> None:
    """End the quarantine of ORIGIN; the evidence is kept."""
    from aesp_proxy.aggregator.identity import living
    from aesp_proxy.aggregator.stores import open_control

    control = open_control(living(data))
    try:
        if not control.release(origin):
            raise ConfigError("is not in quarantine", where=origin)
    finally:
        control.close()
    line(f"aggregator: {origin} is let in again")


@aggregator.command()
@_DATA
@click.argument("name")
@click.option("--reader", is_flag=True, help="NAME is a reader, not an origin.")
def revoke(*, data: Path, name: str, reader: bool) -> None:
    """Shut out the certificate of NAME at once; enroll again to let it back in."""
    from aesp_proxy.aggregator.identity import living
    from aesp_proxy.aggregator.ports import Identity, Role
    from aesp_proxy.aggregator.stores import open_control

    identity = Identity(role=Role.READER if reader else Role.HOST, name=name)
    control = open_control(living(data))
    try:
        if not control.revoke(identity, now_ns=time.time_ns()):
            raise ConfigError("has no certificate that is open", where=name)
    finally:
        control.close()
    line(f"aggregator: {name} is shut out")


@aggregator.command()
@_DATA
def reindex(*, data: Path) -> None:
    """Build the index of events again from the stored batches."""
    from aesp_proxy.aggregator.identity import existing
    from aesp_proxy.aggregator.local import rebuild_index

    rows = rebuild_index(existing(data))
    line(f"aggregator: {rows} events indexed")


def _ask_stores(
    data: Path, parameters: dict[str, str], *, full: bool
) -> tuple[list[dict[str, Any]], str | None, int]:
    from aesp_proxy.aggregator.identity import existing
    from aesp_proxy.aggregator.local import find_events
    from aesp_proxy.aggregator.query import parse_query

    return find_events(existing(data), parse_query(parameters, now_ns=time.time_ns()), full=full)


def _ask_server(
    url: str | None, client: Path | None, parameters: dict[str, str], *, full: bool
) -> tuple[list[dict[str, Any]], str | None, int]:
    from aesp_proxy.aggregator.client import ask_events
    from aesp_proxy.forward.transport import urls

    if client is None:
        raise click.UsageError("give --client DIR")
    found = urls(client) if url is None else (url,)
    answer = ask_events(found, client, parameters | ({"full": "1"} if full else {}))
    events, cursor, behind = (
        answer.get(name) for name in ("events", "cursor", "batches_not_indexed")
    )
    if not isinstance(events, list) or not isinstance(behind, int):
        raise InputError("the answer is not what was asked for", where=str(client))
    return events, cursor, behind


def _show_table(events: Sequence[dict[str, Any]]) -> None:
    """Print events in columns; every cell is escaped and cut."""
    if not events:
        line("aggregator: no events match")
        return
    rows = [[_cell(_short(name, event.get(name, ""))) for name, _ in _COLUMNS] for event in events]
    titles = [title for _, title in _COLUMNS]
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _short(name: str, value: object) -> object:
    """Cut nanoseconds to milliseconds: the table is for eyes, JSON has all of it."""
    if name != "time" or not isinstance(value, str):
        return value
    whole, point, fraction = value.removesuffix("Z").partition(".")
    return f"{whole}{point}{fraction[:3]}Z"


def _cell(value: object) -> str:
    text = printable(str(value)) or "-"
    return text if len(text) <= _CELL_CHARS_MAX else text[: _CELL_CHARS_MAX - 3] + "..."


def _report_json(report: OriginReport) -> dict[str, Any]:
    from dataclasses import asdict

    shown = asdict(report)
    origin = shown.pop("origin")
    origin["public_key"] = origin["public_key"].hex()
    origin["tenants"] = sorted(origin["tenants"])
    return {**origin, **shown}


def _show_report(report: OriginReport) -> None:
    from aesp_proxy.aggregator.query import format_time

    origin = report.origin
    told = "has shipped nothing yet"
    if report.last_received_ns:
        told = (
            f"batch {report.last_batch} at {format_time(report.last_received_ns)},"
            f" {report.records} records in {report.stored_bytes} bytes"
        )
    click.echo(f"{_cell(origin.name)}  {told}")
    if report.last_received_ns:
        silent_s = (time.time_ns() - report.last_received_ns) // 1_000_000_000
        if silent_s > _SILENT_S_MAX:
            click.echo(f"  SILENT for {silent_s} s: a host that runs says something every minute")
    if origin.quarantined_ns is not None:
        click.echo(
            f"  QUARANTINE since {format_time(origin.quarantined_ns)}:"
            f" {_cell(origin.quarantine_reason)}"
        )
    for item in report.evidence:
        click.echo(f"  evidence: {item.kind} {item.stored_key or '-'} against {item.offered_key}")
    if report.certificate_ends_ns is None:
        click.echo("  certificate: none, it cannot connect")
    else:
        click.echo(f"  certificate until {format_time(report.certificate_ends_ns)}")
    for notice in report.notices[-10:]:
        click.echo(f"  noted: batch {notice.batch_no} {notice.notice} ({_cell(notice.detail)})")
    for refusal in report.refusals:
        when = format_time(refusal.last_ns)
        click.echo(f"  refused: {refusal.count} x {refusal.kind}, last {when}")
