"""One level of a hierarchy below others: the result may only be stricter.

Lists that forbid are added to; lists that allow, and exceptions, are cut to what is
covered above; values go towards the stricter only; rules that allow are not added. Every
statement that would weaken is found, with a witness, and has no effect on the result, so
that all of them can be told at once. What is locked above may not be stated at all.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, replace
from typing import Final

from aesp_proxy.decide.policy import schema
from aesp_proxy.decide.policy.document import Mapping, Node, Scalar, Sequence, at, source_of
from aesp_proxy.decide.policy.field import Field, Kind, Law
from aesp_proxy.decide.policy.level_lists import (
    Joined,
    cut_by,
    excepted,
    forbidden,
    permitted,
    taken_out,
)
from aesp_proxy.decide.policy.level_rules import joined_rules
from aesp_proxy.decide.policy.level_sections import (
    allows_by_rule,
    begins,
    ends,
    is_active,
    off_with,
)
from aesp_proxy.decide.policy.lists import shown, united
from aesp_proxy.decide.policy.merge import (
    NOT_KEPT,
    Entries,
    entries_of,
    locked_statements,
    mapping_of,
    target_list,
)
from aesp_proxy.decide.policy.stated import Stated
from aesp_proxy.decide.policy.weakening import NOTHING_FROZEN, Frozen, Weakening, value_witness

_PASSING: Final = ("allow", "log")


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelJoin:
    """A level on top of what stands above it: the stricter result, and what was wrong."""

    tree: Mapping
    weakenings: tuple[Weakening, ...]
    warnings: tuple[str, ...]


def strictly_joined(above: Mapping, stated: Stated, frozen: Frozen = NOTHING_FROZEN) -> LevelJoin:
    """Join a file below levels that it may not weaken.

    ``above`` is effective. The tree is what holds if all weakenings are left out; a caller
    that accepts none raises the first.
    """
    level = _Level(above, stated, frozen)
    tree = level.joined()
    return LevelJoin(
        tree=tree, weakenings=tuple(level.found), warnings=(*stated.warnings, *level.warnings)
    )


class _Level:
    """The joining of one file; collects what it finds."""

    def __init__(self, above: Mapping, stated: Stated, frozen: Frozen) -> None:
        self.above = above
        self.stated = stated
        self.frozen = frozen
        self.found: list[Weakening] = []
        self.warnings: list[str] = []

    def joined(self) -> Mapping:
        self._statements()
        tree = self.stated.tree
        locked = {path for _, _, path in locked_statements(self.above, self.stated)}
        if locked:
            return self.above
        entries = entries_of(self.above)
        for key, node in tree.entries:
            spec = schema.POLICY[key.text]
            if key.text in NOT_KEPT:
                continue
            if key.text == "guards" and isinstance(node, Mapping):
                entries["guards"] = self._key("guards", key), self._guards(node)
            elif spec.kind is Kind.TABLE and isinstance(node, Mapping):
                section = self._section(self.above.table(key.text), node, spec, key.text)
                entries[key.text] = self._key(key.text, key), section
            elif spec.law is Law.RULES and isinstance(node, Sequence):
                entries[key.text] = self._rules(key, node)
            elif spec.law is Law.LOCKS and isinstance(node, Sequence):
                first = entries.get(key.text)
                items = self.above.items(key.text)
                joined = replace(node, items=united(items, node.items, "")[0])
                entries[key.text] = (key if first is None else first[0]), joined
            else:
                entries[key.text] = key, node
        return mapping_of(entries, self.above)

    def _statements(self) -> None:
        """Refuse what is no matter of more or less strict: locks, and other strategies."""
        for lock, node, path in locked_statements(self.above, self.stated):
            self.found.append(
                Weakening(
                    key=path,
                    what=f"locked by {shown(lock)}",
                    above=source_of(lock),
                    below=at(node),
                    remedy="take it out; nobody below may state it",
                )
            )
        strategy = self.stated.tree.get("merge_strategy")
        if isinstance(strategy, Scalar) and strategy.text != "deep_merge":
            self.found.append(
                Weakening(
                    key="merge_strategy",
                    what=f"{strategy.text} would drop what stands above",
                    above=source_of(self.above),
                    below=at(strategy),
                    remedy="take it out: below this level files are joined key by key",
                )
            )

    def _key(self, name: str, key: Scalar) -> Scalar:
        return self.above.key(name) or key

    def _rules(self, key: Scalar, node: Sequence) -> tuple[Scalar, Sequence]:
        above = self.above.items("rules")
        items, found = joined_rules(above, node.items, place=source_of(self.above))
        self.found.extend(found)
        return self._key("rules", key), replace(node, items=items)

    def _guards(self, node: Mapping) -> Mapping:
        above = self.above.table("guards")
        entries = entries_of(above)
        for key, section in node.entries:
            if not isinstance(section, Mapping):
                continue
            first = entries.get(key.text)
            joined = self._guard(above, section, key)
            if joined is not None:
                entries[key.text] = (key if first is None else first[0]), joined
        result = mapping_of(entries, above or node)
        for name, weakening in off_with(above, result, node, allows=allows_by_rule(self.above)):
            self.found.append(weakening)
            held = entries_of(above).get(name)
            if held is None:
                entries.pop(name, None)
            else:
                entries[name] = held
        return mapping_of(entries, above or node)

    def _guard(self, guards: Mapping | None, stated: Mapping, key: Scalar) -> Mapping | None:
        """Join one guard's section; one that is off above has no say in what it allows."""
        name = key.text
        above = guards.table(name) if guards is not None else None
        path = f"guards.{name}"
        active = is_active(name, guards)
        off = not active and (ends(name, stated) or "enabled" not in entries_of(stated))
        if off and (above is not None or ends(name, stated)):
            return _switched(above, stated)
        held = guards.key(name) if guards is not None else None
        place = source_of(held or self.above)
        base = above if active else None
        if active and ends(name, stated):
            # Whether that weakens depends on what else is on: off_with tells.
            return _switched(above, stated)
        begun = tuple(begins(name, guards, stated, key, place))
        if begun:
            self.found.extend(begun)
            return above
        free = not active and _is_free(name, guards)
        return self._section(base, stated, schema.GUARDS[name], path, place, free=free)

    def _section(
        self,
        above: Mapping | None,
        stated: Mapping,
        spec: Field,
        path: str,
        place: str = "",
        *,
        free: bool = False,
    ) -> Mapping:
        """Join one section; ``free`` tells that nothing in it can let pass what was refused."""
        place = place or source_of(self.above.key(path) or self.above)
        entries = entries_of(above)
        for key, node in stated.entries:
            law = spec.keys[key.text].law
            if law in _VALUES:
                self._value(entries, key, node, spec.keys, path, place, free=free)
            elif law in (Law.TOLD, Law.EITHER, Law.SWITCH):
                entries[key.text] = key, node
        for laws in (_LISTS, (Law.ADDS,), (Law.REMOVES,)):
            for key, node in stated.entries:
                if spec.keys[key.text].law in laws and isinstance(node, Sequence):
                    self._list(entries, above, key, node, spec.keys, path, place, free=free)
        return mapping_of(entries, above or stated)

    def _value(
        self,
        entries: Entries,
        key: Scalar,
        node: Node,
        keys: MappingOf[str, Field],
        path: str,
        place: str,
        *,
        free: bool,
    ) -> None:
        """Take a value that is as strict as the one above, and find one that is not."""
        spec, name = keys[key.text], f"{path}.{key.text}"
        first = entries.get(key.text)
        held = first[1].text if first is not None and isinstance(first[1], Scalar) else spec.default
        told = source_of(first[1]) if first is not None else f"{place} (default)"
        if isinstance(node, Scalar) and held and not free and _weaker(spec, held, node.text):
            self.found.append(
                Weakening(
                    key=name,
                    what=f"{node.text[:40]} is weaker than {held[:40]}",
                    above=told,
                    below=at(node),
                    witness=value_witness(name, held.lower(), node.text.lower()),
                )
            )
            return
        entries[key.text] = key, node

    def _list(
        self,
        entries: Entries,
        above: Mapping | None,
        key: Scalar,
        node: Sequence,
        keys: MappingOf[str, Field],
        path: str,
        place: str,
        *,
        free: bool,
    ) -> None:
        spec = keys[key.text]
        name = spec.of or key.text
        target = keys[name]
        if free and spec.law in _LISTS:
            entries[name] = key, node
            return
        held = entries_of(above)
        fallback = target.default if target.default and name not in held else name
        before = target_list(held, fallback, key, path)
        now = target_list(entries, name, key, path)
        guard = path.rpartition(".")[2]
        joined = Joined(
            key=f"{path}.{key.text}",
            place=source_of(before[0]) if fallback in held else place,
            before=before[1],
            now=now[1],
            spec=target,
        )
        match spec.law, target.law:
            case Law.REMOVES, _:
                made = taken_out(joined, node, entries, path)
            case _, Law.FORBIDS:
                made = forbidden(joined, node, self.frozen.additions.get(guard, ""))
            case Law.ADDS, _:
                passing = _default_passes(above)
                made = permitted(joined, node, default_passes=passing, adds=True)
            case _, Law.PERMITS:
                made = permitted(joined, node, default_passes=_default_passes(above), adds=False)
            case _:
                made = excepted(joined, node, target_list(held, "patterns", key, path)[1].items)
        removals = self.frozen.removals.get(guard, "")
        if removals and target.law is Law.PERMITS:
            made = cut_by(joined, made, at(key), removals)
        self.found.extend(made.found)
        self.warnings.extend(made.warnings)
        list_key = key if spec.law in _LISTS else now[0]
        entries[name] = list_key, replace(node, items=made.items)


_VALUES: Final = (Law.ON, Law.OFF, Law.LESS, Law.ORDER)
_LISTS: Final = (Law.FORBIDS, Law.PERMITS, Law.EXCEPTS)


def _weaker(spec: Field, held: str, text: str) -> bool:
    match spec.law:
        case Law.ON:
            return held.lower() == "true" and text.lower() == "false"
        case Law.OFF:
            return held.lower() == "false" and text.lower() == "true"
        case Law.LESS:
            return float(text) > float(held)
        case Law.ORDER:
            return spec.choices.index(text) < spec.choices.index(held)
        case _:
            return False


def _default_passes(above: Mapping | None) -> bool:
    return above is not None and above.word("default_action") in _PASSING


def _switched(above: Mapping | None, stated: Mapping) -> Mapping:
    """Return a section of above with the switch of below, and nothing else of below."""
    entries = entries_of(above)
    entries.update((name, e) for name, e in entries_of(stated).items() if name == "enabled")
    return mapping_of(entries, above or stated)


def _is_free(name: str, guards: Mapping | None) -> bool:
    """Tell whether a section that is not on above can only restrict what passes now.

    The guards of content, and allowed paths where forbidden ones let the rest pass.
    """
    if name == "path_allowlist":
        return is_active("forbidden_path", guards)
    return name in ("secret_leak", "patch_integrity", "forbidden_path")
