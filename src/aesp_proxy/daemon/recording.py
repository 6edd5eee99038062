"""How the processes of this host keep their journals: the settings ``audit.*``, in its words."""

from __future__ import annotations

from aesp_proxy.daemon.config import Audit
from aesp_proxy.record.journal import JournalOptions, Mode
from aesp_proxy.record.losses import Losable


def journal_options(audit: Audit) -> JournalOptions:
    """Give the options of a journal that the operator's settings make."""
    return JournalOptions(
        mode=Mode(audit.mode),
        sync_ms=audit.sync_ms,
        spool_bytes_max=audit.spool_bytes_max,
        may_lose=frozenset(map(Losable, audit.losable_words)),
    )
