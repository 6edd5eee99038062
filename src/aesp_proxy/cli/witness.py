"""``aesp-proxy witness``: cosign the checkpoints of logs, so that none shows two histories."""

from __future__ import annotations

from pathlib import Path

import click

from aesp_proxy.cli.output import line, printable

_PATH = click.Path(path_type=Path)
_DIR = click.option("--dir", "root", type=_PATH, required=True, metavar="DIR", help="The witness.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def witness() -> None:
    """Cosign checkpoints of transparency logs (C2SP tlog-witness)."""


@witness.command()
@_DIR
@click.option("--name", required=True, metavar="NAME", help="Such as witness.example.org/w1.")
def keygen(*, root: Path, name: str) -> None:
    """Make a witness in DIR, and print its key for logs and auditors."""
    from aesp_proxy.aggregator.witness.state import make_witness

    click.echo(str(make_witness(root, name)))


@witness.command()
@_DIR
@click.argument("key", metavar="VKEY")
def trust(*, root: Path, key: str) -> None:
    """Witness the log whose key is VKEY (`aggregator log keys` prints it)."""
    from aesp_proxy.aggregator.witness.state import WitnessDir, trust_log

    known = trust_log(WitnessDir(root), key)
    line(f"witness: {known.name} is witnessed from the next start on")


@witness.command()
@_DIR
@click.option("--listen", default="127.0.0.1:8444", show_default=True, metavar="HOST:PORT")
@click.option("--tls-cert", type=_PATH, metavar="FILE", help="Certificate; without it plain HTTP.")
@click.option("--tls-key", type=_PATH, metavar="FILE", help="Its private key.")
@click.option("--ready-file", type=_PATH, metavar="FILE", help="Written as JSON when it accepts.")
@click.option("--ready-fd", type=int, metavar="N", help="One line when it accepts, then closed.")
def serve(
    *,
    root: Path,
    listen: str,
    tls_cert: Path | None,
    tls_key: Path | None,
    ready_file: Path | None,
    ready_fd: int | None,
) -> None:
    """Take checkpoints over HTTP and cosign those that continue what was cosigned before."""
    from aesp_proxy.aggregator.process import log_to_stderr
    from aesp_proxy.aggregator.witness.serve import WitnessOptions, serve_witness
    from aesp_proxy.cli.flags import split_listen

    host, port = split_listen(listen)
    log_to_stderr()
    serve_witness(
        WitnessOptions(
            root=root,
            host=host,
            port=port,
            tls_cert=tls_cert,
            tls_key=tls_key,
            ready_file=ready_file,
            ready_fd=ready_fd,
        ),
        announce=lambda url, logs: line(
            f"witness: {url} cosigns for {logs} log{'' if logs == 1 else 's'}"
        ),
    )
    line("witness: stopped")


@witness.command()
@_DIR
def check(*, root: Path) -> None:
    """Prove what DIR holds, and say how each log stands."""
    from aesp_proxy.aggregator.witness.state import open_state, standings
    from aesp_proxy.cli.audit import time_text

    state = open_state(root)
    click.echo(f"key   {state.key.public}")
    for standing in standings(state):
        known = standing.checkpoint
        told = f"{known.size} entries, {time_text(standing.time_s * 10**9)[:19]}Z" if known else "-"
        click.echo(printable(f"log   {standing.origin}  {told}"))
    if not state.logs:
        line("witness: no log is witnessed; `witness trust` adds one")
