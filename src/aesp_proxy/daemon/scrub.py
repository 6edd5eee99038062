"""Mask secrets in what a record says of an attempt that was refused, or of a failure.

What was let pass has been scanned before it was recorded. What was refused may have been
refused for another reason, before anybody looked: a host that is a secret, a line that
cannot be read, an error that quotes one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from aesp_proxy.decide.secrets.overwrite import overwrite
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.model.record import Record

_WORD: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+=_-~%")


def scrubbed(record: Record, scanner: SecretScanner) -> Record:
    """Return ``record`` without the secrets in its texts; UnavailableError if it cannot be told."""
    texts = (record.message, record.resource, record.user_agent)  # which hold host and path
    whole = "\n".join((*texts, *(value for _, value in record.metadata)))
    if not scanner.spans(whole.encode("utf-8", "replace")):
        return record
    return replace(
        record,
        message=_masked(record.message, scanner),
        resource=_masked(record.resource, scanner),
        target_host=_masked(record.target_host, scanner),
        target_path=_masked(record.target_path, scanner),
        user_agent=_masked(record.user_agent, scanner),
        metadata=tuple((name, _masked(value, scanner)) for name, value in record.metadata),
    )


def _masked(text: str, scanner: SecretScanner) -> str:
    data = bytearray(text.encode("utf-8", "replace"))
    for span in scanner.spans(bytes(data)):
        start, stop = span
        # A rule may have matched a beginning; of a registered value a piece is known.
        while start > 0 and data[start - 1] in _WORD:
            start -= 1
        while stop < len(data) and data[stop] in _WORD:
            stop += 1
        overwrite(data, start, min(stop, len(data)))
    return data.decode("utf-8", "replace")
