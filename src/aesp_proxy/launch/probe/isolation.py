"""The layers of isolation, tried in a child that is never let go."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from aesp_proxy.errors import AespError
from aesp_proxy.launch.child import Child
from aesp_proxy.launch.isolation import view
from aesp_proxy.launch.isolation.layers import MEANINGS, Layer, Report, remedy
from aesp_proxy.launch.isolation.wish import Wish
from aesp_proxy.launch.probe.finding import Finding, Group, Level

# What stands, said in a few words.
_STANDS: Final = {
    Layer.USER: ("user namespace", "an ordinary user can isolate, and the agent owns nothing"),
    Layer.NETWORK: ("network namespace", "every address leads to the proxy, IPv4 and IPv6"),
    Layer.MOUNTS: ("mount namespace", "the agent's mounts are its own"),
    Layer.PROCESSES: ("process namespace", "the agent reaches its own processes only"),
    Layer.IPC: ("IPC namespace", "no shared memory with the host"),
    Layer.HOSTNAME: ("host name namespace", "the host's name cannot be changed"),
    Layer.PROC: ("own /proc", "the host's processes cannot be seen"),
    Layer.KERNEL_FILES: ("kernel settings", "read-only to the agent"),
    Layer.RESOLVER: ("own resolver", "names are asked of the proxy"),
    Layer.OWN_FILES: ("own files", "keys, record and policy are out of the agent's reach"),
    Layer.STAGE: ("stage (overlay)", "`run --stage` holds back what the agent writes"),
    Layer.FUSE: ("live view (FUSE)", "every access below the guarded directories is decided"),
    Layer.NOTIFY: ("system calls (seccomp)", "every opening is decided, with no privilege"),
    Layer.EVERY_PORT: ("packet rules (nftables)", "connections to every port are caught"),
    Layer.CAPABILITIES: (
        "no capabilities, no_new_privs",
        "no privilege, and no program that gives one",
    ),
    Layer.LANDLOCK: ("Landlock", "signals and abstract sockets stay inside"),
    Layer.SECCOMP: ("seccomp filter", "no unix, raw or packet socket, no dangerous system call"),
}


def try_isolation() -> Report:
    """Build everything around a command, and take it down again; UnavailableError."""
    with tempfile.TemporaryDirectory() as name:
        wish = Wish(layers=tuple(Layer), transparent=True, dns=True, view=_some_view(Path(name)))
        child = Child(["true"], os.environ, wish)
        prepared = child.prepare()
        child.discard()
        prepared.close()
    return prepared.report


def _some_view(folder: Path) -> str:
    """List a stage, a cover and a live view, of nothing."""
    paths = [folder / each for each in ("tree", "upper", "work", "live")]
    for path in paths:
        path.mkdir()
    tree, upper, work, live = map(str, paths)
    listed = str(folder / "list")
    view.write(listed, [("stage", tree, upper, work), ("cover", tree, tree), ("fuse", live)])
    return listed


def isolation_findings(*, degraded: bool, is_root: bool) -> list[Finding]:
    """Try every layer; ``degraded`` settings let ``run`` go on without those that matter."""
    try:
        report = try_isolation()
    except AespError as error:
        return [
            Finding(
                group=Group.ISOLATION,
                name="helper",
                level=Level.MISSING,
                found=error.message,
                meaning="`run` cannot start a command",
                remedy=error.remedy or "",
            )
        ]
    return list(told(report, degraded=degraded, is_root=is_root))


def told(report: Report, *, degraded: bool, is_root: bool) -> Iterator[Finding]:
    """Yield a finding for each layer."""
    for layer in Layer:
        name, good = _STANDS[layer]
        stands = report.stands(layer)
        yield Finding(
            group=Group.ISOLATION,
            name=name,
            level=Level.OK if stands else _level(layer, degraded=degraded),
            found="stands" if stands else report.why(layer),
            meaning=good if stands else _open(layer, degraded=degraded),
            remedy="" if stands else _how(layer, report, is_root=is_root),
        )


def _level(layer: Layer, *, degraded: bool) -> Level:
    return Level.MISSING if MEANINGS[layer].required and not degraded else Level.WEAKER


def _open(layer: Layer, *, degraded: bool) -> str:
    meaning = MEANINGS[layer]
    refuses = meaning.required and not degraded
    return f"{'`run` refuses: ' if refuses else '`run` goes on, and '}{meaning.open_without}"


def _how(layer: Layer, report: Report, *, is_root: bool) -> str:
    match layer:
        case Layer.EVERY_PORT if report.stands(Layer.NETWORK):
            return "a kernel with nf_tables, nft_chain_nat and nft_redir (modprobe nft_redir)"
        case Layer.LANDLOCK:
            return "Linux 6.12 or newer with `landlock` in /sys/kernel/security/lsm"
        case _:
            return remedy(report, is_root=is_root)
