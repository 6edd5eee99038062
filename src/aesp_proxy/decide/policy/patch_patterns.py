r"""``patch_integrity.forbidden_patterns``: what no added line may hold, compiled for RE2.

The dialect is the one of ``secret_leak.patterns``, over bytes. The added lines are
searched as one text, joined by ``\n``, so that a pattern with ``\n`` finds lines that
follow each other; ``^``, ``$``, ``\A`` and ``\z`` stand at the ends of a line, with flag
``m`` or without. A pattern that matches the empty text would refuse every patch, and is
refused itself.

All patterns are tried as one alternation first; which one it was is asked on a match. It
is not an ``re2.Set``, which finds nothing where it runs out of memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.decide.secrets.pattern import translate
from aesp_proxy.decide.secrets.reference import Pattern, compile_re2
from aesp_proxy.errors import ConfigError

_GROUP_PATTERNS_MAX = 50
_ANCHORS = {"^": "(?m:^)", "$": "(?m:$)"}
_ESCAPED_ANCHORS = {"A": "(?m:^)", "z": "(?m:$)"}


class PatchPatterns:
    """The patterns of a policy as one matcher."""

    __slots__ = ("_groups",)

    def __init__(self, patterns: Iterable[Sourced[str]]) -> None:
        each = tuple((item, _expression(item)) for item in patterns)
        starts = range(0, len(each), _GROUP_PATTERNS_MAX)
        self._groups = tuple(_Group(each[at : at + _GROUP_PATTERNS_MAX]) for at in starts)

    def __bool__(self) -> bool:
        return bool(self._groups)

    def find(self, lines: Sequence[tuple[int, bytes]]) -> tuple[Sourced[str], int] | None:
        """Return the first pattern that the lines match and the number of the line.

        ``lines`` are numbers and texts; of a match over several lines the first is told.
        """
        text = b"\n".join(line for _, line in lines)
        for group in self._groups:
            found = group.find(text) if lines else None
            if found is not None:
                item, start = found
                return item, lines[text.count(b"\n", 0, start)][0]
        return None


class _Group:
    """Patterns that are asked all at once where RE2 can hold them as one."""

    __slots__ = ("_all", "_each")

    def __init__(self, expressions: Sequence[tuple[Sourced[str], str]]) -> None:
        self._each = tuple((item, _compiled(text, item)) for item, text in expressions)
        joined = "|".join(f"(?:{text})" for _, text in expressions)
        self._all = _compiled_or_none(joined)

    def find(self, text: bytes) -> tuple[Sourced[str], int] | None:
        if self._all is not None and self._all.search(text) is None:
            return None
        for item, program in self._each:
            match = program.search(text)
            if match is not None:
                return item, match.start()
        return None


def check_patch_pattern(item: Sourced[str]) -> None:
    """Raise ``ConfigError`` with the place when a pattern is not a good patch pattern."""
    program = _compiled(_expression(item), item)
    if program.search(b"") is not None:
        raise _refused(item, "it matches the empty text, so it would refuse every patch")


def _expression(item: Sourced[str]) -> str:
    try:
        return _with_line_anchors(translate(item.value).re2.decode("ascii"))
    except ConfigError as error:
        raise _refused(item, error.message) from None


def _with_line_anchors(expression: str) -> str:
    """Let every anchor outside a class stand at the ends of a line."""
    parts, at, in_class = [], 0, False
    while at < len(expression):
        char = expression[at]
        if char == "\\":
            letter = expression[at + 1 : at + 2]
            parts.append(_ESCAPED_ANCHORS.get(letter, "\\" + letter))
            at += 2
            continue
        if in_class and expression.startswith("[:", at):
            end = expression.index(":]", at) + 2
            parts.append(expression[at:end])
            at = end
            continue
        parts.append(char if in_class else _ANCHORS.get(char, char))
        in_class = char == "[" or (in_class and char != "]")
        at += 1
    return "".join(parts)


def _compiled(expression: str, item: Sourced[str]) -> Pattern:
    try:
        return compile_re2(expression.encode("ascii"))
    except ConfigError as error:
        raise _refused(item, error.message) from None


def _compiled_or_none(expression: str) -> Pattern | None:
    """Compile what may be too much for one program, or name a group twice."""
    try:
        return compile_re2(expression.encode("ascii"))
    except ConfigError:
        return None


def _refused(item: Sourced[str], why: str) -> ConfigError:
    return ConfigError(f"bad patch pattern {item.value[:80]!a}: {why}", where=item.where)
