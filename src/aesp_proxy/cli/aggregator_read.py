"""``aesp-proxy aggregator stats``, ``extract``, ``fetch`` and ``proof``: counts, files, proofs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aesp_proxy.cli.output import line, printable
from aesp_proxy.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

_DIR = click.Path(path_type=Path)
_DATA = click.option(
    "--data", type=_DIR, required=True, metavar="DIR", help="The aggregator's data directory."
)
_FILTERS = (
    click.option("--since", metavar="TIME", help="From here on: 2026-01-31T12:00:00Z, or 1h, 7d."),
    click.option("--until", metavar="TIME", help="Up to here, not included."),
    click.option("--agent", metavar="ID"),
    click.option("--host", metavar="NAME", help="Host the agent aimed at."),
    click.option("--verdict", metavar="WORD", help="allow, audit, redact, ask or deny."),
    click.option("--reason", metavar="WORD"),
    click.option("--session", metavar="ID"),
    click.option("--tenant", metavar="ID"),
    click.option("--origin", metavar="NAME", help="Host the record comes from."),
    click.option("--kind", metavar="WORD", help="decision, outcome or lifecycle."),
)


def _filtered[**P, R](command: Callable[P, R]) -> Callable[P, R]:
    for option in reversed(_FILTERS):
        command = option(command)
    return command


@click.command()
@click.option("--data", type=_DIR, metavar="DIR", help="Ask the data directory on this machine.")
@click.option("--client", type=_DIR, metavar="DIR", help="Ask over HTTPS: what enroll wrote.")
@click.option("--url", metavar="URL", help="With --client: another address than the one there.")
@_filtered
@click.option("--by", metavar="WORDS", help="What to count by, with commas: hour,guard,reason.")
@click.option("--top", metavar="N", help="Lines, 1 to 1000; default 20.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
def stats(
    *, data: Path | None, client: Path | None, url: str | None, form: str, **filters: str | None
) -> None:
    """Count events, most first; by reason and guard where nothing is said."""
    if (data is None) == (client is None):
        raise click.UsageError("give one of --data and --client")
    if data is not None:
        shown = _count_here(data, _given(filters))
    else:
        shown = _count_there(client or Path(), url, _given(filters))
    if form == "json":
        click.echo(json.dumps(shown, indent=2))
        return
    if not shown:
        line("aggregator: no events match")
    for item in shown:
        count = item.pop("count")
        cells = [printable(str(value)) or "-" for value in item.values()]
        click.echo("  ".join([f"{count:>10}", *cells]))


def _count_here(data: Path, parameters: dict[str, str]) -> list[dict[str, Any]]:
    from aesp_proxy.aggregator.identity import existing
    from aesp_proxy.aggregator.local import count_events
    from aesp_proxy.aggregator.query import count_json, parse_count

    query, by = parse_count(parameters, now_ns=time.time_ns())
    return [count_json(count, by) for count in count_events(existing(data), query, by)]


def _count_there(client: Path, url: str | None, parameters: dict[str, str]) -> list[dict[str, Any]]:
    from aesp_proxy.aggregator.client import ask
    from aesp_proxy.forward.transport import urls

    counts = ask(urls(client) if url is None else (url,), client, "stats", parameters).get("counts")
    if not isinstance(counts, list) or not all(isinstance(item, dict) for item in counts):
        raise InputError("the answer is not what was asked for", where=str(client))
    return counts


@click.command()
@_DATA
@_filtered
@click.option("--path", metavar="TEXT", help="Path of URL or file, or its beginning and `*`.")
@click.option("--rule", metavar="NAME", help="Rule that found something, or that applied.")
@click.option("--out", type=_DIR, required=True, metavar="FILE", help="New file to write.")
@click.option("--format", "form", type=click.Choice(["csv", "parquet"]), default="csv")
def extract(*, data: Path, out: Path, form: str, **filters: str | None) -> None:
    """Write all events that match to a file, with their whole records."""
    from aesp_proxy.aggregator.extract import extract_events
    from aesp_proxy.aggregator.identity import existing
    from aesp_proxy.aggregator.local import open_search
    from aesp_proxy.aggregator.query import parse_query

    query = parse_query(_given(filters), now_ns=time.time_ns())
    with open_search(existing(data)) as search:
        count = extract_events(search, query, out, form=form)
    line(f"aggregator: {count} events are in {out}")


@click.command()
@click.option("--data", type=_DIR, metavar="DIR", help="Ask the data directory on this machine.")
@click.option("--client", type=_DIR, metavar="DIR", help="Ask over HTTPS: what enroll wrote.")
@click.option("--url", metavar="URL", help="With --client: another address than the one there.")
@click.option(
    "--event", type=_DIR, metavar="FILE", help="The event as a SIEM shows it; - for stdin."
)
@click.option("--key", type=_DIR, metavar="FILE", help="The host's public key, as you know it.")
@click.argument("event_id", metavar="[ORIGIN/EPOCH/SEQ]", required=False)
def proof(
    *,
    data: Path | None,
    client: Path | None,
    url: str | None,
    event: Path | None,
    key: Path | None,
    event_id: str | None,
) -> None:
    """Print the checked inclusion proof of an event, as JSON.

    The event is named by its identity, or as it stands in a SIEM (OCSF, ECS, CIM, CEF, syslog).
    Keep what is printed: `audit verify --proof` checks it again, anywhere.
    """
    from aesp_proxy.aggregator.proof_check import check_names
    from aesp_proxy.cli.aggregator_proof import ask_server, ask_stores, read_event, tell

    if (data is None) == (client is None):
        raise click.UsageError("give one of --data and --client")
    if (event is None) == (event_id is None):
        raise click.UsageError("give an ORIGIN/EPOCH/SEQ, or --event")
    wanted, batch_no = read_event(event) if event is not None else (event_id or "", None)
    if data is not None:
        said, proved = ask_stores(data, wanted, key)
    else:
        said, proved = ask_server(client or Path(), url, wanted, key)
    check_names(proved, wanted, batch_no)
    click.echo(json.dumps(said, indent=2))
    tell(proved, key_is_pinned=key is not None)


def _given(filters: dict[str, Any]) -> dict[str, str]:
    return {name: text for name, text in filters.items() if text is not None}


@click.command()
@_DATA
@click.option("--out", type=_DIR, required=True, metavar="DIR", help="Where to write them.")
@click.argument("origin")
def fetch(*, data: Path, out: Path, origin: str) -> None:
    """Copy the stored batches of ORIGIN to a directory, for `audit verify`.

    Each is held against the hash that was receipted. Doing it again adds what is new.
    """
    from aesp_proxy.aggregator.fetch import fetch_batches
    from aesp_proxy.aggregator.identity import existing

    fetched = fetch_batches(existing(data), origin, out)
    line(
        f"aggregator: {fetched.batches} batches of {origin}; prove them with"
        f" aesp-proxy audit verify {out} --key {fetched.key_file}"
    )


@click.command()
@_DATA
def check(*, data: Path) -> None:
    """Try the stores that DIR names: there, durable, locked, clocks together. Writes a probe.

    Exit code 0: all may be used; 3: the operator must mend something; 4: not there now.
    """
    from aesp_proxy.aggregator.identity import existing
    from aesp_proxy.aggregator.store_check import check_stores

    worst = 0
    for found in check_stores(existing(data)):
        line(f"{found.store}: {found.text}")
        worst = max(worst, found.exit_code)
    if worst:
        raise SystemExit(worst)
