"""``aesp-proxy enroll``: let this host in at an aggregator, with a one-time token."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from aesp_proxy.cli.output import line
from aesp_proxy.errors import ConfigError

_TOKEN_FILE_BYTES_MAX: Final = 8192


@click.command()
@click.option("--aggregator", "url", metavar="URL", help="https://NAME:PORT")
@click.option(
    "--token",
    metavar="TEXT",
    envvar="AESP_ENROLL_TOKEN",
    help="What `aggregator token` printed; @FILE or - (standard input) keep it out of `ps`.",
)
@click.option("--state", type=click.Path(path_type=Path), help="State directory of this host.")
@click.option("--forward", type=click.Path(path_type=Path), help="Where to write; STATE/forward.")
@click.option("--origin", default="", metavar="NAME", help="Name of this host, if it has none yet.")
@click.option(
    "--request",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Only make the TLS key and write a certificate request for an authority of yours.",
)
@click.option(
    "--certificate",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What that authority has issued for it, its chain behind it (PEM).",
)
def enroll(
    *,
    url: str | None,
    token: str | None,
    state: Path | None,
    forward: Path | None,
    origin: str,
    request: Path | None,
    certificate: Path | None,
) -> None:
    """Enrol this host: its keys are made here and stay here.

    The aggregator gives a certificate for mutual TLS and learns this host's audit key; the
    process that ships renews the certificate in time. Doing it again replaces both TLS key
    and certificate.
    """
    from aesp_proxy import keys
    from aesp_proxy.daemon.config_load import default_state_dir
    from aesp_proxy.forward.enrol import enrol, request_certificate
    from aesp_proxy.record.enrolment import Token

    directory = state or default_state_dir(os.environ, is_root=os.geteuid() == 0)
    place = forward or directory / "forward"
    if request is not None:
        pem = request_certificate(directory, place, origin=origin)
        keys.write_atomic(request, pem, mode=0o644)
        line(f"have {request} signed, then: aesp-proxy enroll --certificate FILE ...")
        return
    if url is None or token is None:
        raise click.UsageError("give --aggregator and --token")
    enrolled = enrol(
        directory,
        place,
        url.rstrip("/"),
        Token.parse(_read_token(token)),
        origin=origin,
        now=datetime.now(UTC),
        certificate_pem=keys.read_bounded(certificate) if certificate else b"",
    )
    line(
        f"enrolled as {enrolled.origin} until {enrolled.ends:%Y-%m-%d}; "
        f"what is shipped from now on goes to {url}"
    )
    line(f"a service that runs begins within seconds; its files are in {enrolled.directory}")


def _read_token(text: str) -> str:
    try:
        if text == "-":
            return sys.stdin.read(_TOKEN_FILE_BYTES_MAX)
        if text.startswith("@"):
            with Path(text[1:]).open(encoding="ascii") as file:
                return file.read(_TOKEN_FILE_BYTES_MAX)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=f"--token {text}") from error
    except UnicodeDecodeError as error:
        raise ConfigError("is no enrolment token", where=f"--token {text}") from error
    return text
