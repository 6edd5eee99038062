"""The five families of errors, named by who can mend them.

Foreign exceptions are translated into one of these at the adapter, once. Every
message is one line that says what happened, where, and what to do; ``where`` is
a file with line and column, a field, or an address, and may be empty.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final

_PLACES_MAX: Final = 12
_TOKEN_CHARS_MIN: Final = 16
_TOKEN_CHARS_SHOWN: Final = 4


class AespError(Exception):
    """Base of the five families; never raised itself."""

    def __init__(self, message: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} ({self.remedy})" if self.remedy else text


class ConfigError(AespError):
    """The operator can mend it: refuse to start, or keep the old snapshot on reload.

    The message quotes what the operator wrote: of what may be a token there, it shows how
    that begins.
    """

    def __init__(self, message: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(without_tokens(message), where=where, remedy=remedy)


class InputError(AespError):
    """The peer's bytes are wrong: the event is refused as malformed."""


class TrustError(AespError):
    """A signature, chain, order or identity does not hold: always recorded."""


class RecordError(AespError):
    """A decision cannot be made durable: the attempt is refused."""


class UnavailableError(AespError):
    """Something is not there now: try later, with a bounded back-off."""


def without_tokens(text: str) -> str:
    """Return ``text`` with the beginnings of long words of letters and digits, which may be tokens.

    >>> without_tokens("unknown setting x7Ks92mMq0Pz81LdWv of this")
    'unknown setting x7Ks... of this'
    """
    shown, begin = [], 0
    for at, char in enumerate(text + " "):
        if char.isascii() and char.isalnum():
            continue
        word = text[begin:at]
        is_mixed = not word.isalpha() and not word.isdigit()
        if len(word) >= _TOKEN_CHARS_MIN and is_mixed:
            word = f"{word[:_TOKEN_CHARS_SHOWN]}..."
        shown += [word, text[at : at + 1]]
        begin = at + 1
    return "".join(shown)


def told(error: BaseException) -> str:
    """Return the types of an exception and its causes, and the places it went through.

    Not the text of any of them: a foreign exception's may quote what was read, sent or
    asked for.
    """
    words = []
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        words.append(f"{type(cause).__name__} at {_places(cause.__traceback__)}")
        cause = cause.__cause__ or cause.__context__
    return "; after ".join(words)


def _places(trace: TracebackType | None) -> str:
    places = []
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename.rpartition("/")[2]
        places.append(f"{file}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " < ".join(reversed(places[-_PLACES_MAX:])) or "an unknown place"
