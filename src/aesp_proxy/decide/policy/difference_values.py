"""Sections switched on or off, defaults, limits and settings that differ, with witnesses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from aesp_proxy.decide.policy.difference import Change, Direction, Pair
from aesp_proxy.decide.policy.difference_entries import entry_changes
from aesp_proxy.decide.policy.difference_rules import (
    grant_changes,
    places_of,
    rule_changes,
    secret_changes,
)
from aesp_proxy.decide.policy.policy import PatchSection, PathSection, Policy
from aesp_proxy.decide.policy.witness import Values, witness_for
from aesp_proxy.decide.policy.witness_event import Witness

_LINES_MAX: Final = 20_000
_NO_WITNESS: Final = "no event was found that it makes a difference to"
_EGRESS: Final = ("connect", "request")
_FILES: Final = ("file", "patch")
_SECTIONS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "egress": ("guards.egress_allowlist", _EGRESS),
    "paths": ("guards.forbidden_path", _FILES),
    "path_allow": ("guards.path_allowlist", _FILES),
    "tools": ("guards.mcp_tool", ("tool",)),
    "patch": ("guards.patch_integrity", ("patch",)),
}


def differences(before: Policy, after: Policy) -> tuple[Change, ...]:
    """Return what changes from one policy to another, in the order of a policy's keys.

    Empty where both mean the same. Raises ``ConfigError`` for a policy that cannot be
    compiled.
    """
    if before.hash == after.hash:
        return ()
    pair = Pair(before, after)
    return (
        *_texts(before, after),
        *section_changes(pair),
        *entry_changes(pair),
        *value_changes(pair),
        *secret_changes(pair),
        *rule_changes(pair),
        *grant_changes(pair),
        *_settings(before, after),
    )


def _texts(before: Policy, after: Policy) -> Iterator[Change]:
    for key, old, new in (
        ("version", before.version, after.version),
        ("name", before.name, after.name),
        ("description", before.description, after.description),
    ):
        if old != new:
            yield Change(key=key, what="changed", item=f"{old!a} -> {new!a}", source=after.where,
                         direction=Direction.TEXT, why="it decides nothing")  # fmt: skip


def section_changes(pair: Pair) -> Iterator[Change]:
    """Yield guards that were switched on or off."""
    places = places_of(pair.before, pair.after)
    for name, (key, kinds) in _SECTIONS.items():
        old, new = getattr(pair.before, name), getattr(pair.after, name)
        if (old is None) == (new is None):
            continue
        change = Change(key=key, what="added" if old is None else "removed",
                        item="on" if old is None else "off", source=(new or old).source,
                        direction=Direction.UNPROVED, why=_NO_WITNESS)  # fmt: skip
        yield from _searched(pair, change, kinds, {**places, **_patches(pair)})


def value_changes(pair: Pair) -> Iterator[Change]:
    """Yield defaults and limits that differ."""
    places = places_of(pair.before, pair.after)
    before, after = pair.before, pair.after
    if before.egress is not None and after.egress is not None:
        change = _value("guards.egress_allowlist.default_action",
                        before.egress.default_verdict.value, after.egress.default_verdict.value,
                        after.egress.source)  # fmt: skip
        if change is not None:
            yield from _searched(pair, change, _EGRESS, places)
    if before.tools is not None and after.tools is not None:
        yield from _tool_values(pair, places)
    if before.paths is not None and after.paths is not None:
        yield from _required(before.paths, after.paths)
    if before.patch is not None and after.patch is not None:
        yield from _patch_values(pair, before.patch, after.patch, places)


def _required(old: PathSection, new: PathSection) -> Iterator[Change]:
    if old.requires != new.requires:
        words = ("none", "enforce")
        yield Change(key="guards.forbidden_path.require", what="changed",
                     item=f"{words[old.requires]} -> {words[new.requires]}", source=new.source,
                     direction=Direction.STRICTER if new.requires else Direction.WEAKER,
                     why="whether anything runs where files cannot be guarded")  # fmt: skip


def _tool_values(pair: Pair, places: Values) -> Iterator[Change]:
    old, new = pair.before.tools, pair.after.tools
    if old is None or new is None:
        return
    change = _value("guards.mcp_tool.default_action", old.default_verdict.value,
                    new.default_verdict.value, new.source)  # fmt: skip
    if change is not None:
        yield from _searched(pair, change, ("tool",), places)
    change = _value("guards.mcp_tool.max_args_size", old.args_bytes_max, new.args_bytes_max,
                    new.source)  # fmt: skip
    if change is not None:
        sizes = [size + 1 for size in (old.args_bytes_max, new.args_bytes_max) if size is not None]
        yield from _searched(pair, change, ("tool",), {**places, "request.size": sizes})


def _patch_values(
    pair: Pair, old: PatchSection, new: PatchSection, places: Values
) -> Iterator[Change]:
    for key, was, now in (
        ("max_additions", old.additions_max, new.additions_max),
        ("max_deletions", old.deletions_max, new.deletions_max),
        ("require_balance", old.require_balance, new.require_balance),
        ("max_imbalance_ratio", old.imbalance_ratio_max, new.imbalance_ratio_max),
    ):
        change = _value(f"guards.patch_integrity.{key}", was, now, new.source)
        if change is not None:
            yield from _searched(pair, change, ("patch",), {**places, **_patches(pair)})


def _patches(pair: Pair) -> Values:
    """Return patches around the limits of both policies."""
    shapes = [(1, 1)]
    for section in (pair.before.patch, pair.after.patch):
        if section is None:
            continue
        shapes += [(section.additions_max + 1, section.additions_max + 1),
                   (section.additions_max + 1, 1), (1, section.deletions_max + 1),
                   (int(section.imbalance_ratio_max) + 1, 1), (2, 0),
                   (section.additions_max + 1, section.deletions_max)]  # fmt: skip
    return {"patch": [_patch(*shape) for shape in shapes if max(shape) <= _LINES_MAX]}


def _patch(additions: int, deletions: int) -> str:
    head = f"--- a/w\n+++ b/w\n@@ -1,{deletions} +1,{additions} @@\n"
    return head + "-w\n" * deletions + "+v\n" * additions


def _value(key: str, old: object, new: object, source: str) -> Change | None:
    if old == new:
        return None
    return Change(key=key, what="changed", item=f"{_shown(old)} -> {_shown(new)}", source=source,
                  direction=Direction.UNPROVED, why=_NO_WITNESS)  # fmt: skip


def _searched(
    pair: Pair, change: Change, kinds: tuple[str, ...], values: Values
) -> Iterator[Change]:
    facts = frozenset(values) | pair.facts

    def search(direction: Direction | None) -> Witness | None:
        differs = pair.differs(facts, direction=direction)
        return witness_for(kinds=kinds, demands=(differs,), values=values, beside=pair.terms)

    yield from pair.searched(change, search)


def _settings(before: Policy, after: Policy) -> Iterator[Change]:
    for key, old, new in (
        ("fail_fast", before.settings.fail_fast, after.settings.fail_fast),
        ("verbose_logging", before.settings.verbose_logging, after.settings.verbose_logging),
        ("session_timeout_secs", before.settings.session_timeout_s,
         after.settings.session_timeout_s),
    ):  # fmt: skip
        if old != new:
            why = "who is told of a refusal may differ, no verdict does"
            yield Change(key=f"settings.{key}", what="changed",
                         item=f"{_shown(old)} -> {_shown(new)}", source=after.where,
                         direction=Direction.OTHER,
                         why=why if key == "fail_fast" else "no verdict depends on it")  # fmt: skip


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "none" if value is None else str(value)
