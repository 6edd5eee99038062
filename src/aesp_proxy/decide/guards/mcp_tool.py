"""Which tools may be called: block, then size, then confirmation, then allow, then default.

Until there is someone to ask, a tool that needs confirmation is refused and says so. A
call without a tool's name is refused (threat row 19).
"""

from __future__ import annotations

from dataclasses import dataclass

from aesp_proxy.decide.answer import Answer
from aesp_proxy.decide.policy.policy import ToolSection
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.decide.policy.tools import ToolIndex
from aesp_proxy.model.decision import Reason, Severity, Verdict
from aesp_proxy.model.event import Event, ToolCall

_SECTION = "guards.mcp_tool"
_SHOWN_CHARS_MAX = 120


@dataclass(frozen=True, slots=True)
class McpTool:
    """Built by :func:`mcp_tool`; answers for tool calls."""

    allow: ToolIndex
    block: ToolIndex
    require_confirmation: ToolIndex
    section: ToolSection
    name: str = "mcp_tool"
    grants: bool = True

    def check(self, event: Event) -> Answer | None:
        """Answer for calls of tools."""
        match event:
            case ToolCall():
                return self._answer(event)
            case _:
                return None

    def _answer(self, call: ToolCall) -> Answer:
        shown = _shown(call)
        if not call.name:
            return self._not_allowed("a tool without a name", implicit=False)
        besides = self._besides(call, shown)
        blocked = self.block.find(call.server, call.name)
        if blocked is not None:
            return _blocked(shown, blocked, besides)
        if besides is not None:
            return besides
        allowed = self.allow.find(call.server, call.name)
        if allowed is not None:
            return _pass(Verdict.ALLOW, f"allowed by {allowed.value}", allowed.source)
        verdict = self.section.default_verdict
        if verdict.passes:
            word = "allow" if verdict is Verdict.ALLOW else "log"
            return _pass(verdict, f"on no list; default_action is {word}", self.section.source)
        return self._not_allowed(shown, implicit=True)

    def _besides(self, call: ToolCall, shown: str) -> Answer | None:
        """Refuse what is refused of any tool, be it allowed: by size, or until confirmed."""
        size_max = self.section.args_bytes_max
        if size_max is not None and len(call.arguments) > size_max:
            return self._too_large(shown, len(call.arguments), size_max)
        ask = self.require_confirmation.find(call.server, call.name)
        return None if ask is None else _ask(shown, ask)

    def _not_allowed(self, shown: str, *, implicit: bool) -> Answer:
        file, _, line = self.section.allow_source.rpartition(":")
        return Answer(
            verdict=Verdict.DENY,
            reason=Reason.TOOL_NOT_ALLOWED,
            severity=Severity.WARNING,
            message=f"{shown} is on no allow list",
            source=self.section.source,
            remediation=(
                "Do not retry: use a tool that is allowed.",
                f"Ask the owner of {file} to add it under {_SECTION}.allow (line {line}).",
            ),
            implicit=implicit,
        )

    def _too_large(self, shown: str, size: int, size_max: int) -> Answer:
        return Answer(
            verdict=Verdict.DENY,
            reason=Reason.TOOL_ARGUMENTS_TOO_LARGE,
            severity=Severity.WARNING,
            message=f"the arguments of {shown} are {size} bytes; {size_max} are allowed",
            source=self.section.source,
            remediation=("Send less at once; the limit is guards.mcp_tool.max_args_size.",),
        )


def mcp_tool(section: ToolSection) -> McpTool:
    """Build the guard from its section of the policy."""
    return McpTool(
        allow=ToolIndex(section.allow, refuses=False),
        block=ToolIndex(section.block, refuses=True),
        require_confirmation=ToolIndex(section.require_confirmation, refuses=True),
        section=section,
    )


def _pass(verdict: Verdict, message: str, source: str) -> Answer:
    return Answer(
        verdict=verdict,
        reason=Reason.ALLOWED,
        severity=Severity.INFO,
        message=message,
        source=source,
    )


def _blocked(shown: str, rule: Sourced[str], besides: Answer | None) -> Answer:
    return Answer(
        verdict=Verdict.DENY,
        reason=Reason.TOOL_BLOCKED,
        severity=Severity.ERROR,
        message=f"{shown} is blocked by {rule.value}",
        source=rule.source,
        remediation=("Do not retry: this tool is blocked by policy.",),
        behind=besides,
    )


def _ask(shown: str, rule: Sourced[str]) -> Answer:
    return Answer(
        verdict=Verdict.ASK,
        reason=Reason.TOOL_NEEDS_CONFIRMATION,
        severity=Severity.WARNING,
        message=f"{shown} needs a person's confirmation, and there is nobody to ask yet",
        source=rule.source,
        remediation=(
            "Do not retry: this version cannot ask, so the call is refused.",
            "Do the step without this tool, or hand it to a person.",
        ),
    )


def _shown(call: ToolCall) -> str:
    full = f"{call.server}/{call.name}" if call.server else call.name
    cut = full if len(full) <= _SHOWN_CHARS_MAX else f"{full[:_SHOWN_CHARS_MAX]}..."
    return cut if cut.isprintable() else ascii(cut)
