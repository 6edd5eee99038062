"""Path globs: compiled once, many of a list together, into few RE2 programs.

``**`` between slashes is any number of directories, also none, so ``/root/**`` covers
``/root`` itself and ``**/.env`` matches at any depth; ``*`` and ``?`` stay inside a
name; ``[a-z]``, ``[!a-z]`` and ``{a,b}`` as in a shell; a backslash makes the next
character literal. A pattern is absolute or begins with ``**``: anything else would
never match and is refused.

Paths are absolute and normalised. Both sides are brought to NFC; what forbids is
compared without case (a case-insensitive file system must not be a way around), what
excepts with case. Matching runs over bytes (UTF-8), so that no name, however it is
encoded, falls between the patterns; ``?`` takes one UTF-8 character or one stray byte.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import re2

from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.errors import ConfigError

_PATTERN_CHARS_MAX = 1024
_BRACE_DEPTH_MAX = 4
# RE2 gives up on an expression of a million parts, slowly, and says so on standard error.
_GROUP_PATTERNS_MAX = 200
_GROUP_CHARS_MAX = 100_000
_MEMORY_BYTES_MAX = 64 * 1024 * 1024

_ONE = r"(?:[\x00-\x2e\x30-\x7f]|[\xc0-\xff][\x80-\xbf]*|[\x80-\xbf])"
_ANY_DIRECTORIES = r"(?s:/.*)?"
_LITERAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-/ ")


class PathGlobs:
    """A list of path patterns as one matcher; ``find`` names the first that matches."""

    __slots__ = ("_fold", "_groups", "_last")

    def __init__(self, patterns: Iterable[Sourced[str]], *, fold: bool) -> None:
        self._fold = fold
        # One file is asked for several times in a row: to be looked up, made, written.
        self._last: tuple[str | None, Sourced[str] | None] = (None, None)
        regexes = [(item, _regex(item, fold=fold)) for item in patterns]
        self._groups = tuple(_Group(some) for some in _grouped(regexes))

    def find(self, path: str) -> Sourced[str] | None:
        """Return the first pattern that matches an absolute, normalised path, else None."""
        if not self._groups:
            return None
        last, found = self._last
        if path != last:
            found = self._first(_path_bytes(path, fold=self._fold))
            self._last = (path, found)
        return found

    def _first(self, data: bytes) -> Sourced[str] | None:
        for group in self._groups:
            found = group.find(data)
            if found is not None:
                return found
        return None


class _Group:
    """Patterns that are asked all at once; which one it was is asked only on a match."""

    __slots__ = ("_all", "_each")

    def __init__(self, regexes: Sequence[tuple[Sourced[str], str]]) -> None:
        self._each = tuple((item, _compiled(regex, item)) for item, regex in regexes)
        joined = "|".join(f"(?:{regex})" for _, regex in regexes)
        self._all = _compiled(joined, regexes[0][0])

    def find(self, data: bytes) -> Sourced[str] | None:
        if self._all.fullmatch(data) is None:
            return None
        for item, program in self._each:
            if program.fullmatch(data) is not None:
                return item
        # Unreachable while one alternation is its alternatives; still a match.
        return self._each[0][0]


def _grouped(regexes: list[tuple[Sourced[str], str]]) -> Iterator[list[tuple[Sourced[str], str]]]:
    group: list[tuple[Sourced[str], str]] = []
    chars = 0
    for entry in regexes:
        chars += len(entry[1])
        if group and (len(group) == _GROUP_PATTERNS_MAX or chars > _GROUP_CHARS_MAX):
            yield group
            group, chars = [], len(entry[1])
        group.append(entry)
    if group:
        yield group


def check_path_glob(item: Sourced[str]) -> None:
    """Raise ``ConfigError`` with the place when a pattern is not a good path glob."""
    _regex(item, fold=True)


def path_regex(item: Sourced[str], *, fold: bool) -> str:
    """Return a pattern as a regular expression for a full match; see ``translate``."""
    return _regex(item, fold=fold)


def path_bytes(path: str, *, fold: bool) -> bytes:
    """Return an absolute path as the bytes that the expressions are matched against."""
    return _path_bytes(path, fold=fold)


def translate(text: str) -> str:
    """Turn one glob into a regular expression over Latin-1 text of UTF-8 bytes.

    Raises ``ValueError`` with the reason. The expression is for a full match against a
    path without trailing slash; the root directory is the empty text.
    """
    regex = ""
    components = _split(text)
    if components[0] not in ("", "**"):
        raise ValueError(_not_absolute(text))
    if components[0] == "":
        components = components[1:]
    if components == [""]:
        return ""
    for component in components:
        if component == "":
            raise ValueError("an empty name between slashes, or a slash at the end (write /**)")
        if component == "**":
            regex += _ANY_DIRECTORIES
        elif component in (".", ".."):
            raise ValueError(f"'{component}' never matches: paths are compared normalised")
        else:
            regex += "/" + _component(component)
    return regex


def _not_absolute(text: str) -> str:
    if text.startswith("~"):
        return "'~' is nobody's home in a policy; write **/ before the rest"
    return "a path pattern begins with / or **/, else it would never match"


def _regex(item: Sourced[str], *, fold: bool) -> str:
    text = item.value
    if not text or len(text) > _PATTERN_CHARS_MAX:
        raise _refused(item, "empty" if not text else f"longer than {_PATTERN_CHARS_MAX}")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise _refused(item, "a control character")
    try:
        return translate(_canonical(text, fold=fold))
    except ValueError as error:
        raise _refused(item, str(error)) from None


def _compiled(regex: str, item: Sourced[str]) -> re2._Regexp[bytes]:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    options.max_mem = _MEMORY_BYTES_MAX
    try:
        return re2.compile(regex.encode("latin-1"), options)
    except re2.error as error:
        raise _refused(item, f"too large to compile ({error})") from None


def _refused(item: Sourced[str], why: str) -> ConfigError:
    return ConfigError(f"bad path pattern {item.value[:80]!a}: {why}", where=item.where)


def _canonical(text: str, *, fold: bool) -> str:
    if text.isascii():
        return text.lower() if fold else text
    text = unicodedata.normalize("NFC", text)
    # Folding may leave NFC (U+0345); a second pass makes it stable for both sides.
    return unicodedata.normalize("NFC", text.casefold()) if fold else text


def _path_bytes(path: str, *, fold: bool) -> bytes:
    if path == "/":
        return b""
    return _canonical(path, fold=fold).encode("utf-8", "surrogatepass")


def _split(text: str) -> list[str]:
    """Split at slashes outside brackets; a slash inside brackets or braces is refused."""
    parts, current, index, depth = [], "", 0, 0
    while index < len(text):
        character = text[index]
        if character == "\\":
            current += text[index : index + 2]
            index += 2
            continue
        depth += (character == "{") - (character == "}" and depth > 0)
        if character == "/" and depth == 0:
            parts.append(current)
            current = ""
        elif character == "/":
            raise ValueError("a slash inside braces; write two patterns")
        else:
            current += character
        index += 1
    return [*parts, current]


def _component(text: str) -> str:
    if "**" in text:
        raise ValueError("'**' stands alone between slashes; use '*' inside a name")
    regex, end = _sequence(text, 0, 0)
    if end != len(text):
        raise ValueError("a '}' without '{'")
    return regex


def _sequence(text: str, index: int, depth: int) -> tuple[str, int]:
    """Translate until the end, or inside braces until ``,`` or ``}``."""
    regex = ""
    while index < len(text):
        character = text[index]
        if character == "}" or (character == "," and depth):
            break
        if character == "{":
            piece, index = _braces(text, index + 1, depth + 1)
        elif character == "[":
            piece, index = _class(text, index + 1)
        elif character == "\\":
            if index + 1 == len(text):
                raise ValueError("a backslash at the end")
            piece, index = _literal(text[index + 1]), index + 2
        else:
            piece = {"*": "[^/]*", "?": _ONE}.get(character) or _literal(character)
            index += 1
        regex += piece
    return regex, index


def _braces(text: str, index: int, depth: int) -> tuple[str, int]:
    if depth > _BRACE_DEPTH_MAX:
        raise ValueError(f"braces nested deeper than {_BRACE_DEPTH_MAX}")
    alternatives = []
    while True:
        piece, index = _sequence(text, index, depth)
        alternatives.append(piece)
        if index == len(text):
            raise ValueError("a '{' that is not closed")
        index += 1
        if text[index - 1] == "}":
            return f"(?:{'|'.join(alternatives)})", index


def _class(text: str, index: int) -> tuple[str, int]:
    """Translate ``[...]``, ASCII only: a class of bytes cannot hold half a character."""
    negated = text[index : index + 1] in ("!", "^")
    index += negated
    end = text.find("]", index + 1)
    if end < 0:
        raise ValueError("a '[' that is not closed")
    body = text[index:end]
    if not body.isascii() or "/" in body or "\\" in body or "[" in body:
        raise ValueError("brackets hold ASCII characters only, and no slash, bracket or backslash")
    members = _members(body)
    if negated:
        return f"(?:[^/\\x80-\\xff{members}]|[\\xc0-\\xff][\\x80-\\xbf]*|[\\x80-\\xbf])", end + 1
    return f"[{members}]", end + 1


def _members(body: str) -> str:
    members, index = "", 0
    while index < len(body):
        first, last = body[index], body[index]
        if index + 2 < len(body) and body[index + 1] == "-":
            last = body[index + 2]
            index += 2
        index += 1
        if first > last:
            raise ValueError("a range in brackets that runs backwards")
        if first <= "/" <= last:
            raise ValueError("a range in brackets that holds a slash")
        members += f"\\x{ord(first):02x}-\\x{ord(last):02x}"
    return members


def _literal(character: str) -> str:
    if character in _LITERAL:
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8"))
