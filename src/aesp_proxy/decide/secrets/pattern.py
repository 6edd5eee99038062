r"""Read one regular expression so that Hyperscan and RE2 agree on every byte.

Rules:

- Input is the dialect of gitleaks (Go's RE2 syntax). Hyperscan reads PCRE
  syntax; where the two mean different things by the same text, the text is
  rewritten for one of them or refused with the reason. Nothing is guessed.
- Both results are ASCII and free of NUL: the wheel cuts a pattern at NUL.
- Both engines work on bytes. A character outside ASCII stands for its UTF-8
  bytes, and is refused inside a class, where it would mean one byte of them.

What is rewritten: ``\s`` (PCRE adds VT), ``\v`` (a class in PCRE, VT in RE2),
``$`` (PCRE also matches before a last newline); and the end of the data, behind
which Hyperscan is given a few newlines (``hyperscan`` says why). Sources: RE2's syntax page,
pcre2pattern(3), Hyperscan's "Compiling Patterns".
"""

from __future__ import annotations

from dataclasses import dataclass

from aesp_proxy.errors import ConfigError

PATTERN_CHARS_MAX = 8192
GROUPS_DEEP_MAX = 100
"""Groups in groups: what reads them calls itself for each."""
END_PAD_BYTES = 2
"""Newlines that may stand behind the end of the data when Hyperscan looks for that end."""

_SPACE = r"\t\n\f\r\x20"
_NOT_SPACE = r"\x00-\x08\x0b\x0e-\x1f\x21-\xff"
_END = rf"(?:\n{{0,{END_PAD_BYTES}}}\z)"
_SAME_IN_BOTH = frozenset("bBdDwWnrtfaA")
_GROUP_FLAGS = frozenset("ims-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialects:
    """One expression in the two dialects, as ASCII bytes."""

    hyperscan: bytes
    re2: bytes


def translate(pattern: str) -> Dialects:
    """Return ``pattern`` for Hyperscan and for RE2.

    ConfigError with the reason when a construct is not in the shared dialect.
    Whether the engines take the result is asked elsewhere.
    """
    if not pattern:
        raise ConfigError("the regex is empty")
    if len(pattern) > PATTERN_CHARS_MAX:
        raise ConfigError(f"the regex is longer than {PATTERN_CHARS_MAX} characters")
    reader = _Reader(pattern)
    reader.read()
    return Dialects(
        hyperscan="".join(reader.hyperscan).encode("ascii"),
        re2="".join(reader.re2).encode("ascii"),
    )


def cut_tail(dialects: Dialects) -> Dialects:
    """Return the expression without the unbounded part at its end.

    ``X+`` becomes ``X``, ``X*`` becomes ``X?`` (Hyperscan knows no ``{0}``),
    ``X{n,}`` and ``X{n,m}`` become ``X{n}``. Every match of the
    whole begins with a match of the rest, so the earliest end of a match is the
    same, and one long token is one hit instead of one a byte.
    """
    return Dialects(hyperscan=_cut(dialects.hyperscan), re2=_cut(dialects.re2))


def _cut(expression: bytes) -> bytes:
    body = expression.rstrip(b")")
    if _escaped(body, len(body)):
        return expression
    closers = expression[len(body) :]
    if body[-1:] == b"?" and body[-2:-1] in b"*+}" and not _escaped(body, len(body) - 2):
        body = body[:-1]
    if _escaped(body, len(body) - 1):
        return expression
    if body.endswith(b"+"):
        return _cut(body[:-1] + closers)
    if body.endswith(b"*"):
        return body[:-1] + b"?" + closers
    if body.endswith(b"}"):
        start = body.rfind(b"{")
        least, comma, most = body[start + 1 : -1].partition(b",")
        counts = least.isdigit() and comma and (not most or most.isdigit())
        if counts and not _escaped(body, start):
            kept = body[:start] + b"{" + least + b"}" if int(least) else body[:start] + b"?"
            return kept + closers
    return expression


def _escaped(expression: bytes, at: int) -> bool:
    """Tell whether the byte at ``at`` stands behind an odd number of backslashes."""
    before = expression[:at]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1


class _Reader:
    """One walk from left to right; ``at`` is the next character."""

    __slots__ = ("at", "deep", "hyperscan", "multiline", "re2", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.deep = 0
        self.multiline = False
        self.hyperscan: list[str] = []
        self.re2: list[str] = []

    def read(self) -> None:
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == "\\":
                self._escape(in_class=False)
            elif char == "[":
                self._class()
            elif char == "(":
                self.deep += 1
                if self.deep > GROUPS_DEEP_MAX:
                    raise ConfigError(f"groups stand in groups more than {GROUPS_DEEP_MAX} deep")
                self._group()
            elif char == ")":
                self.deep -= 1
                self._emit(")")
            elif char == "$":
                self._emit("$", hyperscan="$" if self.multiline else _END)
            else:
                self._emit(_plain(char))

    def _emit(self, re2: str, *, hyperscan: str | None = None, take: int = 1) -> None:
        self.re2.append(re2)
        self.hyperscan.append(re2 if hyperscan is None else hyperscan)
        self.at += take

    def _peek(self, offset: int = 0) -> str:
        return self.text[self.at + offset : self.at + offset + 1]

    def _class(self) -> None:
        self._emit("[")
        if self._peek() == "^":
            self._emit("^")
        if self._peek() == "]":
            self._emit(r"\]")
        while (char := self._peek()) != "]":
            if not char:
                raise ConfigError("a character class is not closed")
            if char == "\\":
                self._escape(in_class=True)
            elif char == "[":
                self._posix_or_bracket()
            elif not char.isascii():
                raise ConfigError(f"a class cannot hold {char!r}: only ASCII or \\xHH")
            else:
                self._emit(_plain(char))
        self._emit("]")

    def _posix_or_bracket(self) -> None:
        if self._peek(1) != ":":
            self._emit(r"\[")
            return
        end = self.text.find(":]", self.at)
        if end < 0:
            raise ConfigError("a POSIX class is not closed")
        name = self.text[self.at : end + 2]
        if name.strip("[:^]") == "space":
            raise ConfigError(r"[:space:] differs between the engines: write \s")
        self._emit(name, take=len(name))

    def _escape(self, *, in_class: bool) -> None:
        char = self._peek(1)
        if not char:
            raise ConfigError("the regex ends in a backslash")
        if char == "s":
            self._emit(_SPACE if in_class else f"[{_SPACE}]", take=2)
        elif char == "S":
            self._emit(_NOT_SPACE if in_class else f"[^{_SPACE}]", take=2)
        elif char == "v":
            self._emit(r"\x0b", take=2)
        elif char == "z" and not in_class:
            self._emit(r"\z", hyperscan=_END, take=2)
        elif char == "x":
            self._hex()
        elif char in _SAME_IN_BOTH or (not char.isalnum() and char.isascii()):
            self._emit("\\" + char if char.isprintable() else _plain(char), take=2)
        else:
            raise ConfigError(f"{chr(92) + char!a} is not in the dialect that both engines share")

    def _hex(self) -> None:
        body = self.text[self.at + 2 : self.at + 4]
        taken = 4
        if body.startswith("{"):
            end = self.text.find("}", self.at)
            body = self.text[self.at + 3 : end] if end > 0 else ""
            taken = end + 1 - self.at
        digits = body.strip("0123456789abcdefABCDEF")
        if digits or not body or int(body, 16) > 0xFF:
            raise ConfigError(r"\x needs two hexadecimal digits (a byte)")
        self._emit(f"\\x{int(body, 16):02x}", take=taken)

    def _group(self) -> None:
        if self._peek(1) == "*":
            raise ConfigError("(* is not in the dialect that both engines share")
        if self._peek(1) != "?":
            self._emit("(")
            return
        rest = self.text[self.at + 2 : self.at + 12]
        if rest.startswith(("=", "!", "<=", "<!")):
            raise ConfigError("lookaround is not supported: neither engine has it")
        if rest.startswith(("P<", "<")):
            self._emit("(?P<", take=4 if rest.startswith("P") else 3)
            return
        flags = rest.split(":", 1)[0].split(")", 1)[0]
        if not set(flags) <= _GROUP_FLAGS:
            raise ConfigError(f"{'(?' + flags[:6]!a} is not in the dialect that both engines share")
        if "m" in flags:
            if self.at:
                raise ConfigError("(?m) must stand at the very start")
            self.multiline = "m" in flags.split("-", 1)[0]
        self._emit("(?" + flags, take=2 + len(flags))


def _plain(char: str) -> str:
    """Return one literal character, escaped where it is not printable ASCII."""
    if char == "\0":
        raise ConfigError(r"the regex holds a NUL: write \x00")
    if char.isascii():
        return char if char.isprintable() else f"\\x{ord(char):02x}"
    return "(?:" + "".join(f"\\x{byte:02x}" for byte in char.encode()) + ")"
