"""``aesp-proxy run -- CMD``: one command under enforcement, and its record.

Wires what may not know each other: settings, CA and environment, the command, the
supervisor. Everything that the operator can have wrong is found before the command
starts. Standard output belongs to the command; what we say goes to standard error.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from aesp_proxy.cli.flags import listen_flags, more_flags, settings_of
from aesp_proxy.cli.output import error_line, line
from aesp_proxy.errors import AespError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aesp_proxy.cli.run_files import RunFiles
    from aesp_proxy.cli.run_stage import RunStage
    from aesp_proxy.cli.walls import Environment
    from aesp_proxy.daemon.config import Settings
    from aesp_proxy.daemon.process import EarlyWorker
    from aesp_proxy.daemon.run_plan import Plan, RunEnd
    from aesp_proxy.daemon.secret_registry import Registry
    from aesp_proxy.launch.child import Child
    from aesp_proxy.launch.terminal import Terminal
    from aesp_proxy.model.record import Record

_NOT_FOUND: Final = 127
_SIGNALLED: Final = 128
_PATH = click.Path(path_type=Path)


@click.command(
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
)
@click.option(
    "--policy", type=str, metavar="FILE", help="Policy; default is the built-in baseline."
)
@click.option("--state", type=str, metavar="DIR", help="State directory: keys, CA and record.")
@click.option("--config", type=_PATH, metavar="FILE", help="Settings file.")
@click.option("--listen", type=str, metavar="HOST:PORT", help="Loopback address to listen on.")
@click.option(
    "--audit-mode",
    type=click.Choice(["batch", "blocking", "blocking-strict"]),
    help="When a record is durable.",
)
@click.option("--forward", type=str, metavar="DIR", help="What `aggregator enroll` made.")
@click.option(
    "--allow-degraded",
    is_flag=True,
    help="Go on where the machine does not allow isolation; what is not enforced is said.",
)
@click.option(
    "--files",
    type=click.Choice(["auto", "fuse", "stage", "notify", "observe", "none"]),
    help="How accesses to files are decided (files.backend).",
)
@click.option(
    "--stage",
    is_flag=True,
    help="Hide forbidden files and hold back what is written here until it is published.",
)
@click.option("--publish", is_flag=True, help="Publish the stage when every change passes.")
@click.option(
    "--set", "more", multiple=True, metavar="NAME=VALUE", help="Any setting of docs/settings.md."
)
@click.option(
    "--secrets-from",
    type=str,
    multiple=True,
    metavar="SOURCE",
    help="What may not leave: a file (.env, credentials, keys), dir:PATH, vault:MOUNT/PATH, "
    "exec:COMMAND.",
)
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(  # noqa: PLR0913 - an argument an option
    *,
    policy: str | None,
    state: str | None,
    config: Path | None,
    listen: str | None,
    audit_mode: str | None,
    forward: str | None,
    allow_degraded: bool,
    files: str | None,
    stage: bool,
    publish: bool,
    more: tuple[str, ...],
    secrets_from: tuple[str, ...],
    quiet: bool,
    command: tuple[str, ...],
) -> int:
    """Run COMMAND; what it sends out is decided by the policy and recorded.

    Returns the command's exit code; 3 for a wrong configuration or policy, 4 when
    the proxy fails, 126 or 127 for a command that cannot be run.
    """
    named = {"policy": policy, "state_dir": state, "audit.mode": audit_mode, "forward.dir": forward}
    named["files.backend"] = files
    flags = {name: value for name, value in named.items() if value is not None}
    flags |= listen_flags(listen) | more_flags(more)
    if allow_degraded:
        flags["isolation.mode"] = "degraded"
    if stage or publish:
        if files not in (None, "stage"):
            raise click.UsageError(f"--stage is --files stage, and not --files {files}")
        flags["files.backend"] = "stage"
    settings = settings_of(flags, config, agent_type=Path(command[0]).name)
    return _run(settings, command, _Asked(config, _sources(secrets_from), publish, quiet))


def _sources(given: Sequence[str]) -> tuple[str, ...]:
    """Return what ``--secrets-from`` names; the reader of sources is loaded where it is given."""
    if not given:
        return ()
    from aesp_proxy.daemon.secret_sources import source_of

    return tuple(source_of(each, "--secrets-from") for each in given)


class _Asked(NamedTuple):
    """What the command line says beside settings and command."""

    config: Path | None
    sources: Sequence[str]
    publish: bool
    quiet: bool


def _run(settings: Settings, command: Sequence[str], asked: _Asked) -> int:
    from aesp_proxy.cli.run_files import files_for
    from aesp_proxy.cli.run_view import view_for
    from aesp_proxy.daemon.process import start_early_worker
    from aesp_proxy.daemon.secret_registry import registry_of
    from aesp_proxy.daemon.state_dir import prepare_state_dir
    from aesp_proxy.launch import reaper
    from aesp_proxy.launch.terminal import Terminal

    session_id = secrets.token_hex(8)
    log = settings.state_dir / "log" / f"run-{session_id}.log"
    prepare_state_dir(settings.state_dir)
    if os.sep not in command[0] and shutil.which(command[0], os.F_OK) is None:
        error_line(f"{command[0]}: command not found")
        return _NOT_FOUND
    reaper.become_subreaper()
    # It loads for a second, while we find and make what it is to have.
    loading = start_early_worker(log=log)
    terminal = Terminal()
    try:
        say = partial(_say, quiet=asked.quiet)
        registry = registry_of(settings, os.environ, asked.sources, say=say)
        start = _Start(settings, session_id, log, command, asked.quiet, loading, registry)
        environment = _prepare(settings)
        files = files_for(settings)
        start = start._replace(settings=files.settings)
        staged = _staged(start)
        rows = (*files.rows, *(staged.rows if staged else ()))
        with view_for(settings, session_id, config=asked.config, more=rows) as view:
            code = _walled(start, environment, terminal, view, files)
        if staged:
            _end_stage(start, staged, publish=asked.publish)
        return code
    finally:
        loading.discard()
        # A reaper that was killed has left its orphans to us.
        reaper.end_descendants(grace_s=1.0)
        if log.exists() and not log.stat().st_size:
            log.unlink()


def _staged(start: _Start) -> RunStage | None:
    """Make the stage of a run that asks for one."""
    if start.settings.files.backend != "stage":
        return None
    from aesp_proxy.cli.run_stage import start_stage
    from aesp_proxy.daemon.fingerprint import load_fingerprint_key
    from aesp_proxy.daemon.policy_files import load_snapshot

    state = start.settings.state_dir
    snapshot = load_snapshot(
        start.settings.policy,
        fingerprint_key=load_fingerprint_key(state),
        serial=1,
        cache_dir=start.settings.rule_cache_dir,
    )
    return start_stage(
        start.settings,
        snapshot,
        session_id=start.session_id,
        command=start.command,
        exact=start.registry.index(),
    )


def _end_stage(start: _Start, staged: RunStage, *, publish: bool) -> None:
    """Vet and show the stage; what goes wrong is told, and the stage stays."""
    from aesp_proxy.cli.run_stage import end_stage

    try:
        end_stage(start.settings, staged, publish=publish)
    except AespError as error:
        error_line(f"{error}; the stage is kept: `aesp-proxy stage list`")


class _Start(NamedTuple):
    """What a run starts from."""

    settings: Settings
    session_id: str
    log: Path
    command: Sequence[str]
    quiet: bool
    loading: EarlyWorker
    registry: Registry


def _walled(
    start: _Start, environment: Environment, terminal: Terminal, view: Path, files: RunFiles
) -> int:
    """Wall the command in, start the helpers on the sockets made there, supervise all."""
    from aesp_proxy.cli.walls import wall_in
    from aesp_proxy.daemon.process import sealer_arguments, start_helpers

    walled = wall_in(start.settings, start.command, environment, view, files.backends)
    try:
        guard = files.guard(walled, view, log=start.log)
    except AespError:
        walled.close()
        raise
    _say_open(walled.open, quiet=start.quiet)
    if backend := files.backend_of(walled):
        _say(f"files: {backend}: {files.promise(backend)}", quiet=start.quiet)
    port = walled.listener.getsockname()[1]
    settings = replace(start.settings, listen=replace(start.settings.listen, port=port))
    try:
        helpers = start_helpers(
            settings,
            walled.listener,
            log=start.log,
            more=(*walled.more, *(guard.for_proxy if guard is not None else ())),
            sealer_arguments=sealer_arguments(settings),
            loading=start.loading,
        )
    except AespError:
        walled.close()
        if guard is not None:
            guard.discard()
        raise
    helpers = replace(helpers, files=guard)
    # They take a second to load; what we need ourselves is loaded meanwhile.
    import trio

    from aesp_proxy.daemon.run_plan import Ended, Plan
    from aesp_proxy.daemon.supervisor import supervise

    plan = Plan(
        settings=settings,
        session_id=start.session_id,
        log=start.log,
        registry=start.registry,
        door=walled.door,
        notice=(lambda _: None) if start.quiet else error_line,
    )
    end = trio.run(supervise, plan, walled.child, helpers)
    if end.exit_code > _SIGNALLED or end.ended is not Ended.CHILD:
        terminal.restore()
    code = _account(plan, walled.child, end, start.command, quiet=start.quiet)
    _say_open(walled.missing, quiet=start.quiet)
    return code


def _say_open(what: Sequence[str], *, quiet: bool) -> None:
    """Say what is not enforced."""
    for each in what:
        _say(f"not enforced: {each}", quiet=quiet)


def _prepare(settings: Settings) -> Environment:
    """Check and make all that a run needs; return how its environment is made."""
    from aesp_proxy.launch.ca import ensure_ca
    from aesp_proxy.launch.environment import ProxyAddress, child_environment
    from aesp_proxy.launch.trust import ensure_trust

    ca = ensure_ca(settings.ca_dir, now=datetime.now(UTC))
    java = shutil.which("java") is not None
    trust = ensure_trust(ca.certificate, environ=os.environ, java=java)

    def environment(proxy: ProxyAddress) -> dict[str, str]:
        return child_environment(os.environ, proxy=proxy, trust=trust)

    return environment


def _account(plan: Plan, child: Child, end: RunEnd, command: Sequence[str], *, quiet: bool) -> int:
    """Say how it ended, and return the exit code."""
    from aesp_proxy.daemon.run_plan import Ended

    ending = child.exit
    if ending is not None and not ending.started:
        error_line(f"{command[0]}: {ending.problem}")
    elif ending is not None and ending.left:
        processes = "1 process" if ending.left == 1 else f"{ending.left} processes"
        _say(f"ended {processes} that the command left behind", quiet=quiet)
    if end.ended not in (Ended.CHILD, Ended.INTERRUPTED):
        error_line(end.message)
    if end.epoch and not quiet:
        _print_summary(plan.settings, [each for each in (end.epoch, end.files_epoch) if each])
    return end.exit_code


def _say(text: str, *, quiet: bool) -> None:
    if not quiet:
        error_line(text)


def _print_summary(settings: Settings, epochs: Sequence[int]) -> None:
    from aesp_proxy.cli.summary import render, summarise

    state = str(settings.state_dir)
    try:
        summary = summarise(chain.from_iterable(_records(settings.state_dir, e) for e in epochs))
    except AespError as error:
        error_line(f"the record of this run cannot be read: {error}")
        return
    for text in render(summary, state_dir=shlex.quote(state), epochs=epochs):
        error_line(text) if not text.startswith(" ") else line(text)


def _records(state_dir: Path, epoch: int) -> Iterable[Record]:
    from aesp_proxy.record.reader import read_state

    return (record for _, record in read_state(state_dir, epoch=epoch))
