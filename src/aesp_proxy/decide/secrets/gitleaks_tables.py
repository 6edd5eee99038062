"""The tables of a gitleaks file in one spelling, and files upon files (``extend``).

A rule that stands in both takes from the later file what that states; keywords, tags,
allowlists and what is required add up. Source: gitleaks' ``config/config.go``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from aesp_proxy.decide.secrets.rule_table import (
    ALLOWLIST_KEYS,
    REQUIRED_KEYS,
    RULE_KEYS,
    Table,
    Types,
    check_types,
)
from aesp_proxy.decide.secrets.rules import id_lines, read_toml, table_lines
from aesp_proxy.errors import ConfigError

_FILE_KEYS = ("title", "description", "minVersion", "extend", "rules", "allowlist", "allowlists")
_EXTEND_KEYS: Types = {"useDefault": bool, "path": str, "url": str, "disabledRules": list}
_DIGITS_MAX = 9
_ADD_UP = ("keywords", "tags", "required")
KNOWN_VERSION = (8, 30)
"""The gitleaks whose format is read here; a patch release changes nothing of it."""

type Doubt = tuple[str, str, str]
"""Where, the name of a rule or nothing, and what was not taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extend:
    """What a file stands upon."""

    use_default: bool = False
    path: str = ""
    url: str = ""
    disabled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One table in our spelling, where it stands, and the allowlists in it."""

    table: Table
    where: str
    allow: tuple[Entry, ...] = ()


class Book:
    """The tables of a file, by id and in order, and what was strange in it."""

    __slots__ = ("allow", "doubts", "extend", "rules", "targeted", "where")

    def __init__(self, where: str, extend: Extend) -> None:
        self.where = where
        self.extend = extend
        self.rules: dict[str, Entry] = {}
        self.allow: list[Entry] = []
        self.targeted: list[tuple[str, Entry]] = []
        self.doubts: list[Doubt] = []

    def stand_upon(self, parent: Book) -> None:
        """Put this book upon another one, which it changes and adds to."""
        for name, mine in self.rules.items():
            theirs = parent.rules.get(name)
            parent.rules[name] = mine if theirs is None else _over(theirs, mine)
        self.rules = parent.rules
        self.allow = parent.allow + self.allow
        self.doubts = parent.doubts + self.doubts

    def disable(self) -> None:
        """Take out the rules of the parents that the file wants to be without."""
        for name in self.extend.disabled:
            if self.rules.pop(name, None) is None:
                self.doubts.append((self.where, name, "disabledRules names it and it is not here"))

    def aim(self) -> None:
        """Hand the allowlists that target rules to them."""
        for name, entry in self.targeted:
            if name in self.rules:
                rule = self.rules[name]
                self.rules[name] = replace(rule, allow=(*rule.allow, entry))
            else:
                self.doubts.append((self.where, name, "an allowlist targets it and it is not here"))


def read_book(text: str, where: str) -> Book:
    """Return the tables of a file. ConfigError when it is not TOML or not in this shape."""
    document = _spelled(read_toml(text, where), _FILE_KEYS)
    book = Book(where, _extend(document.get("extend", {}), where))
    book.doubts += [
        (where, "", f"unknown key {key!r}") for key in document if key not in _FILE_KEYS
    ]
    book.doubts += _version_doubts(document.get("minVersion"), where)
    tables = _tables(document, "rules", where)
    lines, begins = id_lines(text), table_lines(text)
    for number, table in enumerate(tables):
        place = f"{where}:{begins[number]}" if len(begins) == len(tables) else where
        entry = _rule_entry(table, where, place, lines, book.doubts)
        name = str(entry.table.get("id") or f"number {number + 1}")
        if name in book.rules:
            book.doubts.append((entry.where, name, "it stands twice: the last one counts"))
        book.rules[name] = entry
    for table in _allowlist_tables(document, where):
        _global_allowlist(table, book)
    return book


def _version_doubts(asked: object, where: str) -> list[Doubt]:
    """Tell of a file that was written for a later gitleaks than is known here."""
    if asked is None:
        return []
    parts = str(asked).removeprefix("v").split(".")[: len(KNOWN_VERSION)]
    if not all(part.isdecimal() and len(part) < _DIGITS_MAX for part in parts):
        return [(where, "", "minVersion is no version, not used")]
    if tuple(map(int, parts)) <= KNOWN_VERSION:
        return []
    known = ".".join(map(str, KNOWN_VERSION))
    return [(where, "", f"minVersion is {'.'.join(parts)}: what came after {known} is not known")]


def _rule_entry(
    table: Table, where: str, begin: str, lines: dict[str, int], doubts: list[Doubt]
) -> Entry:
    """Read a rule, which begins at ``begin``; its name is taken out of ``lines``."""
    own = _spelled(table, (*RULE_KEYS, "allowlist"))
    name = str(own.get("id", ""))
    place = f"{where}:{lines.pop(name)}" if name in lines else begin
    allow = tuple(
        Entry(table=_spelled(one, ALLOWLIST_KEYS), where=place)
        for one in _allowlist_tables(own, place)
    )
    for key in [key for key in own if key not in RULE_KEYS]:
        if key != "allowlist":
            doubts.append((place, name, f"unknown key {key!r}, not used"))
        del own[key]
    own.pop("allowlists", None)
    if "required" in own:
        required = _tables(own, "required", place)
        own["required"] = [_spelled(one, REQUIRED_KEYS) for one in required]
    return Entry(table=own, where=place, allow=allow)


def _global_allowlist(table: Table, book: Book) -> None:
    own = _spelled(table, (*ALLOWLIST_KEYS, "targetRules"))
    targets = _listed(own.pop("targetRules", []), "targetRules", book.where)
    entry = Entry(table=own, where=book.where)
    if not targets:
        book.allow.append(entry)
    book.targeted += [(name, entry) for name in targets]


def _over(theirs: Entry, mine: Entry) -> Entry:
    """Return one rule of two files: what ``mine`` states counts, what adds up is added."""
    table = dict(theirs.table)
    for key, value in mine.table.items():
        known = table.get(key)
        if key in _ADD_UP and isinstance(known, list) and isinstance(value, list):
            table[key] = known + value
        elif value:
            table[key] = value
    return Entry(table=table, where=mine.where, allow=theirs.allow + mine.allow)


def _extend(table: object, where: str) -> Extend:
    if not isinstance(table, Mapping):
        raise ConfigError("extend must be a table", where=where)
    own = _spelled(table, _EXTEND_KEYS)
    try:
        check_types(own, _EXTEND_KEYS)
    except ConfigError as error:
        raise ConfigError(f"extend: {error.message}", where=where) from error
    return Extend(
        use_default=own.get("useDefault") is True,
        path=str(own.get("path", "")),
        url=str(own.get("url", "")),
        disabled=_listed(own.get("disabledRules", []), "disabledRules", where),
    )


def _allowlist_tables(table: Table, where: str) -> list[Table]:
    """Return the allowlists of a table: the old single one, and the list of today."""
    old = table.get("allowlist", [])
    named = {"allowlist": old if isinstance(old, list) else [old]}
    return _tables(named, "allowlist", where) + _tables(table, "allowlists", where)


def _tables(table: Table, key: str, where: str) -> list[Table]:
    values = table.get(key, [])
    if not isinstance(values, list) or not all(isinstance(one, Mapping) for one in values):
        raise ConfigError(f"{key} must be tables", where=where)
    return values


def _listed(value: object, key: str, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ConfigError(f"{key} must be a list of texts", where=where)
    return tuple(value)


def _spelled(table: Table, known: Iterable[str]) -> dict[str, object]:
    """Return a table with its known keys in our spelling; gitleaks reads them in any case."""
    spelling = {key.lower(): key for key in known}
    return {spelling.get(key.lower(), key): value for key, value in table.items()}
