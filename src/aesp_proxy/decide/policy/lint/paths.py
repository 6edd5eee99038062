"""The lists of paths: patterns that others cover, exceptions that lift nothing or everything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import re2

from aesp_proxy.decide.policy.cover_names import glob_covers, paths_of
from aesp_proxy.decide.policy.globs import path_bytes, path_regex
from aesp_proxy.decide.policy.lint.checks import told
from aesp_proxy.decide.policy.lint.finding import FindingLevel, LintFinding, Related
from aesp_proxy.decide.policy.lint.meeting import globs_meet
from aesp_proxy.decide.policy.lint.subject import Subject
from aesp_proxy.decide.policy.sourced import Sourced

_EVERYTHING: Final = frozenset({"**", "/**"})
_MEMORY_BYTES_MAX: Final = 64 * 1024 * 1024


def look_at_paths(subject: Subject) -> Iterator[LintFinding]:
    """Yield what is wrong with ``forbidden_path`` and ``path_allowlist``."""
    paths, allow = subject.policy.paths, subject.policy.path_allow
    if paths is not None:
        yield from _redundant(subject, paths.patterns, "forbidden", fold=True)
        yield from _redundant(subject, paths.exceptions, "excepted", fold=False)
        for exception in paths.exceptions:
            yield from _exception(subject, exception, paths.patterns)
    if allow is None:
        return
    patch = () if allow.patch is allow.write else allow.patch
    for items, verb in ((allow.access, "read"), (allow.write, "written"), (patch, "patched")):
        yield from _redundant(subject, items, f"allowed to be {verb}", fold=False)
        for item in items:
            if paths is not None:
                yield from _forbidden(subject, item, paths.patterns, paths.exceptions)
            if item.value in _EVERYTHING:
                reads = verb == "read"
                yield told("path-too-broad", f"{item.value} lets every file be {verb}",
                           subject.at(item.source, item.value), witness=access_to(item.value),
                           level=FindingLevel.NOTE if reads else None)  # fmt: skip


def access_to(pattern: str) -> dict[str, object]:
    """Return the facts of an access to a path that a pattern matches."""
    path = next(paths_of(pattern))
    return {"request": {"action": "file.open", "resource": {"path": path}}}


def covers_glob(outer: str, inner: str, *, fold: bool) -> bool:
    """Tell whether a pattern matches all that another matches, both without case or with it.

    Beyond ASCII, folding is left alone: equal texts only.
    """
    if outer == inner:
        return True
    if not fold:
        return glob_covers(outer, inner)
    return outer.isascii() and inner.isascii() and glob_covers(outer.lower(), inner.lower())


class _Globs:
    """Patterns by a path that they match: what covers a pattern matches each path of it."""

    def __init__(self, items: Sequence[Sourced[str]], *, fold: bool) -> None:
        self._items = items
        self._fold = fold
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.log_errors = False
        options.max_mem = _MEMORY_BYTES_MAX
        self._set = re2.Set.FullMatchSet(options)
        for item in items:
            self._set.Add(path_regex(item, fold=fold).encode("latin-1"))
        if items:
            self._set.Compile()

    def like(self, pattern: str) -> list[int]:
        """Return the numbers of those that may cover a pattern; where in doubt, none."""
        if not self._items:
            return []
        return sorted(self._set.Match(path_bytes(next(paths_of(pattern)), fold=self._fold)))

    def covering(self, number: int) -> Sourced[str] | None:
        item = self._items[number]
        for at in self.like(item.value):
            other = self._items[at]
            if at == number or not covers_glob(other.value, item.value, fold=self._fold):
                continue
            if at < number or not covers_glob(item.value, other.value, fold=self._fold):
                return other
        return None


def _redundant(
    subject: Subject, items: Sequence[Sourced[str]], verb: str, *, fold: bool
) -> Iterator[LintFinding]:
    globs = _Globs(items, fold=fold)
    for number, item in enumerate(items):
        other = None if item.source.endswith(")") else globs.covering(number)
        if other is not None:
            yield told("path-redundant", f"{item.value} is {verb} by {other.value} already",
                       subject.at(item.source, item.value),
                       Related(source=other.source, text=f"covered by {other.value}"))  # fmt: skip


def _exception(
    subject: Subject, exception: Sourced[str], patterns: Sequence[Sourced[str]]
) -> Iterator[LintFinding]:
    where = subject.at(exception.source, exception.value)
    # What a link is called and what it resolves to must both be excepted, so a pattern that
    # no excepted path can match is never lifted.
    if not any(globs_meet(exception.value, pattern.value) for pattern in patterns):
        message = f"{exception.value} lifts nothing: no forbidden pattern matches such a path"
        yield told("exception-lifts-nothing", message, where, witness=access_to(exception.value))
        return
    lifted = [each for each in patterns if glob_covers(exception.value, each.value)]
    if lifted:
        everything = exception.value in _EVERYTHING
        what = "everything that is forbidden" if everything else f"all of {lifted[0].value}"
        related = (Related(source=each.source, text=f"lifted: {each.value}") for each in lifted[:5])
        yield told("exception-lifts-pattern", f"{exception.value} lifts {what}", where, *related,
                   witness=access_to(lifted[0].value))  # fmt: skip


def _forbidden(
    subject: Subject,
    item: Sourced[str],
    patterns: Sequence[Sourced[str]],
    exceptions: Sequence[Sourced[str]],
) -> Iterator[LintFinding]:
    """Find an allowed pattern of which every path is forbidden and none excepted."""
    if "[" in item.value or any(globs_meet(each.value, item.value) for each in exceptions):
        return
    for pattern in patterns:
        if covers_glob(pattern.value, item.value, fold=True):
            yield told("path-allow-forbidden",
                       f"{item.value} is allowed, and {pattern.value} forbids it",
                       subject.at(item.source, item.value),
                       Related(source=pattern.source, text=f"forbidden by {pattern.value}"),
                       witness=access_to(item.value))  # fmt: skip
            return
