"""Find registered values exactly, in any of their spellings, without keeping them.

Rules:

- What is added counts for the next byte that is scanned, in streams under way too; what
  is forgotten is found no more.
- Nothing is found but what has a registered digest: no false alarm but by a value that
  honest traffic says anyway.
- What is found does not depend on where a stream was cut into pieces.
- More than a budget of confirmations by the bytes seen is not made: ``cut`` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aesp_proxy.decide.secrets.reference import Candidate
from aesp_proxy.decide.secrets.registered import (
    PARTS,
    TIERS,
    Entry,
    Hasher,
    Spelling,
    Tier,
)
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.model.decision import Severity

if TYPE_CHECKING:
    from aesp_proxy.decide.secrets.grams import GramTable, Run, Search

Place = tuple[int, int]
"""(offset of a spelling in the stream, its length)"""

_CONFIRMS_FREE: Final = 4_096
_CONFIRM_BYTES: Final = 64
_PENDING_MAX: Final = 1_024
WHOLES_MAX: Final = 1_000
"""Of so many values parts are looked for too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What a digest stands for."""

    name: str
    rule: Rule
    fingerprint: str


@dataclass(slots=True, kw_only=True)
class _Named:
    """All values of one name."""

    sources: list[str] = field(default_factory=list)
    digests: set[bytes] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A value of which parts are known, and how many bytes it has."""

    name: str
    rule: Rule
    fingerprint: str
    size: int


class ExactIndex:
    """The registered values of one process; added to and taken from in place, by one thread."""

    __slots__ = ("_by_digest", "_hasher", "_named", "_parts", "_tables", "_wholes", "searches")

    searches: tuple[Search, ...]
    """What finds where a registered spelling may stand; of nothing registered none."""

    def __init__(self, key: bytes) -> None:
        self._hasher = Hasher(key)
        self._by_digest: dict[bytes, list[_Known]] = {}
        self._named: dict[str, _Named] = {}
        self._tables: dict[Tier, GramTable] = {}
        self._parts: GramTable | None = None
        self._wholes: list[Whole] = []
        self.searches = ()

    def __len__(self) -> int:
        return len(self._named)

    def names(self) -> dict[str, tuple[str, ...]]:
        """Return the names of what is registered, each with its sources."""
        return {name: tuple(named.sources) for name, named in sorted(self._named.items())}

    def add(self, entries: Iterable[Entry]) -> None:
        """Register ``entries``; a name that is there already gets another value."""
        entries = list(entries)
        for entry in entries:
            self._add(entry)
        self._mark([one for entry in entries for one in entry.spellings])
        self._add_parts([entry for entry in entries if entry.parts])

    def _add(self, entry: Entry) -> None:
        rule = _rule_of(entry)
        known = _Known(name=entry.name, rule=rule, fingerprint=entry.fingerprint)
        named = self._named.setdefault(entry.name, _Named())
        if entry.source not in named.sources:
            named.sources.append(entry.source)
        for spelling in entry.spellings:
            ones = self._by_digest.setdefault(spelling.digest, [])
            if known not in ones:
                ones.append(known)
            named.digests.add(spelling.digest)

    def _mark(self, spellings: Sequence[Spelling]) -> None:
        if not spellings:
            return
        from aesp_proxy.decide.secrets.grams import GramTable  # noqa: PLC0415 - numpy: 100 ms

        grams: dict[Tier, list[Run]] = {}
        for one in spellings:
            tier = next(tier for tier in TIERS if one.length >= tier.length_min)
            grams.setdefault(tier, []).append((one.grams, one.window, one.length, one.shapes))
        for tier, each in grams.items():
            if tier not in self._tables:
                self._tables[tier] = GramTable(tier, self._hasher.multiplier)
            self._tables[tier].add(each)
        self.searches = tuple(table.search for table in self._tables.values())

    def _add_parts(self, entries: list[Entry]) -> None:
        if not entries or len(self._wholes) >= WHOLES_MAX:
            return
        known = {(one.name, one.fingerprint) for one in self._wholes}
        fresh = [one for one in entries if (one.name, one.fingerprint) not in known]
        fresh = fresh[: WHOLES_MAX - len(self._wholes)]
        if not fresh:
            return
        from aesp_proxy.decide.secrets.grams import GramTable  # noqa: PLC0415 - numpy: 100 ms

        if self._parts is None:
            self._parts = GramTable(PARTS, self._hasher.multiplier, is_shaped=False)
        first = len(self._wholes)
        self._wholes += [
            Whole(
                name=one.name,
                rule=_rule_of(one),
                fingerprint=one.fingerprint,
                size=len(one.parts) // 8 + PARTS.gram_bytes - 1,
            )
            for one in fresh
        ]
        self._parts.add((one.parts, 0, number, b"") for number, one in enumerate(fresh, first))

    @property
    def has_parts(self) -> bool:
        """Whether parts of values are looked for."""
        return self._parts is not None

    @property
    def wholes(self) -> int:
        """How many values are known by parts, forgotten ones too."""
        return len(self._wholes)

    def parts(self, data: bytes, stride: int = 1) -> list[tuple[int, int]]:
        """Return the parts of values in ``data``: offset in the value, number of the value.

        With a ``stride`` only every so many positions are looked at; around what is found there
        all are.
        """
        table = self._parts
        found = [] if table is None else table.at_each(stride)(b"", data)
        if table is not None and stride > 1 and found:
            width = PARTS.gram_bytes + stride
            around = [data[max(0, at - stride) : at + width] for at, _, _ in found]
            found += [one for near in around for one in table.search(b"", near)]
        return [(at, number) for _, at, number in found]

    def whole(self, number: int) -> Whole | None:
        """Return the value of this number; None when it was forgotten."""
        one = self._wholes[number]
        return one if one.name in self._named else None

    def forget(self, name: str) -> bool:
        """Let all values of a name go; False when there is none."""
        named = self._named.pop(name, None)
        if named is None:
            return False
        if not self._named:
            self.searches = ()
        for digest in named.digests:
            left = [known for known in self._by_digest.get(digest, ()) if known.name != name]
            if left:
                self._by_digest[digest] = left
            else:
                self._by_digest.pop(digest, None)
        return True

    def block(self, data: bytes) -> tuple[Sequence[Candidate], bool]:
        """Return what is found in a block, and whether the search was cut."""
        if not self._named:
            return (), False
        watch = ExactWatch(self)
        return watch.see(b"", data, 0), watch.cut

    def open(self) -> ExactWatch:
        """Return a watch over a new stream."""
        return ExactWatch(self)

    def confirmed(self, text: bytes, start: int) -> list[Candidate]:
        """Return the candidates of a spelling that is ``text`` and begins at ``start``."""
        return [
            Candidate(
                rule=known.rule,
                start=start,
                end=start + len(text),
                value=text,
                fingerprint=known.fingerprint,
            )
            for known in self._by_digest.get(self._hasher.digest(text), ())
        ]


class ExactWatch:
    """One stream under watch for registered values. ``cut`` is true once it was too much."""

    __slots__ = ("_confirms", "_index", "_pending", "cut")

    def __init__(self, index: ExactIndex) -> None:
        self._index = index
        self._confirms = 0
        self._pending: list[Place] = []
        self.cut = False

    def see(self, tail: bytes, data: bytes, base: int) -> list[Candidate]:
        """Return what becomes known with ``data``, which begins at offset ``base`` of the stream.

        ``tail`` is what stands before it, as much of it as a spelling is long. What ends
        in later bytes is noted, and looked at again when they are there.
        """
        marks = [mark for search in self._index.searches for mark in search(tail, data)]
        if not marks and not self._pending:
            return []
        places = [(base + at - begun, length) for at, begun, length in marks]
        return self._look(places, tail + data, base + len(data))

    def _look(self, places: list[Place], text: bytes, total: int) -> list[Candidate]:
        first = total - len(text)
        found: list[Candidate] = []
        places, self._pending = list(dict.fromkeys(self._pending + places)), []
        budget = _CONFIRMS_FREE + total // _CONFIRM_BYTES
        for start, length in places:
            if start < first:
                continue
            if start + length > total:
                self._pending.append((start, length))
                continue
            self._confirms += 1
            if self._confirms > budget:
                break
            found += self._index.confirmed(text[start - first : start - first + length], start)
        if self._confirms > budget or len(self._pending) > _PENDING_MAX:
            self.cut = True
            self._pending = []
        return found


def _rule_of(entry: Entry) -> Rule:
    """Return the rule that a finding of a registered value names."""
    return Rule(
        id=entry.rule_id,
        description="a registered value",
        severity=Severity.CRITICAL,
        expression=b"",
        confirm=b"",
        whole=b"",
        where=entry.source,
    )
