"""Fuzz target: a policy's text and an event's JSON give a value or an error of ours.

A policy that loads must build its guards and decide an event without a net catching.
"""

from __future__ import annotations

import contextlib

from aesp_proxy.decide.guards import build_guards
from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.errors import ConfigError, InputError
from aesp_proxy.model.event import Event, FileAccess, FileOperation, NetworkAccess, ToolCall
from aesp_proxy.model.host import parse_host
from aesp_proxy.model.principal import Principal
from aesp_proxy.normalize.announced import announcement, event_of
from aesp_proxy.normalize.json_text import read_json

_WHO = Principal(principal_id="", agent_id="", agent_type="", session_id="")
_EVENTS: tuple[Event, ...] = (
    NetworkAccess(
        event_id="e", time_ns=0, principal=_WHO, host=parse_host("a.b.example"), port=443
    ),
    NetworkAccess(event_id="e", time_ns=0, principal=_WHO, host=parse_host("::1"), port=22),
    FileAccess(
        event_id="e",
        time_ns=0,
        principal=_WHO,
        operation=FileOperation.OPEN,
        path="/a/\udcff/.env",
        resolved="/é",
    ),
    ToolCall(event_id="e", time_ns=0, principal=_WHO, server="s", name="t/\ud800", arguments=b""),
)


class FindingError(AssertionError):
    """A promise that did not hold."""


def fuzz_one(data: bytes) -> None:
    """Run one input; anything but a value or an error of ours is a finding."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        policy = load_policy(text, "f")
    except ConfigError as error:
        if not str(error).startswith("f") or "\n" in str(error):
            raise FindingError(str(error)) from error
    else:
        for guard in build_guards(policy, None):
            for event in _EVENTS:
                guard.check(event)
    with contextlib.suppress(InputError):
        event_of(announcement(read_json(data), time_ns=0))
