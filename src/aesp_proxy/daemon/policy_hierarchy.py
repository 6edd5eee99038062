"""A hierarchy of policies on disk: which files a scope has, read and ready to be joined.

Every path is inside the root, also behind symbolic links, and is told relative to it, so
that a compiled policy is the same on every machine.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from aesp_proxy.daemon.pack_files import built_in_dir
from aesp_proxy.daemon.policy_files import read_text
from aesp_proxy.daemon.policy_parents import PolicyParents
from aesp_proxy.decide.policy.compile import LevelInput
from aesp_proxy.decide.policy.hierarchy import (
    EXCEPTION,
    Hierarchy,
    HierarchyLevel,
    files_for,
    listed_scopes,
    read_hierarchy,
)
from aesp_proxy.decide.policy.load import read_chain
from aesp_proxy.decide.policy.scope import KEYS, Scope, scope_of
from aesp_proxy.decide.policy.stated import Stated
from aesp_proxy.errors import ConfigError

PLACES: Final = (
    "governance/policy-hierarchy.yaml",
    "policies/governance/policy-hierarchy.yaml",
    "policy-hierarchy.yaml",
)
SCOPES_MAX: Final = 10_000
_EXCEPTIONS_MAX: Final = 1_000


class PolicyHierarchy:
    """A root with its hierarchy file; files are read once, however many scopes ask."""

    def __init__(self, root: Path, hierarchy_path: Path | None = None) -> None:
        if not root.is_dir():
            raise ConfigError("no such folder", where=str(root), remedy="check --root")
        self.root = root.resolve()
        path = hierarchy_path or _found(root)
        self.hierarchy: Hierarchy = read_hierarchy(read_text(path), self.named(path))
        folders = (self.root, self.root / "policies", path.resolve().parent.parent)
        self._parents = PolicyParents(
            roots=[folder for folder in folders if folder.is_relative_to(self.root)],
            inside=self.root,
            built_in=built_in_dir(),
            named=self.named,
            read=read_text,
        )
        self._chains: dict[Path, tuple[Stated, ...]] = {}

    def named(self, path: Path) -> str:
        """Return the name of a file in errors and sources: relative to the root, if inside."""
        real = path.resolve()
        inside = real.is_relative_to(self.root)
        return real.relative_to(self.root).as_posix() if inside else str(path)

    def inputs(self, scope: Scope) -> list[LevelInput]:
        """Return the levels that a scope has files for, from the top down.

        ``ConfigError`` where a mandatory file is missing, or the scope names what is not
        listed. A level whose optional file is missing is left out.
        """
        levels = []
        for level in self.hierarchy.levels:
            if level.level == EXCEPTION:
                continue
            files = [self._chain(level, path) for path in files_for(level, scope)]
            joined = tuple(file for chain in files for file in chain)
            if joined:
                levels.append(
                    LevelInput(level=level.level, overridable=level.overridable, files=joined)
                )
        return levels

    def exception_paths(self, scope: Scope) -> list[Path]:
        """Return the files of the exception level, sorted by name."""
        found: set[Path] = set()
        for level in self.hierarchy.levels:
            if level.level == EXCEPTION:
                for path in files_for(level, scope):
                    found.update(self._matching(path))
        paths = sorted(found)
        if len(paths) > _EXCEPTIONS_MAX:
            raise ConfigError(f"more than {_EXCEPTIONS_MAX} exceptions", where=self.hierarchy.where)
        return paths

    def scopes(self) -> Iterator[Scope]:
        """Yield the scopes that have files: every name listed or found, and none of a kind.

        Of frameworks: none, each alone, all together. At most ``SCOPES_MAX``.
        """
        names = {key: self._names(key) for key in KEYS}
        frameworks = names.pop("framework")
        sets = [(), *((name,) for name in frameworks)]
        if len(frameworks) > 1:
            sets.append(frameworks)
        choices = [[(key, name) for name in ("", *names[key])] for key in names]
        wanted = (
            scope_of([*((k, n) for k, n in pairs if n), *(("framework", f) for f in some)])
            for pairs in itertools.product(*choices)
            for some in sets
        )
        return itertools.islice((scope for scope in wanted if self._has_all(scope)), SCOPES_MAX)

    def _has_all(self, scope: Scope) -> bool:
        return not any(
            level.mandatory and not scope.names(key)
            for level in self.hierarchy.levels
            for key in level.keys
        )

    def _names(self, key: str) -> tuple[str, ...]:
        """Return the names of a key whose file is there."""
        found: set[str] = set()
        listed = listed_scopes(self.hierarchy).get(key)
        for level in self.hierarchy.levels:
            if level.keys != (key,) or level.level == EXCEPTION:
                continue
            before, after = level.path.split(f"{{{key}}}", 1)
            for path in self._matching(f"{before}*{after}"):
                text = self._relative(path, level.path)
                found.add(text[len(before) : len(text) - len(after)])
        return tuple(sorted(name for name in found if listed is None or name in listed))

    def _relative(self, path: Path, pattern: str) -> str:
        base = self.root if pattern.partition("/")[0] != self.root.name else self.root.parent
        inside = path.is_relative_to(base)
        return (path.relative_to(base) if inside else path).as_posix()

    def _chain(self, level: HierarchyLevel, relative: str) -> tuple[Stated, ...]:
        path = self._located(relative)
        if path is None:
            if level.mandatory:
                raise ConfigError(
                    f"the level {level.level} is mandatory, and {relative} is missing",
                    where=level.where,
                    remedy="add the file, or say mandatory: false",
                )
            return ()
        if path not in self._chains:
            where = self.named(path)
            self._parents.remember(path, where)
            self._chains[path] = read_chain(read_text(path), where, self._parents)
        return self._chains[path]

    def _located(self, relative: str) -> Path | None:
        """Return a file of the repository: below the root, which may be a part of the path."""
        for base in self._bases(relative):
            path = base / relative
            if path.is_file():
                if not path.resolve().is_relative_to(self.root):
                    raise ConfigError(
                        f"{relative!a} leads outside of the root", where=self.hierarchy.where
                    )
                return path
        return None

    def _bases(self, relative: str) -> list[Path]:
        in_name = relative.partition("/")[0] == self.root.name
        return [self.root, self.root.parent] if in_name else [self.root]

    def _matching(self, pattern: str) -> list[Path]:
        for base in self._bases(pattern):
            found = [path for path in base.glob(pattern) if path.is_file()]
            if found:
                return found
        return []


def _found(root: Path) -> Path:
    for place in PLACES:
        if (root / place).is_file():
            return root / place
    raise ConfigError(
        "no hierarchy file here",
        where=str(root),
        remedy=f"looked for {', '.join(PLACES)}; or give --hierarchy FILE",
    )
