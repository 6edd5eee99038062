"""Tools: block, size, confirmation, allow, default, in this order."""

from __future__ import annotations

import pytest

from aesp_proxy.decide.engine import decide
from aesp_proxy.model.decision import Reason, Verdict

POLICY = """\
mcp_tool:
  allow: [read_file, "files/*", delete_file, shell, big]
  block: [shell, "*rm*"]
  require_confirmation: ["delete_*"]
  max_args_size: 10
"""


@pytest.mark.parametrize(
    ("server", "name", "arguments", "verdict", "reason"),
    [
        ("", "read_file", b"{}", Verdict.ALLOW, Reason.ALLOWED),
        ("any", "read_file", b"{}", Verdict.ALLOW, Reason.ALLOWED),
        ("files", "stat", b"{}", Verdict.ALLOW, Reason.ALLOWED),
        ("other", "stat", b"{}", Verdict.DENY, Reason.TOOL_NOT_ALLOWED),
        ("evil", "files/stat", b"{}", Verdict.DENY, Reason.TOOL_NOT_ALLOWED),
        ("", "shell", b"{}", Verdict.DENY, Reason.TOOL_BLOCKED),
        ("x", "SHELL", b"{}", Verdict.DENY, Reason.TOOL_BLOCKED),
        ("files", "alarm", b"{}", Verdict.DENY, Reason.TOOL_BLOCKED),
        ("", "delete_file", b"{}", Verdict.ASK, Reason.TOOL_NEEDS_CONFIRMATION),
        ("", "read_file", b"x" * 10, Verdict.ALLOW, Reason.ALLOWED),
        ("", "read_file", b"x" * 11, Verdict.DENY, Reason.TOOL_ARGUMENTS_TOO_LARGE),
        ("", "delete_file", b"x" * 11, Verdict.DENY, Reason.TOOL_ARGUMENTS_TOO_LARGE),
        ("", "", b"{}", Verdict.DENY, Reason.TOOL_NOT_ALLOWED),
        ("files", "", b"{}", Verdict.DENY, Reason.TOOL_NOT_ALLOWED),
    ],
)
def test_a_tool_call_is_decided(
    server, name, arguments, verdict, reason, events, snapshot_of
) -> None:
    decision = decide(events.tool(name, server, arguments), snapshot_of(POLICY))
    assert (decision.verdict, decision.reason) == (verdict, reason)
    assert decision.guard == "mcp_tool"


def test_what_needs_confirmation_does_not_pass_and_says_why(events, snapshot_of) -> None:
    decision = decide(events.tool("delete_file"), snapshot_of(POLICY))
    assert not decision.verdict.passes
    assert "there is nobody to ask" in decision.message


@pytest.mark.parametrize(
    ("section", "verdict"),
    [
        ("", Verdict.DENY),
        ("mcp_tool: {}", Verdict.DENY),
        ("mcp_tool: {enabled: false}", Verdict.DENY),
        ("mcp_tool: {allow: []}", Verdict.DENY),
        ("mcp_tool: {default_action: block}", Verdict.DENY),
        ("mcp_tool: {default_action: log}", Verdict.AUDIT),
        ("mcp_tool: {default_action: allow}", Verdict.ALLOW),
    ],
)
def test_a_tool_on_no_list_has_the_default(section, verdict, events, snapshot_of) -> None:
    assert decide(events.tool("anything"), snapshot_of(section)).verdict is verdict
