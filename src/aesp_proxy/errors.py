"""The five families of errors, named by who can mend them.

Foreign exceptions are translated into one of these at the adapter, once. Every
message is one line that says what happened, where, and what to do; ``where`` is
a file with line and column, a field, or an address, and may be empty.
"""

from __future__ import annotations


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
    """The operator can mend it: refuse to start, or keep the old snapshot on reload."""


class InputError(AespError):
    """The peer's bytes are wrong: the event is refused as malformed."""


class TrustError(AespError):
    """A signature, chain, order or identity does not hold: always recorded."""


class RecordError(AespError):
    """A decision cannot be made durable: the attempt is refused."""


class UnavailableError(AespError):
    """Something is not there now: try later, with a bounded back-off."""
