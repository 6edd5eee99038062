"""Entries of lists added and removed: whether each changes anything, and on what event."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Final

from aesp_proxy.decide.policy.cover_hosts import covers
from aesp_proxy.decide.policy.cover_names import glob_covers, tool_covers
from aesp_proxy.decide.policy.difference import Change, Direction, Owed, Pair
from aesp_proxy.decide.policy.difference_rules import places_of
from aesp_proxy.decide.policy.hosts import HostRule
from aesp_proxy.decide.policy.policy import Policy
from aesp_proxy.decide.policy.regex_sample import regex_sample
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.decide.policy.witness import (
    Values,
    host_facts,
    path_facts,
    tool_facts,
    witness_for,
)
from aesp_proxy.decide.policy.witness_event import Facts, Witness, event_for
from aesp_proxy.errors import InputError

_PROBES_MAX: Final = 96
_PATHS_TRIED: Final = 16
_READS: Final = ("file.open",)
_WRITES: Final = ("file.write", "file.create")
_TOUCHES: Final = (*_READS, *_WRITES)

Entry = HostRule | Sourced[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryList:
    """One list of a policy: its entries, what an entry is about, when one says another."""

    key: str
    entries: Callable[[Policy], Sequence[Entry] | None]
    kinds: tuple[str, ...]
    values: Callable[[str, Entry], Values]
    covers: Callable[[Entry, Entry], bool]


def _host_values(_kind: str, entry: Entry) -> Values:
    return host_facts(entry) if isinstance(entry, HostRule) else {}


def _path_values(actions: tuple[str, ...]) -> Callable[[str, Entry], Values]:
    def values(kind: str, entry: Entry) -> Values:
        made = path_facts(text_of(entry))
        return made if kind == "patch" else {**made, "request.action": actions}

    return values


def _tool_values(_kind: str, entry: Entry) -> Values:
    return tool_facts(text_of(entry))


def _patch_values(_kind: str, entry: Entry) -> Values:
    sample = regex_sample(text_of(entry))
    lines = [] if sample is None else sample.split("\n")
    added = "".join(f"+{line}\n" for line in lines)
    return {"patch": [f"--- a/w\n+++ b/w\n@@ -1 +1,{len(lines)} @@\n-w\n{added}"]}


def _hosts_cover(outer: Entry, inner: Entry) -> bool:
    both = isinstance(outer, HostRule) and isinstance(inner, HostRule)
    return both and covers(outer, inner)  # type: ignore[arg-type]


def _blocks_cover(outer: Entry, inner: Entry) -> bool:
    both = isinstance(outer, HostRule) and isinstance(inner, HostRule)
    return both and covers(outer, inner, every_port=True)  # type: ignore[arg-type]


def _globs_cover(outer: Entry, inner: Entry) -> bool:
    return glob_covers(text_of(outer), text_of(inner))


def _tools_cover(outer: Entry, inner: Entry) -> bool:
    return tool_covers(text_of(outer), text_of(inner))


def _same(outer: Entry, inner: Entry) -> bool:
    return text_of(outer) == text_of(inner)


_EGRESS: Final = ("connect", "request")
LISTS: Final = (
    EntryList(key="guards.egress_allowlist.allow", kinds=_EGRESS, values=_host_values,
              entries=lambda p: None if p.egress is None else p.egress.allow,
              covers=_hosts_cover),
    EntryList(key="guards.egress_allowlist.block", kinds=_EGRESS, values=_host_values,
              entries=lambda p: None if p.egress is None else p.egress.block,
              covers=_blocks_cover),
    EntryList(key="guards.forbidden_path.patterns", kinds=("file", "patch"),
              values=_path_values(_TOUCHES),
              entries=lambda p: None if p.paths is None else p.paths.patterns,
              covers=_globs_cover),
    EntryList(key="guards.forbidden_path.exceptions", kinds=("file", "patch"),
              values=_path_values(_TOUCHES),
              entries=lambda p: None if p.paths is None else p.paths.exceptions,
              covers=_globs_cover),
    EntryList(key="guards.path_allowlist.file_access_allow", kinds=("file",),
              values=_path_values(_READS),
              entries=lambda p: None if p.path_allow is None else p.path_allow.access,
              covers=_globs_cover),
    EntryList(key="guards.path_allowlist.file_write_allow", kinds=("file",),
              values=_path_values(_WRITES),
              entries=lambda p: None if p.path_allow is None else p.path_allow.write,
              covers=_globs_cover),
    EntryList(key="guards.path_allowlist.patch_allow", kinds=("patch",),
              values=_path_values(()),
              entries=lambda p: None if p.path_allow is None else p.path_allow.patch,
              covers=_globs_cover),
    EntryList(key="guards.mcp_tool.allow", kinds=("tool",), values=_tool_values,
              entries=lambda p: None if p.tools is None else p.tools.allow,
              covers=_tools_cover),
    EntryList(key="guards.mcp_tool.block", kinds=("tool",), values=_tool_values,
              entries=lambda p: None if p.tools is None else p.tools.block,
              covers=_tools_cover),
    EntryList(key="guards.mcp_tool.require_confirmation", kinds=("tool",), values=_tool_values,
              entries=lambda p: None if p.tools is None else p.tools.require_confirmation,
              covers=_tools_cover),
    EntryList(key="guards.patch_integrity.forbidden_patterns", kinds=("patch",),
              values=_patch_values,
              entries=lambda p: None if p.patch is None else p.patch.forbidden_patterns,
              covers=_same),
)  # fmt: skip


def text_of(entry: Entry) -> str:
    """Return an entry as it is written."""
    return entry.text if isinstance(entry, HostRule) else entry.value


def entry_changes(pair: Pair) -> Iterator[Change]:
    """Yield the changes of all lists, entry by entry."""
    for each in LISTS:
        old, new = each.entries(pair.before) or (), each.entries(pair.after) or ()
        was, now = {text_of(entry) for entry in old}, {text_of(entry) for entry in new}
        for entry in _first_of(new):
            if text_of(entry) not in was:
                yield _changed(pair, each, entry, "added", old)
        for entry in _first_of(old):
            if text_of(entry) not in now:
                yield _changed(pair, each, entry, "removed", new)


def _first_of(entries: Iterable[Entry]) -> Iterable[Entry]:
    return {text_of(entry): entry for entry in entries}.values()


def _changed(
    pair: Pair, each: EntryList, entry: Entry, what: str, others: Sequence[Entry]
) -> Change:
    change = Change(key=each.key, what=what, item=text_of(entry), source=entry.source,
                    direction=Direction.UNPROVED)  # fmt: skip
    proved = pair.first_proved(
        change, islice(_probes(pair, each, entry), _PROBES_MAX), _owed(each, entry)
    )
    if proved is not None and proved.direction is not Direction.OTHER:
        return proved
    cover = next((other for other in others if each.covers(other, entry)), None)
    if cover is not None and proved is None:
        side = "already" if what == "added" else "still"
        return _told(change, Direction.TEXT, f"{text_of(cover)} says it {side} ({cover.source})")
    searched = _searched(pair, each, entry, change)
    if searched is not None:
        return searched
    if proved is not None:
        return proved
    return _told(change, Direction.UNPROVED, "no event was found that it makes a difference to")


def _owed(each: EntryList, entry: Entry) -> Owed:
    """An entry decides by its line; an exception has none in what passes."""
    if each.key.endswith("exceptions"):
        return lambda decision: decision.guard == "forbidden_path"
    return lambda decision: decision.source == entry.source


def _told(change: Change, direction: Direction, why: str) -> Change:
    return Change(key=change.key, what=change.what, item=change.item, source=change.source,
                  direction=direction, why=why)  # fmt: skip


def _probes(pair: Pair, each: EntryList, entry: Entry) -> Iterator[Witness]:
    """Yield events that an entry is about, with nothing else said of them."""
    for kind in each.kinds:
        values = each.values(kind, entry)
        if "patch" in values:
            paths = places_of(pair.before, pair.after)["request.resource.path"]
            values = {**values, "request.resource.path": paths[:_PATHS_TRIED]}
        for row in product(*(tuple(found) or (None,) for found in values.values())):
            witness = _made(kind, dict(zip(values, row, strict=True)))
            if witness is not None:
                yield witness


def _made(kind: str, facts: Facts) -> Witness | None:
    try:
        event, context = event_for(kind, facts)
    except InputError:
        return None
    return Witness(event=event, context=context)


def _searched(pair: Pair, each: EntryList, entry: Entry, change: Change) -> Change | None:
    """Look for an event on which rules let the entry make its difference."""
    if not pair.terms or each.key.endswith("forbidden_patterns"):
        return None
    for kind in each.kinds:
        values = each.values(kind, entry)
        facts = frozenset(values) | pair.facts
        differs = pair.differs(facts, owed_to=_owed(each, entry))
        found = witness_for(kinds=(kind,), demands=(differs,), values=values, beside=pair.terms)
        proved = pair.proved(change, found)
        if proved is not None:
            return proved
    return None
