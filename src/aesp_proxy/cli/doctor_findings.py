"""All that ``doctor`` looks at, in the order in which it is told."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from aesp_proxy.daemon.capturing import ELSEWHERE, captures, wish_of
from aesp_proxy.daemon.config import Settings
from aesp_proxy.daemon.policy_files import load_snapshot
from aesp_proxy.daemon.watching import trees_of, watched_now, watches
from aesp_proxy.errors import ConfigError
from aesp_proxy.forward.transport import Address, Destination, load_destination
from aesp_proxy.launch.probe.capture import capture_findings
from aesp_proxy.launch.probe.clients import client_findings
from aesp_proxy.launch.probe.files import file_findings
from aesp_proxy.launch.probe.finding import Finding, Group, Level
from aesp_proxy.launch.probe.isolation import isolation_findings
from aesp_proxy.launch.probe.machine import machine_findings
from aesp_proxy.launch.probe.state import ca_finding, state_finding

_CONNECT_S_MAX: Final = 3.0


def findings(settings: Settings) -> list[Finding]:
    """Look at everything; nothing is changed."""
    now = datetime.now(UTC)
    degraded = settings.isolation.mode == "degraded"
    found = [
        *machine_findings(connections_max=settings.limits.connections_max),
        *isolation_findings(degraded=degraded, is_root=os.geteuid() == 0),
        *_capture(settings),
        *_files(settings),
        state_finding(settings.state_dir),
        ca_finding(settings.ca_dir, now=now),
        _policy(settings),
        _aggregator(settings, now),
        *client_findings(shutil.which),
    ]
    order = list(Group)
    return sorted(found, key=lambda finding: order.index(finding.group))


def _capture(settings: Settings) -> Iterator[Finding]:
    """Yield what the settings capture, and whether that can be; nothing is put in."""
    rules = settings.capture.rules
    try:
        named = captures(settings) and rules != ELSEWHERE
        wish = wish_of(settings) if named else None
    except ConfigError as error:
        yield Finding(
            group=Group.CAPTURE, name="settings", level=Level.MISSING, found=str(error),
            meaning="`daemon` refuses to start", remedy=error.remedy or "mend capture.*",
        )  # fmt: skip
        return
    yield from capture_findings(wish, rules=rules)


def _files(settings: Settings) -> Iterator[Finding]:
    """Yield whether opens of files can be decided; nothing is marked."""
    named = watches(settings)
    try:
        if named:
            watched_now(settings)
        trees = trees_of(settings) if named else ()
    except ConfigError as error:
        yield Finding(
            group=Group.FILES, name="settings", level=Level.MISSING, found=str(error),
            meaning="`daemon` refuses to start", remedy=error.remedy or "mend files.watch.*",
        )  # fmt: skip
        return
    yield from file_findings(trees, named=named)


def _setup(name: str, level: Level, found: str, meaning: str, remedy: str = "") -> Finding:
    return Finding(
        group=Group.SETUP, name=name, level=level, found=found, meaning=meaning, remedy=remedy
    )


def _policy(settings: Settings) -> Finding:
    where = str(settings.policy or "the built-in baseline")
    cache = settings.rule_cache_dir
    try:
        snapshot = load_snapshot(
            settings.policy,
            fingerprint_key=os.urandom(32),
            serial=1,
            cache_dir=cache if cache.is_dir() else None,
        )
    except ConfigError as error:
        return _setup(
            "policy", Level.MISSING, f"{where}: {error.message}", "`run` refuses to start",
            error.remedy or f"aesp-proxy policy lint {where}",
        )  # fmt: skip
    found = f"{where}: {snapshot.policy_name}"
    if snapshot.warnings:
        return _setup(
            "policy", Level.WEAKER, f"{found}, {snapshot.warnings[0]}",
            "it loads, and says something else than was meant", f"aesp-proxy policy lint {where}",
        )  # fmt: skip
    return _setup("policy", Level.OK, found, "it loads")


def _aggregator(settings: Settings, now: datetime) -> Finding:
    directory = settings.forward_dir
    if settings.forward.dir is None and not directory.is_dir():
        return _setup("aggregator", Level.OK, "not enrolled", "the record stays on this machine")
    try:
        destination = load_destination(directory, now=now)
    except ConfigError as error:
        return _setup(
            "aggregator", Level.MISSING, str(error), "`run` cannot ship its record",
            error.remedy or "aesp-proxy aggregator enroll",
        )  # fmt: skip
    failed = [
        f"{address}: {why}"
        for address in destination.addresses
        if (why := _unreachable(destination, address))
    ]
    where = ", ".join(map(str, destination.addresses))
    if not failed:
        return _setup("aggregator", Level.OK, where, "it answers, and is who it should be")
    others = len(failed) < len(destination.addresses)
    waits = "batches wait in the spool; when it is full nothing passes"
    return _setup(
        "aggregator", Level.WEAKER, "; ".join(failed),
        "another takes its place" if others else waits,
        "see that it runs and can be reached",
    )  # fmt: skip


def _unreachable(destination: Destination, address: Address) -> str:
    """Say why an aggregator cannot be reached; empty when it can."""
    try:
        with (
            socket.create_connection((address.host, address.port), _CONNECT_S_MAX) as sock,
            destination.tls.wrap_socket(sock, server_hostname=address.host),
        ):
            return ""
    except OSError as error:
        return str(error) or type(error).__name__
