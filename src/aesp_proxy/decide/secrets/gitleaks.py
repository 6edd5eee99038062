"""Read a rule file of gitleaks as it is: every key of its format, old forms included.

Such a file was written for another program, so it is taken rule by rule: what cannot
be used is left out and told in one line a rule, or, with ``strict``, refuses the file.

Rules:

- What loosens and cannot be read loosens nothing: the allowlist is dropped, the rule stays.
- A key that is not known is told and not used; what is known and cannot be read takes
  its rule along.
- Keys are taken in any case, as gitleaks does; a key of ours (``severity``, ``validate``)
  works here too.

Sources: gitleaks' README (8.30), "Configuration" and "Composite Rules"; its
``config/config.go`` for the forms from before 8.25 (``[allowlist]``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aesp_proxy.decide.secrets.gitleaks_tables import Book, Entry, read_book
from aesp_proxy.decide.secrets.rule import Allowlist, Rule, RuleSet
from aesp_proxy.decide.secrets.rule_set import left_out, with_neighbours
from aesp_proxy.decide.secrets.rule_table import read_allowlist, read_rule
from aesp_proxy.decide.secrets.rules import RULES_MAX
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Severity

EXTENDS_MAX = 2
"""How many files may extend one another in a row, as in gitleaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a file is read.

    ``severity`` is for rules that state none. ``strict`` refuses what would be left
    out. ``read`` gives the text of a file that another extends, by its path as
    written; ``default`` is texts and names of what stands for gitleaks' own rules
    (``useDefault``). Without them, a file that extends is refused.
    """

    severity: Severity = Severity.ERROR
    strict: bool = False
    read: Callable[[str], str] | None = None
    default: Sequence[tuple[str, str]] = ()


def parse_gitleaks(text: str, where: str, options: Options | None = None) -> RuleSet:
    """Return the rules of a gitleaks file; ``where`` is its name for messages.

    Each of ``warnings`` is one line: where, which rule, and why it was not taken.
    Whether Hyperscan takes a regex is asked by ``rule_set.without_refused``.
    ConfigError when the file is not TOML, extends what is not there or gives no rule,
    and with ``strict`` for the first thing that is not taken.
    """
    options = options or Options()
    book = _whole_book(text, where, options, EXTENDS_MAX)
    found = _Reader(options).read(book)
    if not found.rules:
        why = f": {found.warnings[0]}" if found.warnings else ""
        raise ConfigError(f"the file gives no rule{why}", where=where)
    return found


def _whole_book(text: str, where: str, options: Options, extends: int) -> Book:
    """Return a file's tables upon those of the files that it extends."""
    book = read_book(text, where)
    extend = book.extend
    if extend.url:
        raise ConfigError("extend.url is not followed: fetch the file and extend its path",
                          where=where)  # fmt: skip
    if extends == 0 and (extend.path or extend.use_default):
        raise ConfigError(f"more than {EXTENDS_MAX} files extend one another", where=where)
    for known, parent_where in options.default if extend.use_default else ():
        book.stand_upon(read_book(known, parent_where))
    if extend.use_default and not options.default:
        raise ConfigError("extend.useDefault: there are no default rules here", where=where)
    if extend.path:
        if options.read is None:
            raise ConfigError("extend.path: other files are not read here", where=where)
        parent = options.read(extend.path)
        book.stand_upon(_whole_book(parent, extend.path, options, extends - 1))
    book.disable()
    book.aim()
    return book


class _Reader:
    """The tables of a book on their way to rules; ``warnings`` grow."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.warnings: list[str] = []

    def read(self, book: Book) -> RuleSet:
        for where, name, why in book.doubts:
            self._leave_out(where, name, why)
        if len(book.rules) > RULES_MAX:
            raise ConfigError(f"more than {RULES_MAX} rules", where=book.where)
        rules = [rule for entry in book.rules.values() if (rule := self._rule(entry)) is not None]
        allow = tuple(
            allowlist
            for entry in book.allow
            if (allowlist := self._allowlist(entry, "")) is not None
        )
        found = RuleSet(rules=tuple(rules), allow=allow, warnings=tuple(self.warnings))
        return with_neighbours(found, strict=self.options.strict)

    def _rule(self, entry: Entry) -> Rule | None:
        """Return a rule, its allowlists one by one, or None with a line that says why."""
        name = str(entry.table.get("id", ""))
        allow = [
            allowlist
            for one in entry.allow
            if (allowlist := self._allowlist(one, name)) is not None
        ]
        try:
            rule = read_rule(entry.table, entry.where, severity=self.options.severity, allow=allow)
        except ConfigError as error:
            self._leave_out(entry.where, name, error.message)
            return None
        return rule

    def _allowlist(self, entry: Entry, name: str) -> Allowlist | None:
        try:
            return read_allowlist(entry.table)
        except ConfigError as error:
            self._leave_out(entry.where, name, f"an allowlist is not used: {error.message}")
            return None

    def _leave_out(self, where: str, name: str, why: str) -> None:
        line = left_out(where, name, why)
        if self.options.strict:
            raise ConfigError(line)
        self.warnings.append(line)
