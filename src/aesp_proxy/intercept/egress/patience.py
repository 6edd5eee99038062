"""How long a conversation waits for the others: a head, a handshake, anything at all.

Slow bytes do not help against the first two: their clocks run from the first byte to the last.
Whoever waits in vain is told so, as far as the protocol has words for it, and the record says
what was waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mitmproxy.proxy import events

if TYPE_CHECKING:
    from mitmproxy.connection import Server

    from aesp_proxy.intercept.egress.conversation import Conversation


class Silence(events.Event):
    """Nobody has said anything for the longest time allowed; the conversation ends after this."""

    def __init__(self, silent_s: float) -> None:
        self._silent_s = silent_s

    def __str__(self) -> str:
        return f"the upstream said nothing for {self._silent_s:g} s"


def expire(conversation: Conversation, now: float, *, idle_s_max: float, head_s_max: float) -> None:
    """End it when a head or handshake is incomplete, or all silent, for too long (loop time)."""
    since = conversation.head_since
    if since is not None and now - since > head_s_max:
        text = f"no complete head or TLS handshake within {head_s_max:g} s"
        conversation.gate.limited(conversation.principal, text, "")
        conversation.abort()
    elif now - conversation.active_at > idle_s_max:
        conversation.happen(Silence(idle_s_max))
        conversation.close()


def expect_handshake(conversation: Conversation, server: Server, within_s: float) -> None:
    """Cut an upstream connection that has not agreed on TLS after ``within_s`` seconds."""

    def judge() -> None:
        if not server.tls_established:
            text = f"no TLS handshake within {within_s:g} s"
            conversation.cut(server, text)

    if server.tls:
        conversation.at(within_s, judge)
