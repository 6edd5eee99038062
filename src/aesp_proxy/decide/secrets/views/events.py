r"""Join what a stream of events says piece by piece: ``{"delta":"gh"}`` and ``{"delta":"p_..."}``.

Models answer so, and so does whoever passes on, or writes down, what they answered: events
of a server (WHATWG HTML, "Server-sent events"), lines of JSON, objects behind each other.

Rules:

- The values of each name are joined by themselves, in order; a name that always says the
  same (an id, a model) says nothing here.
- Quotes may be escaped, as they are where a stream stands in a JSON string.
"""

from __future__ import annotations

from itertools import product

EVENTS_MIN = 3
PIECE_BYTES = 16
"""Pieces are at most so long where a view opens: in longer ones a literal stands whole."""

_SHORT = rb'[^"\\\n]{0,%d}' % PIECE_BYTES
_QUOTE = rb'\\{0,3}"'
_SAYS = _QUOTE + rb": ?" + _QUOTE + _SHORT + _QUOTE
_SHORT_BEFORE = (
    b"(?:" + b"|".join(b'"' + rb'[^"\\\n]' * size for size in range(PIECE_BYTES + 1)) + b")"
)
"""The same from its end: the engine looks back from what follows where all that is of one size.
A repeat with bounds it would follow from where each value begins: that took longer than all
other gates together."""
_BETWEEN = (
    *map(b"".join, product((b"", b","), (b"", b" "), (b"", rb"\r"), (b"", rb"\n"))),
    *(one + two + b"data: " for one, two in product((rb"\n", rb"\r\n"), repeat=2)),
)
FORMS = (
    rb'"(?:content|text|partial_json|thinking|arguments|reasoning)' + _SAYS + rb"[}\]]",
    rb'"(?:delta|response|transcript)' + _SAYS + rb"[,}]",
    *(_SHORT_BEFORE + rb'"\}' + marks + rb'\{"' for marks in _BETWEEN),
    rb"\ndata: [^\n{[]{1,%d}\r?\n\r?\ndata: [^\n{[]" % PIECE_BYTES,
)
"""What shows that events of a few letters follow each other."""

_COLONS = frozenset(colon + b"\\" * depth for colon in (b":", b": ") for depth in range(8))
_DATA = b"data: "
_JSON = (b"{", b"[")


def events_joined(text: bytes) -> bytes:
    """Return, a line a name, what the members of ``text`` say whose values change."""
    return b"\n".join(b"".join(said) for said in _said(text).values() if len(set(said)) > 1)


def are_events(around: bytes, _: int) -> bool:
    """Tell whether events that say a few letters each stand here, one behind the other."""
    parted = around.count(b"\n") + around.count(b"\\n") + around.count(b"}{") + around.count(b"},")
    if parted < EVENTS_MIN - 1:
        return False
    return any(
        sum(len(piece) <= PIECE_BYTES for piece in said) >= EVENTS_MIN and len(set(said)) > 1
        for said in _said(around).values()
    )


def _said(text: bytes) -> dict[bytes, list[bytes]]:
    """Return what each name says, in order: a member is found by its quotes, escaped or not."""
    said: dict[bytes, list[bytes]] = {}
    parts = text.split(b'"')
    for at in [at for at, between in enumerate(parts) if between in _COLONS]:
        name, value = parts[at - 1], parts[at + 1] if at + 1 < len(parts) else b""
        if name[-1:] == b"\\":
            name, value = name.rstrip(b"\\"), value.rstrip(b"\\")
        if name in said:
            said[name].append(value)
        else:
            said[name] = [value]
    if text.count(_DATA) > sum(text.count(_DATA + mark) for mark in _JSON):
        lines = (line.removeprefix(_DATA) for line in text.split(b"\n") if line.startswith(_DATA))
        said[_DATA] = [line.rstrip(b"\r") for line in lines if not line.startswith(_JSON)]
    return said
