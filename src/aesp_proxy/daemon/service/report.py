"""What a service says of itself: the object that ``aesp-proxy status`` shows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime

from aesp_proxy import __version__
from aesp_proxy.daemon.service.capture_slot import CaptureSlot
from aesp_proxy.daemon.service.files_slot import FilesSlot
from aesp_proxy.daemon.service.plan import ServicePlan
from aesp_proxy.daemon.service.policy import PolicyState
from aesp_proxy.daemon.service.sealer_slot import SealerSlot
from aesp_proxy.daemon.service.worker_slot import WorkerSlot
from aesp_proxy.intercept.file_port import GUARANTEES
from aesp_proxy.record.state import audit_paths, journal_bytes, read_forward_status, read_status


def report(
    *,
    plan: ServicePlan,
    policy: PolicyState,
    slots: Sequence[WorkerSlot],
    sealer: SealerSlot,
    capture: CaptureSlot,
    files: FilesSlot,
    port: int,
    started_ns: int,
) -> dict[str, object]:
    """Return it; times are RFC 3339 in UTC."""
    components = _components(slots, capture, files)
    record = _record(plan, sealer)
    is_whole = all(components.values())
    return {
        "version": __version__,
        "pid": os.getpid(),
        "since": _time(started_ns),
        "state": "running" if is_whole else "degraded",
        "listen": {"host": plan.settings.listen.host, "port": port},
        "policy": _policy(policy),
        "last_reload": (
            {"at": _time(policy.last.at_ns), "error": policy.last.error}
            if policy.last.at_ns
            else None
        ),
        "capture": _capture(plan, capture),
        "files": _files(plan, files),
        "workers": [_worker(slot) for slot in slots],
        "secrets": {"registered": len(plan.registry), "broken": dict(plan.registry.broken)},
        "record": record,
        "components": components | {"record": bool(sealer.pid) and not record["error"]},
        "forwarder": _forwarder(plan, sealer),
    }


def _components(
    slots: Sequence[WorkerSlot], capture: CaptureSlot, files: FilesSlot
) -> dict[str, bool]:
    """Say of each part that there is whether it does what it is for."""
    found = {"workers": all(slot.is_ready for slot in slots)}
    if capture.is_on:
        found["capture"] = capture.holds
    if files.is_on:
        found["files"] = files.holds
    return found


def _policy(policy: PolicyState) -> dict[str, object] | None:
    active = policy.active
    if active is None:
        return None
    return {
        "name": active.name,
        "hash": active.hash,
        "stamp": active.stamp,
        "serial": active.serial,
        "since": _time(active.since_ns),
        "files": [str(file) for file in policy.files],
    }


def _capture(plan: ServicePlan, capture: CaptureSlot) -> dict[str, object] | None:
    """Return what is known of the packet rules; None where nothing is captured."""
    if not capture.is_on:
        return None
    chosen, last = plan.settings.capture, capture.last
    return {
        "users": chosen.users,
        "groups": chosen.groups,
        "cgroups": chosen.cgroups,
        "rules": capture.by,
        "holds": None if capture.by == "elsewhere" else capture.holds,
        "port": chosen.port,
        "dns_port": chosen.dns_port,
        "pid": capture.pid,
        "repairs": last.repairs if last else 0,
        "last": {"event": last.event, "message": last.message} if last else None,
    }


def _files(plan: ServicePlan, files: FilesSlot) -> dict[str, object] | None:
    """Return what is known of the watch of files; None where nobody is watched."""
    if not files.is_on:
        return None
    chosen, last = plan.settings.files.watch, files.last
    return {
        "users": chosen.users,
        "groups": chosen.groups,
        "cgroups": chosen.cgroups,
        "trees": chosen.trees,
        "by": files.by,
        "holds": files.holds,
        "guarantee": GUARANTEES["fanotify"],
        "pid": files.pid,
        "listener_pid": files.listener_pid,
        "restarts": files.restarts.total,
        "serial": files.serial,
        "counts": files.counts,
        "figures": files.figures,
        "last": {"event": last.event, "message": last.message} if last else None,
    }


def _worker(slot: WorkerSlot) -> dict[str, object]:
    counts = slot.counts
    return {
        "number": slot.number,
        "pid": slot.pid,
        "ready": slot.is_ready,
        "restarts": slot.restarts.total,
        "epoch": slot.epoch,
        "serial": slot.serving.serial if slot.serving else 0,
        "connections": counts.connections if counts else None,
        "allowed": counts.allowed if counts else None,
        "refused": counts.refused if counts else None,
        "figures": dict(counts.figures) if counts else {},
    }


def _record(plan: ServicePlan, sealer: SealerSlot) -> dict[str, object]:
    said, at_s = read_status(audit_paths(plan.settings.state_dir))
    return {
        "sealer_pid": sealer.pid,
        "sealer_restarts": sealer.restarts.total,
        "batches": said.get("batch_no", 0),
        "spool_bytes": said.get("spool_bytes", 0),
        "error": said.get("error", ""),
        "said_at_s": at_s,
        "journal_bytes": journal_bytes(audit_paths(plan.settings.state_dir)),
    }


def _forwarder(plan: ServicePlan, sealer: SealerSlot) -> dict[str, object]:
    said = read_forward_status(audit_paths(plan.settings.state_dir)) if sealer.forwards else {}
    log = said.get("log")
    return {
        "on": sealer.forwards,
        "dir": str(plan.settings.forward_dir),
        "covered": said.get("covered"),
        "waiting": said.get("waiting"),
        "error": said.get("error", ""),
        "log": log if isinstance(log, dict) and log.get("at_s") else None,
    }


def _time(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="milliseconds")
