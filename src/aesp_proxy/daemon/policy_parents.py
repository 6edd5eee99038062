"""What ``extends`` names, found: beside the file, at the root, or among what comes along.

A parent lies inside the folders of the repository, also behind symbolic links; a name
without suffix is one of ``.yaml``. The same file has the same name however it is spelt,
so that a circle is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.errors import ConfigError

BUILT_IN: Final = "built-in "
_SUFFIXES: Final = (".yaml", ".yml")
_NAME_CHARS_MAX: Final = 512
_SHOWN_CHARS_MAX: Final = 80


class PolicyParents:
    """Reads parents; remembers which file each name stands for.

    ``roots`` are folders that names are relative to, besides the folder of the file that
    extends; ``inside`` is what no parent lies outside of. ``named`` gives a file's name in
    errors and sources. ``read`` returns a file's text or raises ``ConfigError``.
    """

    def __init__(
        self,
        *,
        roots: Sequence[Path],
        inside: Path,
        built_in: Path,
        named: Callable[[Path], str],
        read: Callable[[Path], str],
    ) -> None:
        self._roots = tuple(roots)
        self._inside = inside.resolve()
        self._built_in = built_in
        self._named = named
        self._read = read
        self._names: dict[Path, str] = {}
        self._paths: dict[str, Path] = {}

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files of the chain, as far as it was read."""
        return tuple(self._paths.values())

    def remember(self, path: Path, where: str) -> None:
        """Tell the name under which a file is known: the first one of a chain."""
        self._names[path.resolve()] = where
        self._paths[where] = path

    def __call__(self, named: Sourced[str], child: str) -> tuple[str, str]:
        """Return name and text of a parent; ``ConfigError`` where there is none."""
        name = named.value
        good = name.isprintable() and len(name) <= _NAME_CHARS_MAX and not name.startswith("/")
        if not name or not good:
            raise ConfigError(
                f"extends names no file: {name[:_SHOWN_CHARS_MAX]!a}",
                where=named.where,
                remedy="a path inside the repository, or a policy that comes along",
            )
        for path in self._candidates(name, child):
            if path.is_file():
                return self._taken(path, named)
        raise ConfigError(
            f"no such parent: {name[:_SHOWN_CHARS_MAX]!a}",
            where=named.where,
            remedy=f"looked in {', '.join(self._looked(child))} and among the built-in policies",
        )

    def _taken(self, path: Path, named: Sourced[str]) -> tuple[str, str]:
        real = path.resolve()
        if real in self._names:
            where = self._names[real]
        elif real.is_relative_to(self._built_in.resolve()):
            where = BUILT_IN + real.relative_to(self._built_in.resolve()).as_posix()
        elif real.is_relative_to(self._inside):
            where = self._named(path)
        else:
            raise ConfigError(
                f"{named.value[:_SHOWN_CHARS_MAX]!a} leads outside of the repository",
                where=named.where,
            )
        self._names.setdefault(real, where)
        self._paths.setdefault(where, path)
        return where, self._read(path)

    def _folders(self, child: str) -> list[Path]:
        if child.startswith(BUILT_IN):
            return []
        beside = self._paths.get(child)
        folders = ([] if beside is None else [beside.parent]) + list(self._roots)
        return list(dict.fromkeys(folders))

    def _candidates(self, name: str, child: str) -> Iterator[Path]:
        for folder in [*self._folders(child), self._built_in]:
            if name.endswith((*_SUFFIXES, ".json")):
                yield folder / name
            else:
                yield from (folder / f"{name}{suffix}" for suffix in _SUFFIXES)

    def _looked(self, child: str) -> list[str]:
        return [self._named(folder) for folder in self._folders(child)] or ["no folder"]
