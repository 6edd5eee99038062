"""Find secrets in files as gitleaks does: with names, allowlists and rules that need others.

A file is there as a whole, so more can be asked than of bytes that flow: its name and
commit, the line of a match, what else stands near, and how long the match really is.

Rules:

- What is found is what gitleaks' rules say: a match is let go where it would be, and
  never hides another one that overlaps it.
- Work is bounded by the size of the file; ``cut`` says that there was more to look at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from aesp_proxy.decide.secrets.allow import Allows, Sight
from aesp_proxy.decide.secrets.hyperscan import HITS_MAX, Hit, Locator, compile_locator
from aesp_proxy.decide.secrets.reference import Candidate, Confirmer, compile_re2
from aesp_proxy.decide.secrets.rule import Required, Rule, RuleSet

FILE_REACH_BYTES = 1 << 16
LINE_BYTES_MAX = 1 << 14
PIECE_BYTES = 1 << 16
EFFORT_FREE = 1 << 16
EFFORT_BYTES = 16
"""One more look for each so many bytes of a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFindings:
    """What was found, by place, and whether there was more to look at than is looked at.

    A candidate of a rule for names alone has no place and no value.
    """

    found: tuple[Candidate, ...] = ()
    cut: bool = False


class FileScanner:
    """Find secrets in files by a set of rules; immutable, safe to share between threads.

    ``locator`` may hold the compiled ``expressions`` of the set.
    ConfigError when the engine refuses a rule.
    """

    __slots__ = ("_allow", "_allows", "_confirmer", "_content", "_locator", "_names", "_paths")

    def __init__(self, rules: RuleSet, locator: Locator | None = None) -> None:
        content = tuple(rule for rule in rules.rules if not rule.path_only)
        self._names = tuple(
            (rule, compile_re2(rule.path), Allows(rule.allow))
            for rule in rules.rules
            if rule.path_only
        )
        self._locator = locator
        if locator is None and content:
            self._locator = compile_locator(expressions(rules))
        # Keywords are asked of the whole file, not of what stands before a match.
        self._confirmer = Confirmer(
            [replace(rule, keywords=()) for rule in content], reach_bytes=FILE_REACH_BYTES
        )
        self._content = content
        self._allow = Allows(rules.allow)
        self._allows = tuple(Allows(rule.allow) for rule in content)
        self._paths = tuple(compile_re2(rule.path) if rule.path else None for rule in content)

    def scan(self, data: bytes, path: bytes = b"", commit: str = "") -> FileFindings:
        """Return what is found in a file of this name (slashes between folders) and commit.

        UnavailableError when the engine fails.
        """
        if self._allow.of_place(path, commit):
            return FileFindings()
        names = tuple(
            Candidate(rule=rule, start=0, end=0, value=b"", begin=0)
            for rule, pattern, allows in self._names
            if pattern.search(path) is not None
            and not allows.of_place(path, commit)
            and rule.report
            and (not rule.keywords or _has_keyword(rule, data.lower()))
        )
        if self._locator is None:
            return FileFindings(found=names)
        hits, cut = _hits(self._locator, data)
        found: list[tuple[int, Candidate]] = []
        if hits:
            found, spent = self._confirmed(hits, _File(data, path, commit))
            cut = cut or spent
        return FileFindings(found=names + self._told(found, data), cut=cut)

    def _confirmed(
        self, hits: Sequence[Hit], file: _File
    ) -> tuple[list[tuple[int, Candidate]], bool]:
        """Return the candidates behind ``hits`` by index of rule, and whether effort ran out."""
        effort_max = EFFORT_FREE + len(file.data) // EFFORT_BYTES
        effort = 0
        silent: dict[int, bool] = {}
        ends: dict[int, int] = {}
        found = []

        def accept(index: int, candidate: Candidate) -> bool:
            sight = file.sight(candidate)
            return not (self._allow.in_file(sight) or self._allows[index].in_file(sight))

        for end, index, whole in hits:
            last_end = ends.get(index, 0)
            if index not in silent:
                silent[index] = self._is_silent(index, file)
            if silent[index] or end <= last_end:
                continue
            candidate, more = self._confirmer.confirm(
                index, file.data, 0, end, last_end, whole=whole, accept=accept
            )
            effort += more
            if candidate is not None:
                ends[index] = candidate.end
                found.append((index, candidate))
            if effort > effort_max:
                return found, True
        return found, False

    def _is_silent(self, index: int, file: _File) -> bool:
        """Tell whether a rule says nothing of files of this name or commit."""
        pattern = self._paths[index]
        if pattern is not None and pattern.search(file.path) is None:
            return True
        return self._allows[index].of_place(file.path, file.commit)

    def _told(self, found: list[tuple[int, Candidate]], data: bytes) -> tuple[Candidate, ...]:
        """Return those of ``found`` that are reported, with what they require, by place."""
        if not found:
            return ()
        lowered = data.lower()
        places = _Places(data, [candidate for _, candidate in found])
        told = [
            replace(candidate, rule=self._content[index])
            for index, candidate in found
            if self._content[index].report
            and _has_keyword(self._content[index], lowered)
            and all(places.near(candidate, one) for one in candidate.rule.required)
        ]
        told.sort(key=lambda one: (one.start, one.end, one.rule.id))
        return tuple(one for one in told if not _said_better(one, told, places))


def expressions(rules: RuleSet) -> tuple[bytes, ...]:
    """Return what a locator for these rules is compiled from."""
    return tuple(rule.expression for rule in rules.rules if not rule.path_only)


class _File:
    """One file, and what allowlists see of it."""

    __slots__ = ("commit", "data", "path")

    def __init__(self, data: bytes, path: bytes, commit: str) -> None:
        self.data = data
        self.path = path
        self.commit = commit

    def sight(self, candidate: Candidate) -> Sight:
        begin = max(candidate.begin, 0)
        low = max(0, begin - LINE_BYTES_MAX)
        first = self.data.rfind(b"\n", low, begin) + 1 or low
        high = min(len(self.data), candidate.end + LINE_BYTES_MAX)
        last = self.data.find(b"\n", candidate.end, high)
        return Sight(
            secret=candidate.value,
            match=self.data[begin : candidate.end],
            line=self.data[first : last if last >= 0 else high],
            path=self.path,
            commit=self.commit,
        )


class _Places:
    """Lines and columns of candidates, for rules that require others near by."""

    __slots__ = ("_by_rule", "_lines")

    def __init__(self, data: bytes, candidates: Sequence[Candidate]) -> None:
        self._lines: dict[int, tuple[int, int]] = {}
        line, at = 0, 0
        for begin in sorted({max(one.begin, 0) for one in candidates}):
            line += data.count(b"\n", at, begin)
            at = begin
            self._lines[begin] = line, begin - (data.rfind(b"\n", 0, begin) + 1)
        self._by_rule: dict[str, list[tuple[int, int]]] = {}
        for one in candidates:
            self._by_rule.setdefault(one.rule.id, []).append(self.of(one))

    def of(self, candidate: Candidate) -> tuple[int, int]:
        """Return line and column of the match, both from 0."""
        return self._lines[max(candidate.begin, 0)]

    def near(self, candidate: Candidate, required: Required) -> bool:
        """Tell whether the required rule was found as near as it must be."""
        line, column = self.of(candidate)
        return any(
            _within(line - other_line, required.within_lines)
            and _within(column - other_column, required.within_columns)
            for other_line, other_column in self._by_rule.get(required.id, ())
        )


def _within(distance: int, most: int | None) -> bool:
    return most is None or abs(distance) <= most


def _hits(locator: Locator, data: bytes) -> tuple[list[Hit], bool]:
    """Return the hits in ``data`` by end, and whether there were too many to tell."""
    stream = locator.open()
    hits: list[Hit] = []
    try:
        for offset in range(0, len(data), PIECE_BYTES):
            fresh = stream.scan(data[offset : offset + PIECE_BYTES])
            hits += fresh
            if len(fresh) >= HITS_MAX:
                return hits, True
        hits += stream.finish()
    finally:
        stream.close()
    return locator.ordered(hits) if hits else hits, False


def _has_keyword(rule: Rule, lowered: bytes) -> bool:
    return not rule.keywords or any(word in lowered for word in rule.keywords)


def _said_better(one: Candidate, told: Sequence[Candidate], places: _Places) -> bool:
    """Tell whether a generic rule repeats what another says of the line (gitleaks' filter)."""
    if "generic" not in one.rule.id:
        return False
    line, _ = places.of(one)
    return any(
        "generic" not in other.rule.id and places.of(other)[0] == line and one.value in other.value
        for other in told
    )
