"""Say what a literal looks like in each wrapping: expressions that open a view.

Rules:

- A form is what *every* text that holds the literal shows in that wrapping, whatever
  stands before and behind it. It may be shorter than the literal, never a guess.
- Forms are ASCII expressions without NUL, as Hyperscan takes them.
- A form opens a view and nothing more: what the view shows is matched by the rules.
"""

from __future__ import annotations

import codecs
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from aesp_proxy.decide.secrets.anchors import Literal, distinct
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.views import events
from aesp_proxy.decide.secrets.views.packed import LOOSE, MAGICS

FORMS_EDITION = 20
"""Counted up with every change of what a literal's forms are: kept databases go by it."""

FORM_CHARS_MIN = 3
_DIGITS_MAX = 8
"""So many digits are rare enough, and the engine compares eight bytes at once."""
_RARE_CHARS_MIN = 4
"""A turned or shifted literal shorter than this also demands a token's length beside it."""
_TOKEN = b"[A-Za-z0-9_\\-]{20}"
_TOKEN_BEGUN = b"[A-Za-z0-9_\\-]{12}"
_SPACED_CHARS = 3
_HEX_CHARS = 4
_WIDE_CHARS = 5
_SPACES = (b" ", b".", b"-", b",", b'","', b'", "', b"\n", b"\\n")
_BETWEEN_NUMBERS = (b", ", b",", b" ")
_HEX_SPACES = (b":", b"-", b", 0x", b",0x")
_LITERAL_CHARS = b"\\x0123456789abcdef"
_BASE85 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_ASCII85 = "".join(chr(33 + digit) for digit in range(85))
_BASE32 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """An expression that says where a view of this name is worth opening."""

    view: str
    expression: bytes

    @property
    def is_literal(self) -> bool:
        """Whether it is one text, in any case or as it is."""
        return not self.expression.removeprefix(b"(?i)").translate(None, _LITERAL_CHARS)


def gates_of(literals: Iterable[Literal]) -> tuple[Gate, ...]:
    """Return the gates for ``literals`` in all wrappings, each once, in a fixed order."""
    found: dict[tuple[str, bytes], None] = dict.fromkeys((*_ALWAYS, *_packed()))
    for literal in literals:
        is_row = len(set(literal.text)) == 1  # it would open at every byte of a longer row
        if not is_row:
            found.update(dict.fromkeys(_beside(literal)))
        is_plain = literal.any_case or is_row
        for view, forms in _FORMS if is_plain else (*_FORMS, *_FORMS_OF_TOKENS):
            for text in _cases(literal):
                found.update(dict.fromkeys((view, form) for form in forms(text)))
    return tuple(Gate(view=view, expression=form) for view, form in found)


def gates_for(rules: Iterable[Rule]) -> tuple[Gate, ...]:
    """Return the gates for what leads to ``rules``."""
    return gates_of(distinct(rules))


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleGates:
    """The gates of rules, not made yet; ``key`` says which they will be."""

    key: bytes
    rules: tuple[Rule, ...] = field(compare=False)

    def make(self) -> tuple[Gate, ...]:
        """Return the gates (some 20,000: 0.4 s)."""
        return gates_for(self.rules)


def gates_of_rules(rules: Iterable[Rule]) -> RuleGates:
    """Return the gates for what leads to ``rules``, to be made beside other work."""
    rules = tuple(rules)
    return RuleGates(key=gates_key(rules), rules=rules)


def gates_key(rules: Iterable[Rule]) -> bytes:
    """Return what ``gates_for`` depends on beside the expressions of ``rules``."""
    words = (word for rule in rules for word in (*rule.keywords, b""))
    return b"\n".join((str(FORMS_EDITION).encode(), *words))


def _cases(literal: Literal) -> tuple[bytes, ...]:
    text = literal.text
    if not literal.any_case:
        return (text,)
    return tuple(dict.fromkeys((text.lower(), text.upper(), text.capitalize())))


def quoted(text: bytes) -> bytes:
    """Return an expression for exactly ``text``; every byte is written in hex."""
    return b"".join(b"\\x%02x" % byte for byte in text)


def _digits(text: bytes, before_bytes: int, width: int, alphabet: bytes) -> bytes:
    """Return an expression for ``text`` in base 2**width, empty when it says too little.

    ``before_bytes`` stand between the edge of a digit and ``text``. Digits that are known
    in part, at both ends, are classes; they are only written where the rest is short.
    """
    number = int.from_bytes(text, "big")
    total = 8 * len(text)
    at = -8 * before_bytes % width
    first, whole = at, []
    while at + width <= total:
        whole.append((number >> (total - at - width)) & ((1 << width) - 1))
        at += width
    if len(whole) < FORM_CHARS_MIN:
        return b""
    form = quoted(bytes(alphabet[value] for value in whole[:_DIGITS_MAX]))
    if len(whole) > FORM_CHARS_MIN + 1:
        return form
    if first:
        low = number >> (total - first)
        form = _class(alphabet[low :: 1 << first]) + form
    if at < total:
        unknown = width - (total - at)
        high = (number & ((1 << (total - at)) - 1)) << unknown
        form += _class(alphabet[high : high + (1 << unknown)])
    return form


def _class(letters: bytes) -> bytes:
    return b"[" + quoted(letters) + b"]"


def _base64(text: bytes) -> Iterator[bytes]:
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    for before in range(3):
        for marks in (b"+/", b"-_"):
            yield from _some(_digits(text, before, 6, letters + marks))


def _base32(text: bytes) -> Iterator[bytes]:
    for before in range(5):
        form = _digits(text, before, 5, _BASE32)
        if form:
            yield b"(?i)" + form


def _base64_wide(text: bytes) -> Iterator[bytes]:
    """Return the base64 forms of UTF-16, as PowerShell takes commands."""
    return _base64(b"\0".join(bytes((byte,)) for byte in text[:_WIDE_CHARS]))


def _hex(text: bytes) -> Iterator[bytes]:
    for space in (b"", b" "):
        yield b"(?i)" + quoted(space.join(b"%02x" % byte for byte in text[:_HEX_CHARS]))


def _hex_spaced(text: bytes) -> Iterator[bytes]:
    for space in _HEX_SPACES:
        yield b"(?i)" + quoted(space.join(b"%02x" % byte for byte in text[:_HEX_CHARS]))


def _quoted_printable(text: bytes) -> Iterator[bytes]:
    yield b"(?i)" + quoted(b"".join(b"=%02x" % byte for byte in text[:_HEX_CHARS]))


def _percent(text: bytes) -> Iterator[bytes]:
    """Return the form in a URL of what holds marks that are escaped there (RFC 3986 section 2).

    Behind an escaped colon or equals sign there is a gate for whatever follows.
    """
    escaped = urllib.parse.quote_from_bytes(text, safe="").encode()
    if escaped != text and text.translate(None, b":=") == text:
        yield b"(?i)" + quoted(escaped)


def _plus_for_blank(text: bytes) -> Iterator[bytes]:
    if b" " in text:
        yield quoted(text.replace(b" ", b"+"))


def _base85(alphabet: str) -> Callable[[bytes], Iterator[bytes]]:
    def forms(text: bytes) -> Iterator[bytes]:
        for start in range(4):
            groups = [text[at : at + 4] for at in range(start, len(text) - 3, 4)]
            if groups:
                yield quoted("".join(_group(group, alphabet) for group in groups).encode())

    return forms


def _group(group: bytes, alphabet: str) -> str:
    number = int.from_bytes(group, "big")
    return "".join(alphabet[number // 85**power % 85] for power in range(4, -1, -1))


def _wide(text: bytes) -> Iterator[bytes]:
    for zeros in (b"\0", b"\0\0\0"):
        yield quoted(zeros.join(bytes((byte,)) for byte in text))


def _reversed(text: bytes) -> Iterator[bytes]:
    before = b"" if len(text) >= _RARE_CHARS_MIN and is_rare(text) else _TOKEN
    yield before + quoted(text[::-1])


def _rot13(text: bytes) -> Iterator[bytes]:
    turned = codecs.encode(text.decode("latin-1"), "rot13").encode("latin-1")
    if turned != text:
        rare = len(text) >= _RARE_CHARS_MIN and is_rare(text)
        yield quoted(turned) + (b"" if rare else _TOKEN)


def _spaced(text: bytes) -> Iterator[bytes]:
    few = text[:_SPACED_CHARS]
    few = text[: _SPACED_CHARS + 1] if few.islower() and few.isalpha() else few
    for space in _SPACES if len(set(few)) > 1 else ():
        yield quoted(space.join(bytes((byte,)) for byte in few))


def _numbers(text: bytes) -> Iterator[bytes]:
    """Return the forms of a list of decimal numbers, as JSON and programs write bytes."""
    for space in _BETWEEN_NUMBERS:
        yield quoted(space.join(b"%d" % byte for byte in text[:_SPACED_CHARS]))


def _beside(literal: Literal) -> Iterator[tuple[str, bytes]]:
    """Return what shows that something stands before the literal, or soon behind it."""
    text = quoted(literal.text)
    if literal.any_case:
        return
    if is_rare(literal.text):
        yield BROKEN, text
        return
    rest, few = (b"", b"") if len(literal.text) >= _RARE_CHARS_MIN else (_TOKEN, _TOKEN_BEGUN)
    yield "form", rb"\+" + text + rest
    yield "message", rb"[\x0a\x12\x1a][0-9A-Za-z]" + text + few


def is_rare(text: bytes) -> bool:
    """Tell whether a literal is no word: it may be looked at wherever it stands."""
    marked = bool(text.translate(None, _WORD_LETTERS))
    return len(text) > FORM_CHARS_MIN and marked and text.rstrip(b"_-") not in _WORDS


_WORD_LETTERS = b"abcdefghijklmnopqrstuvwxyz:/."
_WORDS = frozenset(
    (
        b"access",
        b"api",
        b"app",
        b"auth",
        b"client",
        b"key",
        b"pass",
        b"private",
        b"secret",
        b"token",
    )
)
BROKEN = "broken"
"""Not a view: the literal itself, to ask whether what follows it is interrupted."""

_UNSEEN_ESCAPED = (
    rb"200[b-fB-F]|20[26][0-9a-fA-F]|[fF][eE](?:[fF]{2}|0[0-9a-fA-F])|00[aA][dD]|03[0-6][0-9a-fA-F]"
    rb"|[fF]{2}[0-5][0-9a-fA-F]"
)
_HEX_DIGIT = rb"[0-9a-fA-F]"
_NO_HEX_DIGIT = rb"[^0-9a-fA-F]"
_LETTER_BEFORE = (
    rb"(?:(?:^|[^\\])[G-Zg-z_]|(?:^|[^0-9a-fA-F\\])" + _HEX_DIGIT
    + b"|(?:^|" + _NO_HEX_DIGIT + b")" + _HEX_DIGIT + b"{2,3}"
    + b"|(?:^|[^u])" + _HEX_DIGIT + rb"{4}|(?:^|[^\\])u" + _HEX_DIGIT + b"{4})"
)  # fmt: skip
r"""A letter or digit that stands there itself: not the last of another ``\uHHHH``, as in every
text of another script that JSON has escaped."""
_ALNUM = rb"(?:3[0-9]|[46][1-9a-fA-F]|[57][0-9aA]|5[fF]|2[dD])"
_BEHIND_EQUALS = rb"%3[aAdD](?:%2[0127]|%5[cC]|\+){0,4}[A-Za-z0-9_.\-]{12}"
_ALWAYS: tuple[tuple[str, bytes], ...] = (
    ("escapes", rb"\\[uU](?:0000)?00" + _ALNUM),
    ("escapes", rb"\\u\{0{0,4}" + _ALNUM + rb"\}"),
    ("escapes", rb"\\x" + _ALNUM),
    ("escapes", rb"\\(?:06[0-7]|07[01]|1[0-7][0-7])"),
    ("percent", rb"%(?:25|" + _ALNUM + rb")"),
    ("percent", b"%3[aA]%2[fF]%2[fF]"),
    ("percent", rb"[A-Za-z0-9]{12}%(?:2[1bBfF]|3[dD])"),
    ("percent", _BEHIND_EQUALS),
    (
        "entities",
        rb"&#(?:[xX]0{0,4}"
        + _ALNUM
        + _NO_HEX_DIGIT
        + rb"|0{0,4}(?:4[5-9]|5[0-7]|6[5-9]|[7-9][0-9]|1[0-2][0-9])[^0-9])",
    ),
    ("entities", rb"&(?:quot|apos|#34|#39|#[xX]2[27]);[A-Za-z0-9_+/=.\-]{12}"),
    ("form", _BEHIND_EQUALS),
    ("quoted-printable", rb"[A-Za-z0-9_.\-]=\r?\n[A-Za-z0-9_.\-]"),
    ("quoted-printable", rb"=3D[\"']?[A-Za-z0-9_\-]{12}"),
    ("escapes", _LETTER_BEFORE + rb"\\u(?:" + _UNSEEN_ESCAPED + b")"),
    ("escapes", _LETTER_BEFORE + rb"\\u0(?:4[0-5]|3[89a-cA-C])[0-9a-fA-F]"),
    ("escapes", rb"\\u[dD]835\\u"),
    ("escapes", rb"(?:\\u[fF]{2}[0-5][0-9a-fA-F]){4}"),
    ("escapes", rb"(?:\\u28[2-7][0-9a-fA-F]|\\u[dD][bB]40\\u[dD][cC][2-7][0-9a-fA-F]){4}"),
    (
        "joined",
        rb"[A-Za-z0-9_+/=.\-](?:\" ?\+ ?\"|' ?\+ ?'|` ?\+ ?`|\\\" ?\+ ?\\\")[A-Za-z0-9_+/=.\-]",
    ),
    *(("events", form) for form in events.FORMS),
)


def _packed() -> Iterator[tuple[str, bytes]]:
    """Return the first bytes of what is packed, as they are and in base64 and hex."""
    for magic in MAGICS:
        yield magic.kind, quoted(magic.start)
        yield "base64", _digits(magic.start, 0, 6, _BASE64)
        yield "hex", b"(?i)" + quoted(magic.start[:_HEX_CHARS].hex().encode())
    for magic in LOOSE:
        if not magic.is_wide:
            yield magic.kind, quoted(magic.start) + magic.behind


_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def _some(form: bytes) -> Iterator[bytes]:
    if form:
        yield form


_Forms = tuple[tuple[str, Callable[[bytes], Iterator[bytes]]], ...]
_FORMS: _Forms = (
    ("base64", _base64),
    ("base32", _base32),
    ("hex", _hex),
    ("quoted-printable", _quoted_printable),
    ("utf-16", _wide),
)
_FORMS_OF_TOKENS: _Forms = (
    ("percent", _percent),
    ("form", _plus_for_blank),
    ("base64", _base64_wide),
    ("hex", _hex_spaced),
    ("ascii85", _base85(_ASCII85)),
    ("base85", _base85(_BASE85)),
    ("z85", _base85(_Z85)),
    ("reversed", _reversed),
    ("rot13", _rot13),
    ("spaced", _spaced),
    ("numbers", _numbers),
)
"""Not for names beside a value, which are common words in any case: too many, for too little."""

_WORD = rb"[A-Za-z0-9_\-]"
UNSEEN = (
    rb"(?:\xe2\x80[\x8b-\x8f\xaa-\xae]|\xe2\x81[\xa0-\xaf]|\xef\xbb\xbf|\xc2\xad|\xcd[\x80-\xaf]"
    rb"|\xcc[\x80-\xbf]|\xe1\xa0[\x8b-\x8f]|\xef\xb8[\x80-\x8f]|\xf3\xa0[\x80-\x87][\x80-\xbf])"
)
"""Characters that leave no mark: formats, joiners, combining marks, variation selectors."""
_FULL_WIDTH = rb"(?:\xef\xbc[\x90-\x99\xa1-\xba\xbf]|\xef\xbd[\x81-\x9a])"
_ALIKE = (
    rb"(?:\xd0[\x85\x86\x88\x90\x92\x95\x9a\x9c-\xa2\xa5\xb0\xb5\xba\xbe]"
    rb"|\xd1[\x80\x81\x83\x85\x95\x96\x98]|\xd2[\xae\xbb]|\xd4[\x81\x9a-\x9d]"
    rb"|\xce[\x91\x92\x95-\x97\x99\x9a\x9c\x9d\x9f\xa1\xa4\xa5\xa7\xb1\xb9\xba\xbd\xbf]"
    rb"|\xcf[\x81\x84\x85]|\xd5[\x8d\x95\xb8\xbd]|\xd6\x85|\xea\x93[\x90-\xbf])"
)
WIDE_GATES = tuple(
    Gate(view=view, expression=expression)
    for view, expression in (
        ("look-alikes", _WORD + UNSEEN + b"{1,8}" + _WORD),
        ("look-alikes", _FULL_WIDTH + b"{3}"),
        ("look-alikes", _WORD + _FULL_WIDTH),
        ("look-alikes", _FULL_WIDTH + _WORD),
        ("look-alikes", _WORD + _ALIKE),
        ("look-alikes", _ALIKE + _WORD),
        ("look-alikes", rb"\xf0\x9d[\x90-\x9f]"),
        ("look-alikes", rb"\xe2(?:\x92[\xb6-\xbf]|\x93[\x80-\xa9])"),
        ("look-alikes", rb"\xe1(?:\xb4[\xac-\xbf]|\xb5[\x80-\xaa])"),
        ("signs", rb"(?:\xe2[\xa0\xa1][\x80-\xbf]){8}"),
        ("signs", rb"(?:\xf3\xa0[\x80\x81][\x80-\xbf]){8}"),
        *((magic.kind, quoted(magic.start) + magic.behind) for magic in LOOSE if magic.is_wide),
    )
)
"""Gates that only bytes above 0x7f can open: what is all ASCII is not asked."""
