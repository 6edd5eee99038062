"""The lists of tools: rules that others cover, that are blocked, or that allow every tool."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from aesp_proxy.decide.policy.cover_names import tool_covers, tools_of
from aesp_proxy.decide.policy.lint.checks import told
from aesp_proxy.decide.policy.lint.finding import LintFinding, Related
from aesp_proxy.decide.policy.lint.hosts import default_action
from aesp_proxy.decide.policy.lint.subject import Subject
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.decide.policy.wild import covers_word

_PAIRS_MAX: Final = 1_000_000
_EVERYTHING: Final = frozenset({"*", "*/*"})


def look_at_tools(subject: Subject) -> Iterator[LintFinding]:
    """Yield what is wrong with ``mcp_tool``."""
    section = subject.policy.tools
    if section is None:
        return
    yield from default_action(subject, "mcp_tool", section.default_verdict, "tool")
    for item in section.allow:
        where = subject.at(item.source, item.value)
        if item.value in _EVERYTHING:
            yield told("tool-too-broad", f"{item.value} allows every tool", where)
    yield from _dead(subject, "allow-blocked", section.allow, section.block, "allowed")
    yield from _dead(
        subject, "confirmation-dead", section.require_confirmation, section.block, "to be confirmed"
    )
    blocked = frozenset(item for item in section.allow if _blocker(item, section.block) is not None)
    allow = [item for item in section.allow if item not in blocked]
    yield from _redundant(subject, "allow-redundant", allow, refuses=False)
    yield from _redundant(subject, "block-redundant", section.block, refuses=True)


def call_of(rule: str) -> dict[str, object]:
    """Return the facts of a call of a tool that a rule names."""
    server, name = next(tools_of(rule))
    tool = {"server": server, "name": name} if server else {"name": name}
    return {"request": {"action": "tool.call"}, "tool": tool}


def covers_tool(outer: str, inner: str, *, refuses: bool) -> bool:
    """Tell whether a rule names every tool that another names.

    ``refuses`` tells that the outer one is of a list that refuses, which is without case,
    and its ``*`` crosses the slash. Beyond ASCII, case is left alone: equal texts only.
    """
    if not refuses or outer == inner:
        return tool_covers(outer, inner)
    return outer.isascii() and inner.isascii() and covers_word(outer.lower(), inner.lower())


def _blocker(item: Sourced[str], block: Sequence[Sourced[str]]) -> Sourced[str] | None:
    return next((each for each in block if covers_tool(each.value, item.value, refuses=True)), None)


def _dead(
    subject: Subject,
    check: str,
    items: Sequence[Sourced[str]],
    block: Sequence[Sourced[str]],
    what: str,
) -> Iterator[LintFinding]:
    if len(items) * len(block) > _PAIRS_MAX:
        return
    for item in items:
        other = _blocker(item, block)
        if other is not None:
            yield told(check, f"{item.value} is {what}, and {other.value} blocks it",
                       subject.at(item.source, item.value),
                       Related(source=other.source, text=f"blocked by {other.value}"),
                       witness=call_of(item.value))  # fmt: skip


def _redundant(
    subject: Subject, check: str, items: Sequence[Sourced[str]], *, refuses: bool
) -> Iterator[LintFinding]:
    if len(items) ** 2 > _PAIRS_MAX:
        return
    verb = "blocked" if refuses else "allowed"
    for number, item in enumerate(items):
        for at, other in enumerate(items):
            if at == number or not covers_tool(other.value, item.value, refuses=refuses):
                continue
            if at < number or not covers_tool(item.value, other.value, refuses=refuses):
                related = Related(source=other.source, text=f"covered by {other.value}")
                message = f"{item.value} is {verb} by {other.value} already"
                yield told(check, message, subject.at(item.source, item.value), related)
                break
