"""The hierarchy file: which levels there are, where their files lie, what may be overridden.

Levels stand in the fixed order, each once. What is left out is the stricter: a level is
mandatory and not overridable unless it says otherwise. ``override_rules`` may tighten the
law of levels and never loosen it.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from aesp_proxy.decide.policy import schema
from aesp_proxy.decide.policy.document import Mapping, Scalar, at, parse_document, source_of
from aesp_proxy.decide.policy.entries import check_entries
from aesp_proxy.decide.policy.field import Law
from aesp_proxy.decide.policy.schema_hierarchy import DEPTH_DEFAULT, HIERARCHY, LEVELS
from aesp_proxy.decide.policy.scope import KEYS, Scope, check_name
from aesp_proxy.decide.policy.table import Table
from aesp_proxy.decide.policy.weakening import Frozen
from aesp_proxy.errors import ConfigError

_LISTED: Final = {
    "framework": "frameworks",
    "region": "regions",
    "unit": "units",
    "team": "teams",
}
EXCEPTION: Final = "exception"
TEAM: Final = "team"


@dataclass(frozen=True, slots=True, kw_only=True)
class HierarchyLevel:
    """One level. ``listed`` are the names that each key of the scope may have, if it says so."""

    level: str
    path: str
    source: str
    where: str
    mandatory: bool
    overridable: bool
    listed: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the scope that the path names."""
        return tuple(key for key in KEYS if f"{{{key}}}" in self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """The whole file."""

    where: str
    name: str
    levels: tuple[HierarchyLevel, ...]
    frozen: Frozen


def read_hierarchy(text: str, where: str) -> Hierarchy:
    """Read a hierarchy file; ``ConfigError`` with the place."""
    document = parse_document(text, where)
    version = document.get("version")
    if not isinstance(version, Scalar) or version.text != schema.HIERARCHY_VERSION:
        raise ConfigError(
            "not a hierarchy file",
            where=at(version or document),
            remedy='a hierarchy file begins with version: "1.0.0"',
        )
    top = Table(document, HIERARCHY, path="")
    top.refuse_what_is_not_enforced()
    check_entries(document, HIERARCHY)
    levels = tuple(_level(table) for table in top.tables("hierarchy"))
    _check_order(levels, where)
    limit = top.count("hierarchy_depth_limit")
    depth = sum(level.level != EXCEPTION for level in levels)
    if depth > (DEPTH_DEFAULT if limit is None else limit.value):
        raise ConfigError(
            f"{depth} levels, and hierarchy_depth_limit is"
            f" {DEPTH_DEFAULT if limit is None else limit.value}",
            where=at(document.key("hierarchy") or document) if limit is None else limit.where,
        )
    name = top.text("name")
    return Hierarchy(
        where=where,
        name="" if name is None else name.value,
        levels=levels,
        frozen=_frozen(document.table("override_rules")),
    )


def files_for(level: HierarchyLevel, scope: Scope) -> tuple[str, ...]:
    """Return the paths that a level has for a scope, frameworks in sorted order.

    ``ConfigError`` where the scope names what the level does not list, or does not name
    what a mandatory level needs.
    """
    paths = [level.path]
    for key in level.keys:
        names = scope.names(key)
        _check_listed(level, key, names)
        if not names and level.mandatory:
            raise ConfigError(
                f"the level {level.level} is mandatory, and the scope names no {key}",
                where=level.where,
                remedy=f"add {key}=NAME to --scope",
            )
        paths = [path.replace(f"{{{key}}}", name) for path in paths for name in names]
    return tuple(paths)


def listed_scopes(hierarchy: Hierarchy) -> dict[str, tuple[str, ...]]:
    """Return the names that the file lists, for each key of a scope that has a list."""
    return {key: names for level in hierarchy.levels for key, names in level.listed if names}


def _check_listed(level: HierarchyLevel, key: str, names: tuple[str, ...]) -> None:
    listed = dict(level.listed).get(key)
    if listed is None:
        return
    for name in names:
        if name not in listed:
            near = difflib.get_close_matches(name, listed, n=1)
            known = f"known: {', '.join(listed) or 'none'}"
            raise ConfigError(
                f"the level {level.level} lists no {key} {name!a}",
                where=level.where,
                remedy=f"did you mean '{near[0]}'?" if near else known,
            )


def _level(table: Table) -> HierarchyLevel:
    level, path = table.text("level"), table.text("path")
    if level is None or path is None:  # both are required by the schema
        raise ConfigError("a level is not whole", where=table.where("level"))
    parts = path.value.split("/")
    bad = not path.value.isprintable() or path.value.startswith("/") or ".." in parts
    rest = path.value
    for key in KEYS:
        rest = rest.replace(f"{{{key}}}", "")
    if bad or not path.value or "{" in rest or "}" in rest:
        raise ConfigError(
            f"bad path {path.value[:80]!a}",
            where=path.where,
            remedy="a path inside the repository; {framework}, {region}, {unit}, {team} only",
        )
    listed = []
    for key, name in _LISTED.items():
        names = table.texts(name)
        if names is not None:
            for item in names:
                check_name(item.value)
            listed.append((key, tuple(item.value for item in names)))
    return HierarchyLevel(
        level=level.value,
        path=path.value,
        source=level.source,
        where=level.where,
        mandatory=table.flag("mandatory", default=True),
        overridable=table.flag("overridable", default=False),
        listed=tuple(listed),
    )


def _check_order(levels: tuple[HierarchyLevel, ...], where: str) -> None:
    if not levels:
        raise ConfigError("the hierarchy has no level", where=where)
    for above, below in pairwise(levels):
        if LEVELS.index(below.level) <= LEVELS.index(above.level):
            raise ConfigError(
                f"the level {below.level} stands below {above.level}",
                where=below.where,
                remedy=f"the order is {', '.join(LEVELS)}, each once",
            )


def _frozen(rules: Mapping | None) -> Frozen:
    additions: dict[str, str] = {}
    removals: dict[str, str] = {}
    for key, node in () if rules is None else rules.entries:
        if not isinstance(node, Mapping):
            continue
        permits = any(f.law is Law.PERMITS for f in schema.GUARDS[key.text].keys.values())
        loose, tight = (
            ("allow_additions", "allow_removals")
            if permits
            else ("allow_removals", "allow_additions")
        )
        held = node.get(loose)
        if isinstance(held, Scalar) and held.text.lower() == "true":
            word = "added to" if permits else "taken out of"
            raise ConfigError(
                f"override_rules.{key.text}.{loose}: entries are never {word} this list below",
                where=at(held),
                remedy="an override rule may only tighten: set it to false",
            )
        closed = node.get(tight)
        if isinstance(closed, Scalar) and closed.text.lower() == "false":
            (removals if permits else additions)[key.text] = source_of(closed)
    return Frozen(additions=additions, removals=removals)
