"""Tool rules: names of tools, of any server or of one.

``read_file`` names a tool of any server, ``files/read_file`` the tool of one server,
``*`` any tool at all; ``*`` and ``?`` stand for characters of a name. In a list that
allows they do not cross the slash and case counts; in a list that refuses they match
without case and both ways of reading ``a/b`` (server and tool, or a tool's own name).
"""

from __future__ import annotations

from collections.abc import Iterable

import re2

from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.errors import ConfigError

_RULE_CHARS_MAX = 512
_LITERAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-/")


class ToolIndex:
    """A list of tool rules: exact names in a dictionary, patterns in RE2."""

    __slots__ = ("_exact", "_patterns", "_refuses")

    def __init__(self, rules: Iterable[Sourced[str]], *, refuses: bool) -> None:
        self._refuses = refuses
        self._exact: dict[str, Sourced[str]] = {}
        self._patterns: list[tuple[Sourced[str], re2._Regexp[bytes]]] = []
        for rule in rules:
            text = rule.value.casefold() if refuses else rule.value
            if "*" in text or "?" in text:
                self._patterns.append((rule, _pattern(text, rule, crossing=refuses)))
            else:
                self._exact.setdefault(text, rule)

    def find(self, server: str, name: str) -> Sourced[str] | None:
        """Return a rule that names the tool, exact ones first; None for none."""
        for spelling in self._spellings(server, name):
            found = self._exact.get(spelling)
            if found is not None:
                return found
        for rule, pattern in self._patterns:
            for spelling in self._spellings(server, name):
                if pattern.fullmatch(spelling.encode("utf-8", "surrogatepass")) is not None:
                    return rule
        return None

    def _spellings(self, server: str, name: str) -> tuple[str, ...]:
        full = f"{server}/{name}" if server else name
        if self._refuses:
            return (name.casefold(), full.casefold())
        # A tool whose own name holds a slash must not pass for another server's tool.
        return (full,) if "/" in name else (name, full)


def check_tool_rule(rule: Sourced[str]) -> None:
    """Raise ``ConfigError`` with the place when an entry is not a good tool rule."""
    text = rule.value
    if not text or len(text) > _RULE_CHARS_MAX:
        raise _refused(rule, "empty" if not text else f"longer than {_RULE_CHARS_MAX} characters")
    if any(character.isspace() or not character.isprintable() for character in text):
        raise _refused(rule, "a space or a control character")
    if text.count("/") > 1 or text.startswith("/") or text.endswith("/"):
        raise _refused(rule, "write TOOL or SERVER/TOOL")


def _pattern(text: str, rule: Sourced[str], *, crossing: bool) -> re2._Regexp[bytes]:
    if text == "*":
        crossing = True
    many, one = (".*", ".") if crossing else ("[^/]*", "[^/]")
    wild = {"*": many, "?": one}
    regex = "".join(wild.get(character) or _literal(character) for character in text)
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    options.dot_nl = True
    try:
        return re2.compile(regex.encode("latin-1"), options)
    except re2.error as error:
        raise _refused(rule, f"too large to compile ({error})") from None


def _literal(character: str) -> str:
    if character in _LITERAL:
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))


def _refused(rule: Sourced[str], why: str) -> ConfigError:
    return ConfigError(f"bad tool pattern {rule.value[:80]!a}: {why}", where=rule.where)
