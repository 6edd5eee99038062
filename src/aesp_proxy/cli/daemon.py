"""``aesp-proxy daemon``: the proxy as a service of the host, until it is told to stop.

SIGHUP, and a change of the policy's files, has the policy read again; SIGTERM ends it in
order. What it has to say goes to standard error, where a service manager keeps it.
"""

from __future__ import annotations

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aesp_proxy.cli.flags import listen_flags, more_flags, settings_of
from aesp_proxy.cli.output import error_line
from aesp_proxy.errors import ConfigError

if TYPE_CHECKING:
    from aesp_proxy.daemon.config import Settings

_PATH = click.Path(path_type=Path)


@click.command()
@click.option("--config", type=_PATH, metavar="FILE", help="Settings file.")
@click.option(
    "--policy", type=str, metavar="FILE", help="Policy; default is the built-in baseline."
)
@click.option("--state", type=str, metavar="DIR", help="State directory: keys, CA and record.")
@click.option("--listen", type=str, metavar="HOST:PORT", help="Loopback address to listen on.")
@click.option("--workers", type=str, metavar="N", help="Worker processes that share the port.")
@click.option(
    "--set", "more", multiple=True, metavar="NAME=VALUE", help="Any setting of docs/settings.md."
)
def daemon(
    *,
    config: Path | None,
    policy: str | None,
    state: str | None,
    listen: str | None,
    workers: str | None,
    more: tuple[str, ...],
) -> int:
    """Serve as the proxy of this host until SIGTERM.

    Exit codes: 0 told to stop, 3 wrong configuration or policy at the start, 4 the proxy
    cannot go on.
    """
    named = {"policy": policy, "state_dir": state, "daemon.workers": workers}
    flags = {name: value for name, value in named.items() if value is not None}
    flags |= listen_flags(listen) | more_flags(more)
    return _serve(settings_of(flags, config, agent_type="host"))


def _serve(settings: Settings) -> int:
    import trio

    from aesp_proxy.daemon.secret_registry import registry_of
    from aesp_proxy.daemon.service.notify import Notifier
    from aesp_proxy.daemon.service.plan import ServicePlan
    from aesp_proxy.daemon.service.run_dir import RunDir, run_dir_of
    from aesp_proxy.daemon.service.service import serve

    notifier = Notifier.take(os.environ)
    _prepare(settings)
    plan = ServicePlan(
        settings=settings,
        session_id=secrets.token_hex(8),
        log=settings.state_dir / "log" / "daemon.log",
        notice=error_line,
        registry=registry_of(settings, os.environ, say=error_line, is_agents=False),
    )
    with RunDir(run_dir_of(settings, os.environ, is_root=os.geteuid() == 0)) as run_dir:
        end = trio.run(serve, plan, run_dir, notifier)
    if end.message:
        error_line(end.message)
    return end.exit_code


def _prepare(settings: Settings) -> None:
    """Check and make what a service needs before anything listens."""
    from aesp_proxy.daemon.state_dir import prepare_state_dir
    from aesp_proxy.launch.ca import ensure_ca

    prepare_state_dir(settings.state_dir)
    ca = ensure_ca(settings.ca_dir, now=datetime.now(UTC))
    copy = settings.daemon.ca_copy
    if copy is None:
        return
    try:
        copy.write_bytes(ca.certificate.read_bytes())
        copy.chmod(0o644)
    except OSError as error:
        raise ConfigError(
            f"the CA's certificate cannot be copied here: {error.strerror}",
            where=str(copy),
            remedy="set daemon.ca_copy",
        ) from error
