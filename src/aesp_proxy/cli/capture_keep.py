"""``aesp-proxy capture keep``: a service that keeps the rules, beside a daemon without privilege.

Exit codes: 0 told to stop, 3 wrong settings or names, 4 the kernel does not let us.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from aesp_proxy.cli.capture_flags import rule_flags, settings_for
from aesp_proxy.cli.exits import ExitCode
from aesp_proxy.cli.output import error_line

if TYPE_CHECKING:
    from aesp_proxy.intercept.capture.keeper import News


@click.command()
@rule_flags
def keep(**given: Any) -> int:  # noqa: ANN401 - the flags of ``rule_flags``
    """Put the rules in and keep them until SIGTERM: what somebody changes is put back.

    It needs CAP_NET_ADMIN, and gives up all else. What happens is told to the daemon of
    the same settings (capture.rules: service), whether that runs already or later. When
    it is told to stop, capture.on_stop says whether the rules stay; when it dies they stay.
    """
    from aesp_proxy.daemon.capturing import wish_of
    from aesp_proxy.daemon.service.notify import Notifier
    from aesp_proxy.daemon.service.run_dir import capture_socket_in, run_dir_of
    from aesp_proxy.launch.capture import keep_as_service

    settings = settings_for(**given)
    notifier = Notifier.take(os.environ)
    run_dir = run_dir_of(settings, os.environ, is_root=os.geteuid() == 0)

    def told(news: News) -> None:
        error_line(news.message)
        notifier.ready(news.message)

    keep_as_service(
        wish_of(settings),
        capture_socket_in(run_dir),
        told=told,
        notice=error_line,
        alive=lambda: notifier.say("WATCHDOG=1"),
    )
    return ExitCode.DONE
