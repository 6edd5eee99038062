"""Whether users, groups and cgroups of this host can be captured, and what would get past it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from aesp_proxy.errors import AespError
from aesp_proxy.intercept.capture import tables
from aesp_proxy.intercept.capture.who import cgroup_root
from aesp_proxy.intercept.capture.wish import Wish
from aesp_proxy.launch.probe.finding import Finding, Group, Level

_TRIAL: Final = "aesp_proxy.launch.probe.capture_trial"
_TRIAL_S_MAX: Final = 30
# Families whose sockets the kernel makes for a program, and knows no user of.
_KERNEL_SOCKETS: Final = {"net-pf-33": "rxrpc", "net-pf-43": "smc"}
_MODULES: Final = "needs a kernel with nf_tables, nft_redir, nft_ct, nft_reject and nft_socket"


def capture_findings(wish: Wish | None, *, rules: str) -> Iterator[Finding]:
    """Try it, and look at what is installed; ``wish`` is what the settings capture, if anything.

    ``rules`` is the setting that says who keeps them. Nothing of this network is changed.
    """
    users, cgroups = tried()
    yield _can("users and groups", users, wanted=wish is not None)
    yield _can("cgroups", cgroups, wanted=wish is not None and bool(wish.named.cgroups))
    if wish is None:
        return
    yield _standing(wish, rules)
    yield _names(Path("/etc/nsswitch.conf"), Path("/run/nscd/socket"))
    yield _kernel_sockets(Path("/lib/modules") / os.uname().release / "modules.alias")


def tried() -> tuple[int, int]:
    """Return the errno of rules for users and of those for cgroups, 0 for what works."""
    root = cgroup_root(Path("/proc/self/mountinfo").read_text("utf-8", "replace"))
    number = root.stat().st_ino if root is not None else 0
    done = subprocess.run(
        [sys.executable, "-I", "-m", _TRIAL, str(number)],
        capture_output=True, text=True, check=False, timeout=_TRIAL_S_MAX,
    )  # fmt: skip
    words = done.stdout.split()
    return (int(words[0]), int(words[1])) if len(words) == 2 else (errno.EIO, errno.EIO)


def _capture(name: str, level: Level, found: str, meaning: str, remedy: str = "") -> Finding:
    return Finding(
        group=Group.CAPTURE, name=name, level=level, found=found, meaning=meaning, remedy=remedy
    )


def _can(name: str, number: int, *, wanted: bool) -> Finding:
    if number == 0:
        return _capture(name, Level.OK, "can be captured", "what they send leads to `daemon`")
    level = Level.MISSING if wanted else Level.UNUSED
    how = "cgroup version 2 is to be mounted" if number == errno.ENOENT else _MODULES
    return _capture(name, level, os.strerror(number), "`daemon` refuses to capture them", how)


def _standing(wish: Wish, rules: str) -> Finding:
    """Say whether the rules of the settings stand now, in this network."""
    try:
        different = tables.differences(wish.table())
    except AespError as error:
        return _capture(
            "packet rules", Level.MISSING, str(error), "`daemon` refuses to start",
            error.remedy or "mend capture.*",
        )  # fmt: skip
    except OSError as error:
        return _capture(
            "packet rules", Level.WEAKER, error.strerror or str(error),
            "whether they stand only root can see", "run doctor as root",
        )  # fmt: skip
    if different:
        return _capture(
            "packet rules", Level.WEAKER, different[0], "who is named is not captured now",
            "start aesp-proxy-capture.service" if rules == "service" else "start `daemon`",
        )  # fmt: skip
    return _capture("packet rules", Level.OK, "stand", f"captured: {wish.told()}")


def _names(nsswitch: Path, nscd: Path) -> Finding:
    """Say whether programs ask another user's program for names, which is not captured."""
    try:
        lines = nsswitch.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    words = {word for line in lines if line.startswith("hosts:") for word in line.split()}
    others = [name for name, there in (("systemd-resolved", "resolve" in words),
                                       ("nscd", nscd.exists())) if there]  # fmt: skip
    if not others:
        return _capture("names", Level.OK, "asked over the network", "our resolver answers")
    return _capture(
        "names", Level.WEAKER, f"asked of {' and '.join(others)}",
        "by a socket of its own, past our resolver: names can carry data out",
        "take `resolve` out of `hosts:` in /etc/nsswitch.conf; stop nscd",
    )  # fmt: skip


def _kernel_sockets(aliases: Path) -> Finding:
    try:
        text = aliases.read_text("ascii", "replace")
    except OSError:
        text = ""
    there = [module for alias, module in _KERNEL_SOCKETS.items() if f"alias {alias} " in text]
    if not there:
        return _capture(
            "kernel's own sockets", Level.OK, "no family that makes them for a program",
            "every packet of a program is a user's",
        )  # fmt: skip
    return _capture(
        "kernel's own sockets", Level.WEAKER, f"modules {', '.join(there)} can be loaded",
        "what such a socket sends is no user's, and is not captured",
        "in /etc/modprobe.d: " + "; ".join(f"install {each} /bin/false" for each in there),
    )  # fmt: skip
