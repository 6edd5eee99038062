"""Vet a stage for a person: every change decided, recorded, and shown in a line."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from aesp_proxy.cli.output import line
from aesp_proxy.daemon.process import sealer_arguments, sealer_process
from aesp_proxy.daemon.recording import journal_options
from aesp_proxy.daemon.staging import Vetted, Vetting
from aesp_proxy.errors import UnavailableError
from aesp_proxy.model.principal import Principal
from aesp_proxy.record.journal import Journal

if TYPE_CHECKING:
    from aesp_proxy.daemon.config import Settings
    from aesp_proxy.decide.secrets.exact import ExactIndex
    from aesp_proxy.decide.snapshot import Snapshot
    from aesp_proxy.intercept.stage.stage import Stage

_SIGNS: Final = {
    "create": "+", "mkdir": "+", "write": "~", "mode": "~", "delete": "-", "special": "!",
}  # fmt: skip


def vetted(
    settings: Settings, stage: Stage, snapshot: Snapshot, exact: ExactIndex | None = None
) -> list[Vetted]:
    """Decide and record every change of a stage, and have the record sealed.

    ``exact`` are registered values, which no record has. RecordError when it cannot be
    recorded, UnavailableError when it cannot be read: nothing may be published then.
    """
    agent = settings.agent
    principal = Principal(
        principal_id=agent.principal_id,
        agent_id=agent.id,
        agent_type=agent.type,
        session_id=stage.session_id,
        tenant_id=agent.tenant_id,
    )
    options = journal_options(settings.audit)
    with Journal.open(settings.state_dir, options=options) as journal:
        vetting = Vetting(
            snapshot=snapshot,
            journal=journal,
            principal=principal,
            now_ns=time.time_ns,
            content_bytes_max=settings.files.content_bytes_max,
            exact=exact,
        )
        try:
            changes = list(vetting.vet(stage))
        except OSError as error:  # a path longer than the system takes, a disk that fails
            raise UnavailableError(
                f"not all that was written can be read: {error.strerror}",
                where=f"stage {stage.id}",
            ) from error
    if changes:
        _seal(settings, stage)
    return changes


def _seal(settings: Settings, stage: Stage) -> None:
    """Run the sealer until all is sealed; what is not, the next start seals."""
    log = settings.state_dir / "log" / f"stage-{stage.id}.log"
    sealer = sealer_process(settings, log=log, arguments=sealer_arguments(settings))
    sealer.start()
    sealer.close_stdin()
    sealer.collect()
    if sealer.exit_code == 0:
        log.unlink(missing_ok=True)
    else:
        line(f"aesp-proxy: the record is written and not sealed: {sealer.last_words()}")


def refusals(changes: Sequence[Vetted]) -> int:
    """Count what may not be published."""
    return sum(not each.decision.verdict.passes for each in changes)


def show(changes: Sequence[Vetted], *, shown_max: int) -> None:
    """Write a line a change, the refused ones first, and what was left out."""
    ordered = sorted(changes, key=lambda each: each.decision.verdict.passes)
    for each in ordered[:shown_max]:
        sign = _SIGNS[each.change.kind]
        slash = "/" if each.change.is_directory else ""
        decision = each.decision
        why = "" if decision.verdict.passes else f"  refused: {decision.reason}: {decision.message}"
        line(f"  {sign} {each.change.name}{slash}{why}")
    if len(ordered) > shown_max:
        line(f"  and {len(ordered) - shown_max} more")
