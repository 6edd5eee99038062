"""What a worker does for its supervisor while it works: swap its policy, count, end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

from aesp_proxy.daemon.control import (
    Counts,
    Serving,
    counts_frame,
    denials_frame,
    failed_frame,
    registered_frame,
    serving_frame,
)
from aesp_proxy.daemon.pipeline import Pipeline
from aesp_proxy.daemon.policy_source import PolicySource
from aesp_proxy.daemon.secret_registry import entries_of
from aesp_proxy.decide.secrets.registered import Entry
from aesp_proxy.errors import AespError, InputError
from aesp_proxy.model.record import Outcome, Record, RecordKind

_EXIT_RUNTIME = 4
# Somebody took the rules away, or nobody looks after them.
_SEVERITIES = {"repaired": "error", "lost": "error", "died": "error", "hung": "error"}
_NAMES_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlLoop:
    """Answers the supervisor's frames until it says stop, or is dead."""

    control: socket.socket
    pipeline: Pipeline
    source: PolicySource
    connections: Callable[[], int]

    async def run(self, frames: AsyncIterator[dict[str, object]]) -> float:
        """Return the seconds of grace at the end, 0 when the supervisor is dead.

        Raises AespError, told before, when a policy that was checked cannot be taken.
        """
        async for frame in frames:
            match frame.get("type"):
                case "stop":
                    grace_s = frame.get("grace_s")
                    return float(grace_s) if isinstance(grace_s, int | float) else 0.0
                case "reload":
                    await self._reload(frame)
                case "refused":
                    self._record(str(frame.get("message", "")), Outcome.FAILURE)
                case "rules":
                    self._record_rules(frame)
                case "register" | "forget":
                    await self._register(frame)
                case "count":
                    await self._send(counts_frame(self._counts()))
                case "why":
                    await self._send(denials_frame(self.pipeline.denials))
                case other:
                    msg = f"the supervisor sent a frame of type {other!r}"
                    raise InputError(msg)
        return 0.0

    async def serving(self) -> None:
        """Tell the supervisor which policy decides."""
        snapshot = self.pipeline.snapshot
        serving = Serving(
            serial=snapshot.serial,
            name=snapshot.policy_name,
            hash=snapshot.policy_hash,
            stamp=snapshot.policy_stamp,
        )
        await self._send(serving_frame(serving))

    async def _reload(self, frame: dict[str, object]) -> None:
        """Swap the policy whole: made in a thread, taken by one assignment."""
        try:
            snapshot = await asyncio.to_thread(self.source.load, frame)
        except AespError as error:
            # It was checked: this worker is not right, and a new one is to take its place.
            await self._send(failed_frame(exit_code=_EXIT_RUNTIME, message=str(error)))
            raise
        self.pipeline.snapshot = snapshot
        self._record(f"decides by {snapshot.policy_name!a} from now on", Outcome.SUCCESS)
        await self.serving()

    async def _register(self, frame: dict[str, object]) -> None:
        """Look for other values from the next byte on."""
        exact = self.source.exact
        if exact is None:
            raise InputError("the supervisor registers values without a key")
        if frame.get("type") == "forget":
            name = str(frame.get("name", ""))
            exact.forget(name)
            self._record_secrets("forgotten", [name])
        else:
            entries = entries_of(frame)
            exact.add(entries)
            self.record_registered(entries)
        await self._send(registered_frame(len(exact)))

    def record_registered(self, entries: Sequence[Entry]) -> None:
        """Put into the record, by name, what is looked for from now on."""
        if entries:
            self._record_secrets("registered", [entry.name for entry in entries])

    def _record_secrets(self, what: str, names: Sequence[str]) -> None:
        names = list(dict.fromkeys(names))
        more = f" and {len(names) - _NAMES_MAX} more" if len(names) > _NAMES_MAX else ""
        record = Record(
            kind=RecordKind.LIFECYCLE,
            time_ns=self.pipeline.now_ns(),
            event_type=f"secrets.{what}",
            action=f"secrets.{what}",
            outcome=Outcome.SUCCESS,
            verdict="",
            reason="",
            guard="",
            severity="info",
            resource="",
            message=f"{what}: {', '.join(names[:_NAMES_MAX])}{more}",
        )
        self.pipeline.record(record)

    def _record(self, message: str, outcome: Outcome) -> None:
        """Put into the record what became of a reload; a decision names its policy anyway."""
        snapshot = self.pipeline.snapshot
        taken = outcome is Outcome.SUCCESS
        record = self._happening(
            "policy.reloaded" if taken else "policy.reload_refused",
            message,
            outcome,
            severity="info" if taken else "error",
        )
        self.pipeline.record(
            replace(
                record,
                action="policy.reload",
                resource=snapshot.policy_hash,
                metadata=(("serial", str(snapshot.serial)),),
            )
        )

    def _record_rules(self, frame: dict[str, object]) -> None:
        """Put into the record what became of rules or of a watch; their loss is critical."""
        event, holds = str(frame.get("event", "")), frame.get("holds") is True
        outcome = Outcome.SUCCESS if holds else Outcome.FAILURE
        severity = "critical" if not holds else _SEVERITIES.get(event, "info")
        message = str(frame.get("message", ""))
        subject = "files" if frame.get("subject") == "files" else "capture"
        record = self._happening(f"{subject}.{event}", message, outcome, severity=severity)
        action = "files.watch" if subject == "files" else "capture.rules"
        self.pipeline.record(replace(record, action=action))

    def _happening(
        self, event_type: str, message: str, outcome: Outcome, *, severity: str
    ) -> Record:
        return Record(
            kind=RecordKind.LIFECYCLE,
            time_ns=self.pipeline.now_ns(),
            event_type=event_type,
            action="",
            outcome=outcome,
            verdict="",
            reason="",
            guard="",
            severity=severity,
            message=message,
            resource="",
        )

    def _counts(self) -> Counts:
        session = self.pipeline.session
        return Counts(
            connections=self.connections(),
            allowed=session.egress_count,
            refused=session.denials,
            figures=self.pipeline.tally.figures(),
        )

    async def _send(self, frame: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.control, frame)
