"""``aesp-proxy status``: how the service of this host is, asked over its control socket.

Exit codes: 0 it runs, 1 (``--ready``) and a part of it is not ready, 3 the settings cannot be
read, 4 it does not run or does not answer.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Final

import click

from aesp_proxy.cli.exits import ExitCode
from aesp_proxy.cli.output import error_line, printable

_PATH: Final = click.Path(path_type=Path)


@click.command()
@click.option("--config", type=_PATH, metavar="FILE", help="Settings file of the service.")
@click.option("--state", metavar="DIR", help="State directory of the service.")
@click.option("--run-dir", metavar="DIR", help="Run directory of the service.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="For people, or as JSON.",
)
@click.option("--metrics", is_flag=True, help="Its figures in Prometheus' text form instead.")
@click.option("--ready", is_flag=True, help="Only whether each part is; exit 1 when one is not.")
def status(
    *,
    config: Path | None,
    state: str | None,
    run_dir: str | None,
    form: str,
    metrics: bool,
    ready: bool,
) -> int:
    """Say how the service is: its policy, workers, counts, record.

    Only root and the user that the service runs as are answered.
    """
    from aesp_proxy.daemon.config_load import load
    from aesp_proxy.daemon.service.ask import ask_status
    from aesp_proxy.daemon.service.run_dir import run_dir_of, socket_in

    named = {"state_dir": state, "daemon.run_dir": run_dir}
    flags = {name: value for name, value in named.items() if value is not None}
    is_root = os.geteuid() == 0
    settings = load(environ=os.environ, is_root=is_root, flags=flags, file=config)
    path = socket_in(run_dir_of(settings, os.environ, is_root=is_root))
    said: dict[str, Any] | None = ask_status(path)
    if said is None:
        error_line(f"no service runs here: {path}")
        return ExitCode.RUNTIME
    if ready:
        return _say_ready(said.get("components", {}), form)
    if metrics:
        from aesp_proxy.daemon.service.metrics import metrics_text

        click.echo(metrics_text(said, now_s=time.time()), nl=False)
    elif form == "json":
        click.echo(json.dumps(said, indent=2))
    else:
        for text in _lines(said):
            click.echo(printable(text))
    return ExitCode.DONE


def _say_ready(components: dict[str, bool], form: str) -> int:
    if form == "json":
        click.echo(json.dumps(components))
    else:
        for name, is_ready in components.items():
            click.echo(f"{name:<8} {'ready' if is_ready else 'NOT READY'}")
    return ExitCode.DONE if all(components.values()) else ExitCode.FINDINGS


def _lines(said: dict[str, Any]) -> list[str]:
    listen, policy, reload = said["listen"], said["policy"], said["last_reload"]
    record, forwarder = said["record"], said["forwarder"]
    stamp = f", {policy['stamp']}" if policy["stamp"] else ""
    lines = [
        (
            f"aesp-proxy {said['version']}: {said['state']} since {said['since']}, "
            f"pid {said['pid']}, on {listen['host']}:{listen['port']}"
        ),
        (
            f"policy: {policy['name']}, serial {policy['serial']} since {policy['since']}{stamp}, "
            f"hash {policy['hash'][:16]}"
        ),
    ]
    if reload is not None:
        what = f"not taken, the old policy stays: {reload['error']}" if reload["error"] else "taken"
        lines.append(f"last reload: {reload['at']}, {what}")
    if said["capture"] is not None:
        lines.append(_capture(said["capture"]))
    if said["files"] is not None:
        lines.append(_files(said["files"]))
    lines += [_worker(worker) for worker in said["workers"]]
    lines += [_broken(file, why) for file, why in said["secrets"]["broken"].items()]
    error = f", {record['error']}" if record["error"] else ""
    lines.append(
        f"record: {record['batches']} batches, {record['spool_bytes']} bytes kept, "
        f"sealer pid {record['sealer_pid']}{error}"
    )
    lines.append(f"forwarder: {'on, ' + forwarder['dir'] if forwarder['on'] else 'off'}")
    if forwarder.get("log"):
        lines.append(_log(forwarder["log"]))
    return lines


def _broken(file: str, why: str) -> str:
    return f"secrets: {file}: {why}; of it, only what its lines show is looked for"


def _log(log: dict[str, Any]) -> str:
    name = log["origin"] or "of the aggregator"
    proved = f"log {name}: {log['size']} entries, proved to hold our batch {log['batch']}"
    if log["cosigned"]:
        proved += f", cosigned by {', '.join(log['cosigned'])}"
    return f"{proved}; ALARM: {log['alarm']}" if log["alarm"] else proved


def _capture(capture: dict[str, Any]) -> str:
    names = ("users", "groups", "cgroups")
    whom = "; ".join(f"{name} {capture[name]}" for name in names if capture[name])
    stands = {True: "stand", False: "DO NOT STAND", None: "are kept elsewhere"}[capture["holds"]]
    last = f", last: {capture['last']['message']}" if capture["last"] else ""
    return (
        f"capture: {whom or 'whom others say'}; the packet rules {stands}, put back "
        f"{capture['repairs']} times{last}"
    )


def _files(files: dict[str, Any]) -> str:
    names = ("users", "groups", "cgroups")
    whom = "; ".join(f"{name} {files[name]}" for name in names if files[name])
    if not files["holds"]:
        last = f": {files['last']['message']}" if files["last"] else ""
        return f"files: {whom}; NOBODY WATCHES{last}"
    counts = files["counts"]
    counted = (
        f"{counts['asked']} opens asked for, {counts['watched']} by who is watched, "
        f"{counts['refused']} refused, {counts['forbidden']} forbidden files"
        if counts
        else "no counts yet"
    )
    return f"files: {whom}; listener pid {files['listener_pid']}, {counted}; {files['guarantee']}"


def _worker(worker: dict[str, Any]) -> str:
    if not worker["ready"]:
        return f"worker {worker['number']}: not ready, started again {worker['restarts']} times"
    counts = (
        "no counts"
        if worker["connections"] is None
        else f"{worker['connections']} connections, {worker['allowed']} allowed, "
        f"{worker['refused']} refused"
    )
    return (
        f"worker {worker['number']}: pid {worker['pid']}, epoch {worker['epoch']}, "
        f"serial {worker['serial']}, {counts}, started again {worker['restarts']} times"
    )
