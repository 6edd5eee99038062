"""Shows a signed checkpoint to everyone, with what witnesses say of it, or says why not.

Rules: without the quorum that the operator's policy asks for, the last checkpoint stays; it
is tried again until the quorum is there. What is published verifies: it is read back by the
same policy that an auditor would use.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog

from aesp_proxy import keys
from aesp_proxy.aggregator.log.status import LogStatus
from aesp_proxy.errors import ConfigError
from aesp_proxy.record.tlog.checkpoint import parse_checkpoint
from aesp_proxy.record.tlog.note import Note
from aesp_proxy.record.tlog.policy import NONE, LogPolicy, parse_policy
from aesp_proxy.record.tlog.tree import TreeReader

if TYPE_CHECKING:
    from aesp_proxy.aggregator.identity import DataDir
    from aesp_proxy.aggregator.log.cosign import Cosigners
    from aesp_proxy.aggregator.log.store import LogStore

FRESH_S: Final = 60.0
AGAIN_S: Final = 5.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Publisher:
    """Publishes the checkpoints of one log."""

    store: LogStore
    cosigners: Cosigners | None = None
    """None where the policy names no witness."""
    _said: dict[str, str] = field(default_factory=dict)

    def publish(self, note: Note) -> LogStatus:
        """Publish a signed checkpoint, with cosignatures; what became of it."""
        checkpoint = parse_checkpoint(note.text)
        published, witnesses = self.store.published(), self.cosigners
        alarm, whole, is_enough = "", note, True
        if witnesses is not None and checkpoint.size:
            tree = TreeReader(size=checkpoint.size, read=self.store.read)
            witnesses.ask(note, checkpoint, tree.consistency)
            alarm = self._complaints(witnesses)
            whole = witnesses.joined(note, published)
            is_enough = witnesses.is_quorum(whole)
        if is_enough and whole != published:
            self.store.publish(whole)
        elif not is_enough:
            alarm = alarm or "too few witnesses cosign: the last checkpoint stays"
        shown = whole if is_enough else published
        return LogStatus(
            size=checkpoint.size,
            published=parse_checkpoint(shown.text).size if shown else 0,
            alarm=alarm,
            witnesses=witnesses.standing() if witnesses else (),
        )

    def close(self) -> None:
        """Ask nobody any more."""
        if self.cosigners is not None:
            self.cosigners.close()

    def _complaints(self, witnesses: Cosigners) -> str:
        """Log what has changed about each witness; return the first that is an alarm."""
        alarm = ""
        for one in witnesses.all:
            name = one.witness.name
            if one.error != self._said.get(name, ""):
                say = log.critical if one.is_alarm else log.warning
                say("witness", witness=name, error=one.error or None, cosigned=one.size)
                self._said[name] = one.error
            if one.is_alarm:
                alarm = alarm or f"witness {name}: {one.error}"
        return alarm


def load_log_policy(data: DataDir) -> LogPolicy:
    """Read which witnesses to ask; nobody where there is no ``log.policy``. ConfigError."""
    if not data.log_policy.exists():
        return LogPolicy()
    where = str(data.log_policy)
    policy = parse_policy(keys.read_bounded(data.log_policy), where=where)
    for witness in policy.witnesses:
        if not witness.url.startswith(("https://", "http://")):
            raise ConfigError(f"gives no http(s) URL for witness {witness.name}", where=where)
    return policy


def open_publisher(data: DataDir, store: LogStore) -> Publisher:
    """Make the publisher of a data directory. ConfigError for a policy that is none."""
    policy = load_log_policy(data)
    if not policy.witnesses:
        if policy.quorum != NONE:
            raise ConfigError("has a quorum and no witnesses", where=str(data.log_policy))
        return Publisher(store)
    # Only who asks witnesses pays for the client at each start.
    from aesp_proxy.aggregator.log.cosign import Cosigners, witness_tls  # noqa: PLC0415

    return Publisher(store, Cosigners(policy, tls=witness_tls(data.witness_ca)))
