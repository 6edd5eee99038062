"""The path of a URL as a rule should see it: one spelling for what a server takes for one.

``/%61dmin``, ``//admin`` and ``/x/../admin`` are ``/admin`` (RFC 3986 section 6.2.2, and
what servers do besides). Where the next server may see another path than the one after it
(an encoded slash or backslash beside dots, dots under a second encoding) there is no one
spelling, and the path is unknown: a rule that restricts then matches, one that allows does
not. What is sent is never changed.
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import unquote_to_bytes

_UNRESERVED = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")
_DECODINGS_MAX = 4


@lru_cache(maxsize=4_096)
def url_path(raw: str) -> str | None:
    """Return the one spelling of a path, None where it has none.

    ``raw`` is the path as sent. Percent signs that encode nothing stay as they are.
    """
    if "%" not in raw and "//" not in raw and "/." not in raw and "\\" not in raw:
        return raw
    text = _unreserved(raw)
    if _hides_dots(text):
        return None
    return _flat(text)


def _unreserved(text: str) -> str:
    """Decode what needs no encoding, and write the rest with capital digits."""
    parts = text.split("%")
    decoded = [parts[0]]
    for part in parts[1:]:
        code = _code(part)
        if code is None:
            decoded.append("%" + part)
        elif code in _UNRESERVED:
            decoded.append(chr(code) + part[2:])
        else:
            decoded.append(f"%{code:02X}" + part[2:])
    return "".join(decoded)


def _code(part: str) -> int | None:
    digits = part[:2]
    if len(digits) != 2 or not digits.isalnum() or not digits.isascii():
        return None
    try:
        return int(digits, 16)
    except ValueError:
        return None


def _hides_dots(text: str) -> bool:
    """Tell whether decoding further, or reading backslashes as slashes, shows dot segments."""
    if any(segment.startswith((".;", "..;")) for segment in text.split("/")):
        return True  # some servers take "..;" for "..", others for a name
    visible = _dots(text)
    shown = text.encode("utf-8", "surrogatepass")
    for _ in range(_DECODINGS_MAX):
        if _dots(shown.decode("latin-1").replace("\\", "/")) > visible:
            return True
        decoded = unquote_to_bytes(shown)
        if decoded == shown:
            return False
        shown = decoded
    return True  # still encoded: nobody means that


def _dots(text: str) -> int:
    return sum(segment.partition(";")[0] in (".", "..") for segment in text.split("/"))


def _flat(text: str) -> str:
    """Resolve dot segments and empty ones (RFC 3986 section 5.2.4); the last slash stays."""
    kept: list[str] = []
    segments = text.split("/")
    for segment in segments:
        if segment == "..":
            kept = kept[:-1]
        elif segment not in ("", "."):
            kept.append(segment)
    ends = segments[-1] in ("", ".", "..")
    return "/" + "/".join(kept) + ("/" if ends and kept else "")
