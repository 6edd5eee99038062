"""``aesp-proxy doctor``: what this machine can enforce, and how to get the rest.

Every layer is tried in a child and none guessed. With ``--attack`` a program inside a real
``run`` attacks from there, and canaries on loopback say what got out.

Exit codes: 0 all is there (all attacks stopped), 1 something is weaker (what is allowed did
not pass either, so the rest proves little), 2 ``run`` would refuse (something got out), 3 the
settings cannot be read, 5 wrong use.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from aesp_proxy.cli.exits import ExitCode

if TYPE_CHECKING:
    from aesp_proxy.daemon.config import Settings

_PATH: Final = click.Path(path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--attack", is_flag=True, help="Attack from inside a real `run`, and see what stops.")
@click.option(
    "--row",
    "rows",
    multiple=True,
    type=int,
    metavar="N",
    help="Attacks of this row of docs/bypass-resistance.md only; may be repeated.",
)
@click.option(
    "--user",
    metavar="NAME",
    help="With --attack: from the place of this user, whom `capture.*` captures (as root).",
)
@click.option("--policy", metavar="FILE", help="Policy; default is that of the settings.")
@click.option("--state", metavar="DIR", help="State directory to look at.")
@click.option("--config", type=_PATH, metavar="FILE", help="Settings file.")
@click.option(
    "--allow-degraded",
    is_flag=True,
    help="Judge, and attack, as `run --allow-degraded` would go on.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="For people, or as JSON.",
)
@click.option("--out", type=_PATH, metavar="FILE", help="Write the JSON to a file too.")
@click.pass_context
def doctor(
    ctx: click.Context,
    *,
    attack: bool,
    rows: tuple[int, ...],
    user: str | None,
    policy: str | None,
    state: str | None,
    config: Path | None,
    allow_degraded: bool,
    form: str,
    out: Path | None,
) -> None:
    """Say what this machine can enforce, or attack the installation to see it enforce.

    Exit code: 0 all is there, 1 something is weaker, 2 `run` would refuse; with --attack 0
    all stopped, 1 what is allowed did not pass either, 2 something got out. Nothing is
    changed, and no attack leaves the machine.
    """
    if rows and not attack:
        raise click.UsageError("--row goes with --attack", ctx)
    if user is not None and not attack:
        raise click.UsageError("--user goes with --attack", ctx)
    settings = _settings(policy, state, config, degraded=allow_degraded)
    if attack:
        ctx.exit(_attack(settings, rows, user, form, out))
    ctx.exit(_look(settings, form, out))


def _settings(
    policy: str | None, state: str | None, config: Path | None, *, degraded: bool
) -> Settings:
    from aesp_proxy.daemon.config_load import load

    named = {"policy": policy, "state_dir": state}
    flags = {name: value for name, value in named.items() if value is not None}
    if degraded:
        flags["isolation.mode"] = "degraded"
    return load(environ=os.environ, is_root=os.geteuid() == 0, flags=flags, file=config)


def _look(settings: Settings, form: str, out: Path | None) -> ExitCode:
    from aesp_proxy.cli.doctor_findings import findings
    from aesp_proxy.cli.doctor_report import as_json, readable
    from aesp_proxy.launch.probe.finding import Level, worst

    found = findings(settings)
    _tell(form, as_json(found), "\n".join(readable(found, colours=sys.stdout.isatty())), out)
    return {Level.MISSING: ExitCode.REFUSED, Level.WEAKER: ExitCode.FINDINGS}.get(
        worst(found), ExitCode.DONE
    )


def _attack(
    settings: Settings, rows: tuple[int, ...], user: str | None, form: str, out: Path | None
) -> ExitCode:
    from aesp_proxy.cli.doctor_attack import attack_installation
    from aesp_proxy.cli.doctor_captured import attack_captured
    from aesp_proxy.cli.doctor_report import attacks_as_json, readable_attacks
    from aesp_proxy.launch.attack.judge import Outcome

    if user is None:
        told = attack_installation(settings, frozenset(rows))
    else:
        told = attack_captured(settings, user, frozenset(rows))
    text = "\n".join(readable_attacks(told, colours=sys.stdout.isatty()))
    _tell(form, attacks_as_json(told), text, out)
    outcomes = {each.outcome for each in told}
    if Outcome.GOT_OUT in outcomes:
        return ExitCode.REFUSED
    return ExitCode.DONE if Outcome.PASSED in outcomes else ExitCode.FINDINGS


def _tell(form: str, document: str, text: str, out: Path | None) -> None:
    from aesp_proxy.errors import ConfigError

    if out is not None:
        try:
            out.write_text(document + "\n", "utf-8")
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}", where=str(out)) from error
    sys.stdout.write((document if form == "json" else text) + "\n")
