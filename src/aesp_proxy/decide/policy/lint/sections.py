"""What is told of sections, patterns of text, and the files as they are written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from aesp_proxy.decide.policy.document import Mapping, Scalar, Sequence, at, source_of
from aesp_proxy.decide.policy.lint.checks import told
from aesp_proxy.decide.policy.lint.finding import FindingLevel, LintFinding, Related
from aesp_proxy.decide.policy.lint.subject import Subject
from aesp_proxy.decide.policy.patch_patterns import PatchPatterns
from aesp_proxy.decide.policy.policy import SecretPattern
from aesp_proxy.decide.secrets.literal import literal_chars
from aesp_proxy.decide.secrets.pattern import translate
from aesp_proxy.decide.secrets.reference import compile_re2
from aesp_proxy.errors import ConfigError

_CONTENT_GUARDS: Final = frozenset({"secret_leak", "patch_integrity"})
_EVERYTHING: Final = frozenset({"**", "/**"})
# Lines with nothing in common but that they are ordinary: what matches all matches anything.
_LINES: Final = ("x = 1", "}", "# Read this first", "0", "return total;", "-- end", "\u00e9t\u00e9")
_TEXTS: Final = ("hello", "GET /index.html", '{"total": 42}', "Please read the file again.")


def look_at_sections(subject: Subject) -> Iterator[LintFinding]:
    """Yield what is wrong with guards as a whole, with patterns, and with entries as written."""
    for warning in subject.policy.warnings:
        place, _, message = warning.partition(": ")
        yield told("loader-note", message or warning, place if message else subject.policy.where)
    yield from _off(subject)
    yield from _secrets(subject)
    yield from _patches(subject)
    for file in subject.files:
        yield from _twice(file.tree)


def _off(subject: Subject) -> Iterator[LintFinding]:
    guards = subject.tree.table("guards") if subject.tree is not None else None
    if guards is None:
        return
    for key, section in guards.entries:
        flag = section.get("enabled") if isinstance(section, Mapping) else None
        if isinstance(flag, Scalar) and flag.text.lower() == "false":
            content = key.text in _CONTENT_GUARDS
            effect = "nothing looks for it" if content else "what it says is not asked"
            yield told("guard-off", f"{key.text} is off: {effect}", at(flag),
                       level=FindingLevel.WARNING if content else None)  # fmt: skip


def _secrets(subject: Subject) -> Iterator[LintFinding]:
    secrets = subject.policy.secrets
    for pattern in secrets.patterns:
        yield from _secret(pattern)
    for path in secrets.skip_paths:
        if path.value in _EVERYTHING:
            message = f"{path.value} is every file, so none is searched for secrets"
            yield told("secret-search-skipped", message, subject.at(path.source, path.value))


def _secret(pattern: SecretPattern) -> Iterator[LintFinding]:
    where = pattern.pattern.where
    try:
        expression = translate(pattern.pattern.value).re2
        program = compile_re2(expression)
    except ConfigError:
        return  # the loader says so
    if all(program.search(text.encode()) is not None for text in _TEXTS):
        message = f"{pattern.name} matches ordinary text, such as {_TEXTS[0]}"
        yield told("secret-pattern-broad", message, where)
    elif literal_chars(expression) == 0:
        message = f"{pattern.name} has no text that every match holds"
        yield told("secret-pattern-slow", message, where)


def _patches(subject: Subject) -> Iterator[LintFinding]:
    section = subject.policy.patch
    if section is None:
        return
    for item in section.forbidden_patterns:
        matcher = PatchPatterns((item,))
        if all(matcher.find(((1, line.encode()),)) is not None for line in _LINES):
            message = f"{item.value[:80]} matches any line, such as {_LINES[0]}"
            yield told("patch-pattern-broad", message, subject.at(item.source, item.value))


def _twice(tree: Mapping) -> Iterator[LintFinding]:
    """Yield entries that stand twice in one list of texts."""
    for _, node in tree.entries:
        match node:
            case Mapping():
                yield from _twice(node)
            case Sequence():
                yield from _twice_in(node)
            case Scalar():
                continue


def _twice_in(items: Sequence) -> Iterator[LintFinding]:
    seen: dict[str, Scalar] = {}
    for item in items.items:
        if isinstance(item, Mapping):
            yield from _twice(item)
        if not isinstance(item, Scalar):
            continue
        first = seen.setdefault(item.text, item)
        if first is not item:
            yield told("entry-duplicate", f"{item.text[:80]} stands twice", at(item),
                       Related(source=source_of(first), text="first here"))  # fmt: skip
