"""Who attempts: never taken from a header that the agent can forge."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The identity behind an event.

    ``principal_id`` is the person or service account; ``agent_id`` the agent
    that acts for it; ``agent_type`` what kind (for ``run``, the program's
    name). ``source_ip`` is the peer address as text, empty for none.
    """

    principal_id: str
    agent_id: str
    agent_type: str
    session_id: str
    tenant_id: str = ""
    source_ip: str = ""
