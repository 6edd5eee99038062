"""Fuzz target: a policy's text and an event's JSON give a value or an error of ours.

A policy that loads must build its guards and decide an event without a net catching. What
stands behind a line of three dashes is a level below: joined, it weakens nothing by the
second opinion, and its compiled form reads back as the same policy.
"""

from __future__ import annotations

import contextlib

from aesp_proxy.decide.guards import build_guards
from aesp_proxy.decide.policy.compile import LevelInput, compiled, join_levels
from aesp_proxy.decide.policy.compiled_json import from_json, to_json
from aesp_proxy.decide.policy.effective import policy_of
from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.decide.policy.prove import prove
from aesp_proxy.decide.policy.scope import Scope
from aesp_proxy.decide.policy.stated import read_stated
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


def _join(text: str, low: str) -> None:
    top, below = read_stated(text, "f"), read_stated(low, "f2")
    levels = (
        LevelInput(level="global", overridable=False, files=(top,)),
        LevelInput(level="team", overridable=True, files=(below,)),
    )
    steps = join_levels(levels)
    upper, lower = (policy_of(step.tree, step.file.where) for step in steps)
    doubts = prove(upper, lower).doubts
    if doubts:
        raise FindingError(str(doubts[0]))
    if steps[-1].weakenings:
        raise steps[-1].weakenings[0].error()
    made = compiled(
        steps, where="f", scope=Scope(), exceptions=(), exception_layers=(), time_s=0,
        stamp_time="19700101000000",
    )  # fmt: skip
    if from_json(to_json(made).decode(), "f").hash != made.policy.hash:
        raise FindingError("the compiled form is another policy")


def fuzz_one(data: bytes) -> None:
    """Run one input; anything but a value or an error of ours is a finding."""
    text, _, low = data.decode("utf-8", "surrogateescape").partition("\n---\n")
    try:
        policy = load_policy(text, "f")
        if low:
            _join(text, low)
    except ConfigError as error:
        if not str(error).startswith("f") or "\n" in str(error):
            raise FindingError(str(error)) from error
    else:
        for guard in build_guards(policy, None):
            for event in _EVENTS:
                guard.check(event)
    with contextlib.suppress(InputError):
        event_of(announcement(read_json(data), time_ns=0))
