"""Decide with RE2 what a rule matches, and be the matcher that the fast one is held to.

What a match *is*, for both matchers: at an end ``e`` take the leftmost match in
the ``CONFIRM_BYTES`` before ``e`` that starts at or after the last match of the same
rule and that entropy, keywords, check digit and published examples let pass.
That is a candidate, and the next one starts after ``e``. Ends are taken in
ascending order. So a match ends as early as it can, and what is found does not
depend on where a stream was cut.

Rules:

- RE2 runs in time linear in its input; Python's ``re`` is not used.
- A hit whose match begins before the window cannot be confirmed, and counts;
  so does one behind ``STARTS_MAX`` matches that were let go.
- The value of a token without an upper length is what of it is there at the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import re2

from aesp_proxy.decide.secrets.measure import entropy
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.validators import VALIDATORS
from aesp_proxy.decide.secrets.width import bytes_max
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Severity

CONFIRM_BYTES = 1_100
VALUE_BYTES_MAX = 4_096
STARTS_MAX = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One confirmed match: where the secret begins, where the match ends, and the secret.

    ``begin`` is where the match begins (negative: not told). ``valid`` is false when a
    check of the rule does not hold and the rule tells of it all the same.
    ``fingerprint`` is what to tell of it where ``value`` is a spelling of the secret or a
    part of it; empty where it is the secret.
    ``via`` names the views it was seen through, outermost first, joined by " > "; offsets
    are then those of what it is wrapped in.
    """

    rule: Rule
    start: int
    end: int
    value: bytes
    fingerprint: str = ""
    begin: int = -1
    valid: bool = True
    via: str = ""

    @property
    def stop(self) -> int:
        """Where what is known of the secret ends; of one in a view, what it is wrapped in."""
        return self.end if self.via else max(self.end, self.start + len(self.value))

    @property
    def severity(self) -> Severity:
        """How bad it is: the rule's severity, or that of an invalid one."""
        if self.valid or self.rule.invalid is None:
            return self.rule.severity
        return self.rule.invalid


type Accept = Callable[[int, Candidate], bool]
"""Whether a candidate of the rule with this index, which all else lets pass, is one."""


class Match(Protocol):
    """What is used of RE2's match object."""

    def start(self, group: int = 0) -> int:
        """Return where the match or a capture begins."""

    def end(self) -> int:
        """Return where the match ends."""

    def span(self) -> tuple[int, int]:
        """Return both."""

    def group(self, group: int = 0) -> bytes | None:
        """Return a capture, None when it took no part."""

    def groups(self) -> tuple[bytes | None, ...]:
        """Return all captures."""


class Pattern(Protocol):
    """What is used of RE2's compiled expression; offsets see the text around them."""

    groups: int

    def search(
        self, text: bytes, pos: int | None = None, endpos: int | None = None
    ) -> Match | None:
        """Return the leftmost match in ``text[pos:endpos]``."""

    def match(self, text: bytes, pos: int | None = None, endpos: int | None = None) -> Match | None:
        """Return the match that begins at ``pos``."""

    def fullmatch(self, text: bytes) -> Match | None:
        """Return the match that is all of ``text``."""


def compile_re2(expression: bytes) -> Pattern:
    """Compile for bytes; ConfigError with RE2's reason, without what it quotes of the expression.

    An expression of an operator may hold the secret that it is for.
    """
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    try:
        compiled: Pattern = re2.compile(expression, options)
    except re2.error as error:
        words = error.args[0] if error.args else error
        reason = words.decode("latin-1") if isinstance(words, bytes) else str(words)
        raise ConfigError(f"RE2 refuses the regex: {reason.partition(': ')[0]}") from None
    return compiled


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One hit to look at, as ``Confirmer.confirm`` takes it."""

    index: int
    text: bytes
    base: int
    end: int
    last_end: int
    whole: bool


class _Ready(NamedTuple):
    """One rule compiled for RE2: as it confirms, whole, and how far back a match may begin."""

    confirm: Pattern
    whole: Pattern
    near_bytes: int


class Confirmer:
    """All rules for RE2, each compiled when something of it is first located: most never are.

    That every expression can be compiled was tried where the rules were read; one that could
    not would be a ConfigError of the scan, which refuses.

    ``accept`` is asked last of every candidate. ``reach_bytes`` is how far back a match
    may begin; more than CONFIRM_BYTES is for texts that are there as a whole: matches
    are then as long as the regex as written makes them.
    """

    __slots__ = ("_accept", "_reach_bytes", "_ready", "rules")

    def __init__(
        self,
        rules: Sequence[Rule],
        *,
        accept: Accept | None = None,
        reach_bytes: int = CONFIRM_BYTES,
    ) -> None:
        self.rules = tuple(rules)
        self._accept = accept
        self._reach_bytes = reach_bytes
        self._ready: list[_Ready | None] = [None] * len(self.rules)

    def _rule(self, index: int) -> _Ready:
        """Return a rule compiled. Two threads may compile it at once, to the same effect."""
        ready = self._ready[index]
        if ready is None:
            rule = self.rules[index]
            confirm = compile_re2(rule.confirm)
            whole = confirm if rule.whole == rule.confirm else compile_re2(rule.whole)
            ready = self._ready[index] = _Ready(confirm, whole, _near_bytes(rule))
        return ready

    def confirm(
        self,
        index: int,
        text: bytes,
        base: int,
        end: int,
        last_end: int,
        *,
        whole: bool = True,
        accept: Accept | None = None,
    ) -> tuple[Candidate | None, int]:
        """Return the candidate of rule ``index`` for a hit that ends at ``end``, and the effort.

        ``text`` begins at offset ``base`` of the stream and reaches at least to
        ``end``; ``last_end`` is where the rule's previous candidate ended. No
        candidate when the match overlaps that one, or a condition does not hold.
        The effort is how many matches were looked at. ``whole`` is false when the
        hit was seen out of its context: then no match is no candidate either.
        ``accept`` is asked in place of the one of this object.
        """
        ask = accept or self._accept
        look = Look(index=index, text=text, base=base, end=end, last_end=last_end, whole=whole)
        found = self._look(look, CONFIRM_BYTES, ask)
        if self._reach_bytes <= CONFIRM_BYTES or found[0] is None or found[0].begin >= 0:
            return found
        far = self._look(look, self._reach_bytes, ask)
        return far[0], found[1] + far[1]

    def _look(
        self, look: Look, reach_bytes: int, ask: Accept | None
    ) -> tuple[Candidate | None, int]:
        """Look ``reach_bytes`` back; a match that begins before that has no ``begin``."""
        index, text, base, end = look.index, look.text, look.base, look.end
        window = max(0, end - reach_bytes)
        # One byte of context before the first start, so that \b and ^ see what is there.
        low = max(window, look.last_end, base + 1 if base else 0)
        ready = self._rule(index)
        search = ready.confirm.search
        # A match that ends here begins no farther back than it can be long.
        near = max(low, end - ready.near_bytes)
        match = search(text, near - base, end - base)
        effort = 1
        if match is None and near > low:
            match = search(text, low - base, end - base)
            effort += 1
        if match is None and (look.last_end > window or not look.whole):
            return None, effort
        while match is not None and effort <= STARTS_MAX:
            candidate = self._candidate(index, match, text, base)
            if candidate is not None and (ask is None or ask(index, candidate)):
                return candidate, effort
            match = search(text, match.start() + 1, end - base)
            if match is None:
                return None, effort
            effort += 1
        value = text[max(0, window - base) : end - base]
        return Candidate(rule=self.rules[index], start=window, end=end, value=value), effort

    def _candidate(self, index: int, match: Match, text: bytes, base: int) -> Candidate | None:
        rule = self.rules[index]
        begin, end = match.span()
        complete = self._reach_bytes > CONFIRM_BYTES
        if complete or rule.whole != rule.confirm:
            reach = min(len(text), begin + max(VALUE_BYTES_MAX, end - begin))
            match = self._rule(index).whole.match(text, begin, reach) or match
        start, value = _secret(match, rule.secret_group)
        if not _holds(rule, value, text[max(0, end - CONFIRM_BYTES) : end]):
            return None
        valid = all(VALIDATORS[name](value) for name in rule.validate)
        if not valid and rule.invalid is None:
            return None
        return Candidate(
            rule=rule,
            start=base + start,
            end=base + (match.end() if complete else end),
            value=value,
            begin=base + begin,
            valid=valid,
        )

    def find(self, text: bytes) -> list[Candidate]:
        """Return all candidates in a block, by RE2 alone: slow, and right by construction."""
        found = [
            candidate
            for index in range(len(self.rules))
            if self._rule(index).confirm.search(text) is not None
            for candidate in self._find_rule(index, text)
        ]
        return sorted(found, key=lambda one: (one.end, one.rule.id))

    def _find_rule(self, index: int, text: bytes) -> list[Candidate]:
        found: list[Candidate] = []
        last_end = 0
        end = self._first_end(index, text, 0, 0)
        while end is not None:
            candidate, _ = self.confirm(index, text, 0, end, last_end)
            if candidate is not None:
                found.append(candidate)
                last_end = end
            end = self._first_end(index, text, last_end, end)
        return found

    def _first_end(self, index: int, text: bytes, low: int, after: int) -> int | None:
        """Return the first end past ``after`` where a match that starts at ``low`` or later stands.

        "A match lies in [low, e]" is monotone in e, so it is found by bisection
        while none lies in [low, after]; past a refused candidate, byte by byte.
        """
        search = self._rule(index).confirm.search
        if search(text, low, after) is not None:
            return after + 1 if after < len(text) else None
        if search(text, low) is None:
            return None
        below, above = after, len(text)
        while above - below > 1:
            middle = (below + above) // 2
            if search(text, low, middle) is None:
                below = middle
            else:
                above = middle
        return above


def _near_bytes(rule: Rule) -> int:
    width = bytes_max(rule.confirm)
    return CONFIRM_BYTES if width is None else min(width, CONFIRM_BYTES)


def _secret(match: Match, group: int) -> tuple[int, bytes]:
    """Return where the secret begins and the secret: the capture that gitleaks would choose."""
    value = match.group(group) if group else None
    if value:
        return match.start(group), value
    for number, value in enumerate(match.groups(), 1):
        if value:
            return match.start(number), value
    return match.start(), match.group() or b""


def _holds(rule: Rule, value: bytes, around: bytes) -> bool:
    if rule.entropy and entropy(value) <= rule.entropy:
        return False
    if value in rule.published:
        return False
    if not rule.keywords:
        return True
    lowered = around.lower()
    return any(keyword in lowered for keyword in rule.keywords)
