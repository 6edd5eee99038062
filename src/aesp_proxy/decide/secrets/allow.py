"""Ask allowlists: what a rule matches and is no secret all the same.

An allowlist that loosens by anything but the secret itself is a way out for whoever
writes the bytes: a comment in the same line, a word in front, the name of a file.

Rules:

- In files, where the writer is no adversary, allowlists mean what gitleaks means.
- On the wire only the exact secret lets itself pass: a regex of the target ``secret``
  that matches it from end to end, or a stopword that is all of it. Paths, commits,
  lines, matches and parts of the secret let nothing pass there, and an allowlist that
  demands one of them with the rest (AND) lets nothing pass at all.

Sources: gitleaks' README, "Configuration"; its ``config/allowlist.go`` for what is
compared with what.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aesp_proxy.decide.secrets.reference import Accept, Candidate, Pattern, compile_re2
from aesp_proxy.decide.secrets.rule import Allowlist, Rule, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What an allowlist looks at: a secret, the match and the line around it, and where."""

    secret: bytes
    match: bytes
    line: bytes
    path: bytes = b""
    commit: str = ""


class Allows:
    """Allowlists, compiled; immutable."""

    __slots__ = ("_lists",)

    def __init__(self, allowlists: Sequence[Allowlist]) -> None:
        self._lists = tuple(
            (
                one,
                tuple(compile_re2(regex) for regex in one.regexes),
                tuple(compile_re2(regex) for regex in one.paths),
            )
            for one in allowlists
        )

    def __bool__(self) -> bool:
        return bool(self._lists)

    def of_place(self, path: bytes, commit: str) -> bool:
        """Tell whether nothing is a secret in a file of this name, or in this commit."""
        return any(
            _holds(one, [_in_commits(one, commit), _any(paths, path)])
            for one, _, paths in self._lists
            if not one.every or not (one.regexes or one.stopwords)
        )

    def in_file(self, sight: Sight) -> bool:
        """Tell whether this one is no secret, as gitleaks would."""
        return any(
            _holds(
                one,
                [
                    _in_commits(one, sight.commit),
                    _any(paths, sight.path),
                    _any(regexes, _target(one, sight)),
                    _stopped(one, sight.secret) if one.stopwords else None,
                ],
            )
            for one, regexes, paths in self._lists
        )

    def on_the_wire(self, secret: bytes) -> bool:
        """Tell whether this very secret is allowed, wherever it stands."""
        return any(self._exact(one, regexes, secret) for one, regexes, _ in self._lists)

    @staticmethod
    def _exact(one: Allowlist, regexes: Sequence[Pattern], secret: bytes) -> bool:
        by_secret = bool(one.regexes) and one.target is Target.SECRET
        matches = by_secret and any(regex.fullmatch(secret) for regex in regexes)
        stopped = secret.lower() in one.stopwords
        if not one.every:
            return matches or stopped
        if one.paths or one.commits or (one.regexes and not by_secret):
            return False
        return (matches or not one.regexes) and (stopped or not one.stopwords)


def accept_on_the_wire(rules: Sequence[Rule]) -> Accept | None:
    """Return what the allowlists of ``rules`` say of candidates on the wire; None for nothing."""
    allows = {index: Allows(rule.allow) for index, rule in enumerate(rules) if rule.allow}
    if not allows:
        return None

    def accept(index: int, candidate: Candidate) -> bool:
        return index not in allows or not allows[index].on_the_wire(candidate.value)

    return accept


def _holds(one: Allowlist, checks: Sequence[bool | None]) -> bool:
    """Tell whether an allowlist lets pass, by its checks; None is one that it does not state."""
    stated = [check for check in checks if check is not None]
    return bool(stated) and (all(stated) if one.every else any(stated))


def _in_commits(one: Allowlist, commit: str) -> bool | None:
    return commit.lower() in one.commits if one.commits else None


def _any(patterns: Sequence[Pattern], text: bytes) -> bool | None:
    if not patterns:
        return None
    return any(pattern.search(text) is not None for pattern in patterns)


def _target(one: Allowlist, sight: Sight) -> bytes:
    match one.target:
        case Target.SECRET:
            return sight.secret
        case Target.MATCH:
            return sight.match
        case Target.LINE:
            return sight.line


def _stopped(one: Allowlist, secret: bytes) -> bool:
    lowered = secret.lower()
    return any(word in lowered for word in one.stopwords)
