"""``aesp-proxy aggregator token``: make, list and take back one-time enrolment tokens."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from aesp_proxy.cli.output import line, printable
from aesp_proxy.errors import ConfigError, InputError

if TYPE_CHECKING:
    from aesp_proxy.aggregator.identity import DataDir
    from aesp_proxy.aggregator.store.tokens import TokenState

_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}
_PREFIX_CHARS_MIN: Final = 8


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="The aggregator's data directory.",
)
@click.option("--for", "origin", default="", metavar="ORIGIN", help="For this host only.")
@click.option("--tenant", "tenants", multiple=True, metavar="NAME", help="Tenant it may write for.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Kept with the host.")
@click.option("--expires", default="1h", show_default=True, metavar="TIME", help="15m, 1h, 7d.")
@click.option("--list", "is_list", is_flag=True, help="List the tokens, used and open.")
@click.option("--take-back", metavar="NAME", help="Remove an open token, named as in the list.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def token(
    *,
    data: Path,
    origin: str,
    tenants: tuple[str, ...],
    labels: tuple[str, ...],
    expires: str,
    is_list: bool,
    take_back: str | None,
    as_json: bool,
) -> None:
    """Make a token with which one host enrols itself, once.

    It is printed on standard output and is nowhere else: here only its hash is kept.
    """
    from aesp_proxy.aggregator import admission
    from aesp_proxy.aggregator.identity import living

    home = living(data)
    if is_list:
        _show(home, as_json=as_json)
        return
    if take_back is not None:
        _take_back(home, take_back)
        return
    wanted = admission.Wanted(
        origin=origin, tenants=tenants, labels=_labels(labels), expires=_duration(expires)
    )
    made = admission.make_token(home, wanted, now=datetime.now(UTC))
    if as_json:
        ends = made.expires.isoformat()
        click.echo(
            json.dumps({"token": made.text(), "name": _name(made.fingerprint), "ends": ends})
        )
    else:
        click.echo(made.text())
    line(
        f"aggregator: token {_name(made.fingerprint)} lets in {origin or 'one host'} once, until "
        f"{made.expires:%Y-%m-%d %H:%M} UTC: aesp-proxy enroll --aggregator URL --token -"
    )


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="The aggregator's data directory.",
)
@click.argument("ca_file", type=click.Path(path_type=Path))
def trust(*, data: Path, ca_file: Path) -> None:
    """Let hosts have certificates of the authorities in CA_FILE (PEM), your own.

    Holds from the next start. A certificate still opens nothing until a host has enrolled
    with it.
    """
    from aesp_proxy.aggregator import admission
    from aesp_proxy.aggregator.identity import living

    admission.trust(living(data), ca_file, now=datetime.now(UTC))
    line("aggregator: trusted from the next start on")


def _show(home: DataDir, *, as_json: bool) -> None:
    from aesp_proxy.aggregator.stores import open_control

    control = open_control(home)
    try:
        states = control.tokens.all()
    finally:
        control.close()
    rows = [_row(state) for state in states]
    if as_json:
        click.echo(json.dumps(rows))
        return
    if not rows:
        line("aggregator: there are no tokens")
    for row in rows:
        tenants = ",".join(row["tenants"]) or "-"
        told = f"{row['name']}  {row['state']:<8} for {row['for'] or 'any'}  tenants {tenants}"
        if row["used_by"]:
            told += f"  used by {row['used_by']}"
        click.echo(printable(told))


def _row(state: TokenState) -> dict[str, Any]:
    terms = state.terms
    word = "open" if time.time_ns() < terms.expires_ns else "expired"
    return {
        "name": _name(terms.fingerprint),
        "state": word if state.used_ns is None else "used",
        "for": terms.origin,
        "tenants": sorted(terms.tenants),
        "labels": dict(terms.labels),
        "ends": datetime.fromtimestamp(terms.expires_ns / 1e9, UTC).isoformat(),
        "used_by": state.used_by,
    }


def _take_back(home: DataDir, name: str) -> None:
    from aesp_proxy.aggregator.stores import open_control

    if len(name) < _PREFIX_CHARS_MIN or not name.isalnum():
        raise InputError("names no token", where="--take-back", remedy="see --list")
    control = open_control(home)
    try:
        count = control.tokens.take_back(name.lower())
    finally:
        control.close()
    if not count:
        raise ConfigError("is no open token", where=name, remedy="see --list")
    line(f"aggregator: token {name} lets nobody in any more")


def _name(fingerprint: bytes) -> str:
    return fingerprint.hex()[:16]


def _labels(texts: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if any(not equals for _, equals, _ in pairs):
        raise InputError("is not NAME=VALUE", where="--label")
    return {name: value for name, _, value in pairs}


def _duration(text: str) -> timedelta:
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not (number.isascii() and number.isdigit() and len(number) < 6):
        raise InputError(f"{text[:20]!r} is no time", where="--expires", remedy="write 15m, 1h, 7d")
    return timedelta(**{_UNITS[unit]: int(number)})
