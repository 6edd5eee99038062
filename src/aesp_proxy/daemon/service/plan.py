"""What a service is made of, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from aesp_proxy.daemon.config import Settings
from aesp_proxy.daemon.secret_registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePlan:
    """Settings and bounds of a service; seconds as the names say.

    ``notice`` takes one line for the operator's log. ``registry`` holds the secret values
    that may not leave.
    """

    settings: Settings
    session_id: str
    log: Path
    notice: Callable[[str], None]
    registry: Registry
    start_s_max: float = 60.0
    drain_s_max: float = 10.0
    seal_s_max: float = 40.0
    stop_s_max: float = 2.0
    reload_s_max: float = 60.0
    hung_s_max: float = 60.0
    beat_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceEnd:
    """How a service ended: exit code 0 when told to, 3 configuration, 4 runtime."""

    exit_code: int
    message: str = ""


def share_of(settings: Settings, workers: int) -> Settings:
    """Return the settings of one of several workers: what bounds all is divided, rounded up."""
    if workers == 1:
        return settings
    limits, names, budget = settings.limits, settings.resolver, settings.budget

    def part(value: int) -> int:
        return -(-value // workers)

    return replace(
        settings,
        limits=replace(
            limits,
            connections_max=part(limits.connections_max),
            agent_connections_max=part(limits.agent_connections_max),
        ),
        resolver=replace(
            names,
            names_per_minute_max=part(names.names_per_minute_max),
            names_per_hour_max=part(names.names_per_hour_max),
            queries_per_s_max=part(names.queries_per_s_max),
        ),
        budget=replace(
            budget,
            requests_per_minute_max=part(budget.requests_per_minute_max),
            requests_max=part(budget.requests_max),
            bytes_out_max=part(budget.bytes_out_max),
        ),
    )
