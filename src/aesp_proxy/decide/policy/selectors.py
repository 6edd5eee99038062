"""What a rule speaks of: entries of ``applies_to`` parsed, and the closed set of actions.

``egress:HOSTRULE``, ``file:GLOB``, ``tool:TOOLRULE`` or ``*``; ``egress:*``, ``file:**``
and ``tool:*`` are all of a kind. Entries of an ALLOW rule are matched as an allow list
matches, those of the other effects as a list that refuses does; that is the matcher's
business, the syntax is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from aesp_proxy.decide.policy.globs import check_path_glob
from aesp_proxy.decide.policy.hosts import HostRule, parse_host_rule
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.decide.policy.tools import check_tool_rule
from aesp_proxy.errors import ConfigError

_HTTP_ACTIONS: Final = tuple(
    f"http.{method}"
    for method in (
        "get", "head", "post", "put", "patch", "delete", "options", "connect", "trace",
    )
)  # fmt: skip
_FILE_ACTIONS: Final = tuple(
    f"file.{word}" for word in ("open", "write", "create", "delete", "rename", "exec")
)

ACTIONS: Final = (
    *_HTTP_ACTIONS,
    "tcp.connect",
    "dns.query",
    *_FILE_ACTIONS,
    "tool.call",
    "llm.call",
    "custom",
)
"""Every action a rule may name. ``http.*`` stands for any method, also one not listed."""

ANY_HTTP: Final = "http.*"
_GROUPS: Final = {ANY_HTTP: (*_HTTP_ACTIONS, ANY_HTTP), "file.*": _FILE_ACTIONS, "*": ACTIONS}
_SHOWN_CHARS_MAX: Final = 80


class SelectorKind(StrEnum):
    """The kinds of resource."""

    EGRESS = "egress"
    FILE = "file"
    TOOL = "tool"
    ANY = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """One entry, parsed. Of ``host``, ``glob`` and ``tool`` the one of the kind is set."""

    kind: SelectorKind
    text: Sourced[str]
    host: HostRule | None = None
    glob: Sourced[str] | None = None
    tool: Sourced[str] | None = None


def parse_selector(item: Sourced[str]) -> Selector:
    """Parse one entry of ``applies_to``; ``ConfigError`` with place and reason."""
    if item.value == "*":
        return Selector(kind=SelectorKind.ANY, text=item)
    kind, colon, rest = item.value.partition(":")
    inner = item.of(rest)
    match kind if colon else "":
        case SelectorKind.EGRESS:
            return Selector(kind=SelectorKind.EGRESS, text=item, host=parse_host_rule(inner))
        case SelectorKind.FILE:
            check_path_glob(inner)
            return Selector(kind=SelectorKind.FILE, text=item, glob=inner)
        case SelectorKind.TOOL:
            check_tool_rule(inner)
            return Selector(kind=SelectorKind.TOOL, text=item, tool=inner)
        case _:
            raise ConfigError(
                f"bad resource {item.value[:_SHOWN_CHARS_MAX]!a}",
                where=item.where,
                remedy="write egress:HOST, file:GLOB, tool:TOOL or *",
            )


def expand_actions(items: tuple[Sourced[str], ...]) -> frozenset[str]:
    """Return the actions that a rule names, groups written out; empty means every action.

    ``http.*`` stays in the result beside the methods it stands for: a method that has no
    word here is matched by it (:func:`names_action`). ``ConfigError`` for an unknown word.
    """
    found: set[str] = set()
    for item in items:
        if item.value in _GROUPS:
            found.update(_GROUPS[item.value])
        elif item.value in ACTIONS:
            found.add(item.value)
        else:
            raise ConfigError(
                f"unknown action {item.value[:_SHOWN_CHARS_MAX]!a}",
                where=item.where,
                remedy=f"known actions: {', '.join((*ACTIONS, ANY_HTTP, 'file.*'))}",
            )
    if "*" in {item.value for item in items}:
        found.add(ANY_HTTP)
    return frozenset(found)


def names_action(actions: frozenset[str], action: str) -> bool:
    """Tell whether expanded actions name one; an empty set names every action."""
    if not actions or action in actions:
        return True
    return ANY_HTTP in actions and action.startswith("http.")
