"""``aesp-proxy files watch``: a service that decides opens of files, beside a daemon.

Exit codes: 0 told to stop, 3 wrong settings or names, 4 the kernel does not let us.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from aesp_proxy.cli.exits import ExitCode
from aesp_proxy.cli.output import error_line


@click.command()
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings.")
@click.option("--users", metavar="USER,...", help="Users to watch (files.watch.users).")
@click.option("--groups", metavar="GROUP,...", help="Groups to watch (files.watch.groups).")
@click.option("--cgroups", metavar="PATH,...", help="Cgroups to watch (files.watch.cgroups).")
@click.option("--trees", metavar="DIR:...", help="Where to look (files.watch.trees).")
@click.option("--policy", metavar="FILE", help="Policy to decide by until the daemon says its own.")
@click.option(
    "--set", "more", multiple=True, metavar="NAME=VALUE", help="Any setting of docs/settings.md."
)
def watch(
    *,
    config: Path | None,
    users: str | None,
    groups: str | None,
    cgroups: str | None,
    trees: str | None,
    policy: str | None,
    more: tuple[str, ...],
) -> int:
    """Have the kernel ask before those who are named open a file, until SIGTERM.

    It needs CAP_SYS_ADMIN at its beginning. What it answers with has less: to read files,
    to see what they are opened for, and to hold off writers while it reads. The daemon of
    the same settings (files.watch.by: service) is told what happens, and its policy counts.
    Without one SIGHUP has the policy read again. When this is told to end, opens are asked
    for no more. When it is killed, a second process of it refuses those who are watched
    until another watch of the same users and directories answers.
    """
    from aesp_proxy.cli.flags import more_flags
    from aesp_proxy.daemon.config_load import load
    from aesp_proxy.daemon.service.notify import Notifier
    from aesp_proxy.daemon.service.run_dir import files_socket_in, run_dir_of
    from aesp_proxy.daemon.state_dir import prepare_state_dir
    from aesp_proxy.daemon.watching import config_line, wish_word
    from aesp_proxy.launch.files import read_wish, watch_as_service

    named = {
        "files.watch.users": users,
        "files.watch.groups": groups,
        "files.watch.cgroups": cgroups,
        "files.watch.trees": trees,
        "policy": policy,
    }
    flags = {name: value for name, value in named.items() if value is not None} | more_flags(more)
    is_root = os.geteuid() == 0
    settings = load(environ=os.environ, is_root=is_root, flags=flags, file=config)
    session_id = f"files-{os.getpid()}"
    notifier = Notifier.take(os.environ)

    def told(said: dict[str, object]) -> None:
        if message := str(said.get("message", "")):
            error_line(message)
        if said.get("type") == "ready":
            answers = f"opens of files are answered by process {said.get('pid')}"
            error_line(answers)
            notifier.ready(answers)

    prepare_state_dir(settings.state_dir)
    locks = settings.state_dir / "run"
    locks.mkdir(mode=0o700, exist_ok=True)
    watch_as_service(
        read_wish(wish_word(settings)),
        files_socket_in(run_dir_of(settings, os.environ, is_root=is_root)),
        lambda serial: config_line(settings, session_id=session_id, serial=serial),
        locks=locks,
        told=told,
        alive=lambda: notifier.say("WATCHDOG=1"),
    )
    return ExitCode.DONE
