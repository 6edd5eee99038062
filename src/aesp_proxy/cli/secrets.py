"""``aesp-proxy secrets``: the values that a running service looks for and never lets out.

A value comes from a file, standard input, a vault, a command or the environment, never
from an argument: arguments are shown to everybody on the machine. Nothing here prints
one. ``run`` takes its own from the settings ``secrets.*`` and ``--secrets-from``.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from aesp_proxy.cli.exits import ExitCode
from aesp_proxy.cli.output import error_line, printable
from aesp_proxy.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aesp_proxy.daemon.config import Settings
    from aesp_proxy.daemon.secret_sources import Value

_PATH: Final = click.Path(path_type=Path)
_STDIN_BYTES_MAX: Final = 1 << 20


@click.group()
def secrets() -> None:
    """Register secret values that may not leave, list and forget them.

    They are looked for in everything that leaves, in all their spellings. Kept are keyed
    hashes, in memory only.
    """


def _service_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add what says which service is meant."""
    for option in (
        click.option("--run-dir", metavar="DIR", help="Run directory of the service."),
        click.option("--state", metavar="DIR", help="State directory of the service."),
        click.option("--config", type=_PATH, metavar="FILE", help="Settings file of the service."),
    ):
        command = option(command)
    return command


@secrets.command()
@click.option("--name", metavar="NAME", help="Name for the value on standard input.")
@_service_options
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
def register(
    *,
    name: str | None,
    sources: tuple[str, ...],
    config: Path | None,
    state: str | None,
    run_dir: str | None,
) -> int:
    """Register the values of SOURCEs, or one from standard input; effective at once.

    A SOURCE is a file (.env, credentials, netrc, npmrc, docker, gh, kube, keys ...),
    dir:PATH, vault:MOUNT/PATH, exec:COMMAND, env:NAME, or `credentials`, the well-known
    files of the home.

    Exit codes: 0 all are looked for, 1 some are not worth it, 3 a source cannot be read,
    4 no service runs.
    """
    settings = _settings(config, state, run_dir)
    if bool(sources) == (name is not None):
        message = "give sources, or --name NAME and the value on standard input"
        raise click.UsageError(message)
    values = _from_stdin(name) if name is not None else _from_sources(sources, settings)
    question = {
        "ask": "secrets.register",
        "values": [
            {
                "name": value.name,
                "source": value.source,
                "value": base64.b64encode(value.value).decode("ascii"),
            }
            for value in values
        ],
    }
    said = _ask(settings, question)
    for one in said["registered"]:
        click.echo(printable(f"registered {one['name']} ({one['source']})"))
    for one in said["refused"]:
        error_line(printable(f"not registered: {one['name']} ({one['source']}): {one['reason']}"))
    if not said["registered"] and not said["refused"]:
        click.echo("nothing new")
    return ExitCode.FINDINGS if said["refused"] else ExitCode.DONE


@secrets.command(name="list")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text",
              show_default=True, help="For people, or as JSON.")  # fmt: skip
@_service_options
def list_command(*, form: str, config: Path | None, state: str | None, run_dir: str | None) -> int:
    """List names and sources of what is registered, never values: they are not known any more."""
    said = _ask(_settings(config, state, run_dir), {"ask": "secrets.list"})
    if form == "json":
        click.echo(json.dumps(said, indent=2))
        return ExitCode.DONE
    for one in said["secrets"]:
        click.echo(printable(f"{one['name']}  {one['source']}"))
    return ExitCode.DONE


@secrets.command()
@_service_options
@click.argument("name")
def forget(*, name: str, config: Path | None, state: str | None, run_dir: str | None) -> int:
    """Look for the values of NAME no more. Exit codes: 0 done, 1 there is none."""
    said = _ask(_settings(config, state, run_dir), {"ask": "secrets.forget", "name": name})
    if not said["forgotten"]:
        error_line(f"nothing is registered as {printable(name)}")
        return ExitCode.FINDINGS
    click.echo(printable(f"forgot {name}"))
    return ExitCode.DONE


def _settings(config: Path | None, state: str | None, run_dir: str | None) -> Settings:
    from aesp_proxy.daemon.config_load import load

    named = {"state_dir": state, "daemon.run_dir": run_dir}
    flags = {key: value for key, value in named.items() if value is not None}
    return load(environ=os.environ, is_root=os.geteuid() == 0, flags=flags, file=config)


def _ask(settings: Settings, question: Mapping[str, object]) -> dict[str, Any]:
    from aesp_proxy.daemon.service.ask import ask
    from aesp_proxy.daemon.service.run_dir import run_dir_of, socket_in

    path = socket_in(run_dir_of(settings, os.environ, is_root=os.geteuid() == 0))
    said = ask(path, question)
    if said is None:
        raise UnavailableError("no service runs here", where=str(path))
    return said


def _from_stdin(name: str) -> list[Value]:
    from aesp_proxy.daemon.secret_sources import Value

    value = sys.stdin.buffer.read(_STDIN_BYTES_MAX + 1)
    if len(value) > _STDIN_BYTES_MAX:
        raise ConfigError(f"longer than {_STDIN_BYTES_MAX} bytes", where="standard input")
    return [Value(name=name, source="standard input", value=value.strip())]


def _from_sources(sources: tuple[str, ...], settings: Settings) -> list[Value]:
    from aesp_proxy.daemon.secret_sources import Value, from_source, source_of

    home = Path(os.environ["HOME"]) if os.environ.get("HOME") else None
    found: list[Value] = []
    for source in sources:
        if source.startswith("env:"):
            variable = source.removeprefix("env:")
            if variable not in os.environ:
                raise ConfigError("no such variable", where=source)
            value = os.environ[variable].encode("utf-8", "surrogateescape")
            found.append(Value(name=variable, source="environment", value=value))
            continue
        found += from_source(source_of(source, "SOURCE"), settings.secrets, home)
    return found
