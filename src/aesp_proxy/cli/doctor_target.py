"""What is attacked: this machine's settings and policy, with every way out led to canaries.

The policy in force is taken as it is, in a compiled copy; hosts that it allows lead to a
canary by static addresses, and so do those that it should refuse, so that what slips
through stays on this machine. State, keys and record of the attack are its own.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aesp_proxy.daemon.config import Settings
from aesp_proxy.daemon.pack_files import built_in_dir
from aesp_proxy.daemon.policy_compile import compile_file, version_time
from aesp_proxy.daemon.policy_files import load_snapshot, read_policy
from aesp_proxy.decide.engine import decide
from aesp_proxy.decide.policy.compiled_json import is_compiled, to_json
from aesp_proxy.decide.policy.policy import Policy
from aesp_proxy.decide.snapshot import Snapshot
from aesp_proxy.errors import InputError
from aesp_proxy.launch.attack.canary import HERE, Canaries
from aesp_proxy.model.event import EgressConnect
from aesp_proxy.model.host import parse_host
from aesp_proxy.model.principal import Principal

DENIED: Final = "nowhere.aesp-doctor.test"
_ALLOWED: Final = "allowed.aesp-doctor.test"
_METADATA: Final = ("169.254.169.254", "fd00:ec2::254", "metadata.google.internal")
_PORTS: Final = (443, 80)
_KEPT_OF_UPSTREAM: Final = frozenset({"upstream.connect_timeout_s"})
_HOSTS_MAX: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """Two hosts that the policy lets through, and one that it does not; empty where none is."""

    allowed: str
    second: str
    denied: str


def write_policy(settings: Settings, path: Path) -> None:
    """Write a compiled copy of the policy in force; ConfigError if it does not load."""
    source = settings.policy or built_in_dir() / "baseline.yaml"
    if source.is_file() and is_compiled(text := source.read_text("utf-8", "replace")):
        path.write_text(text, "utf-8")
        return
    path.write_bytes(to_json(compile_file(source, time=version_time(None, os.environ, source))))


def hosts_of(settings: Settings) -> Hosts:
    """Find out by asking the policy; ConfigError if it does not load."""
    cache = settings.rule_cache_dir
    snapshot = load_snapshot(
        settings.policy,
        fingerprint_key=os.urandom(32),
        serial=1,
        cache_dir=cache if cache.is_dir() else None,
    )
    passing = []
    for name in _candidates(read_policy(settings.policy)):
        if all(_passes(snapshot, name, port) for port in _PORTS):
            passing.append(name)
        if len(passing) == 2:
            break
    allowed, second, *_ = [*passing, "", ""]
    denied = "" if _passes(snapshot, DENIED, 443) else DENIED
    return Hosts(allowed=allowed, second=second, denied=denied)


def _candidates(policy: Policy) -> Iterator[str]:
    yield _ALLOWED
    for rule in policy.egress.allow[:_HOSTS_MAX] if policy.egress else ():
        if rule.network is None:
            yield rule.text.partition(":")[0].replace("*", "aesp-doctor")


def _passes(snapshot: Snapshot, name: str, port: int) -> bool:
    try:
        host = parse_host(name)
    except InputError:
        return False
    if host.address is not None:
        return False
    event = EgressConnect(
        event_id="doctor",
        time_ns=time.time_ns(),
        principal=Principal(
            principal_id="doctor", agent_id="doctor", agent_type="doctor", session_id="doctor"
        ),
        host=host,
        port=port,
    )
    return decide(event, snapshot).verdict.passes


def write_config(settings: Settings, path: Path, changes: Mapping[str, object]) -> None:
    """Write these settings with ``changes`` to a file that ``run --config`` reads."""
    flat = {name: value for name, value in settings.to_worker().items() if _is_kept(name, value)}
    nested: dict[str, object] = {}
    for name, value in (flat | dict(changes)).items():
        group, _, leaf = name.rpartition(".")
        place = nested.setdefault(group, {}) if group else nested
        if isinstance(place, dict):
            # A table travels as pairs, and stands in a file as a map.
            place[leaf] = dict(value) if isinstance(value, list) else value
    # JSON is YAML.
    path.write_text(json.dumps(nested), "utf-8")


def _is_kept(name: str, value: object) -> bool:
    if name.startswith("upstream."):
        return name in _KEPT_OF_UPSTREAM
    # A budget that the attacks use up would stop the rest, and say nothing of the walls.
    return value is not None and not name.startswith(("forward.", "budget."))


def static_addresses(hosts: Hosts, canaries: Canaries) -> dict[str, str]:
    """Lead the allowed host and all that must be refused to canaries."""
    tls, plain = f"{HERE}:{canaries.tls_port}", f"{HERE}:{canaries.plain_port}"
    table: dict[str, str] = {}
    for name in (hosts.allowed, DENIED, *_METADATA):
        if name:
            shown = f"[{name}]" if ":" in name else name
            table |= {f"{shown}:443": tls, f"{shown}:80": plain}
    if hosts.allowed:
        others = (f"evil-{hosts.allowed}", f"{hosts.allowed}.{DENIED}")
        table |= {f"{name}:443": tls for name in others}
        table |= {f"{hosts.allowed}:{port}": plain for port in (8443, 22, 25)}
    return table
