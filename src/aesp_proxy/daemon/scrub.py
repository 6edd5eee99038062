"""Mask secrets in what a record says of an attempt that was refused, or of a failure.

What was let pass has been scanned before it was recorded, but for the names of files. What
was refused may have been refused for another reason, before anybody looked: a host that is
a secret, a line that cannot be read, an error that quotes one. Of a text that was cut the
end may be the first half of one, and is masked whatever it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.decide.secrets.overwrite import overwrite
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.model.decision import Verdict
from aesp_proxy.model.record import Record
from aesp_proxy.record.compose import is_clipped

_TAIL_BYTES: Final = 128
_WORD: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+=_-~%")


def scrubbed(record: Record, scanner: SecretScanner) -> Record:
    """Return ``record`` without the secrets in its texts; UnavailableError if it cannot be told."""
    texts = [record.message, record.resource, record.user_agent]  # which hold host and path
    texts += (value for _, value in record.metadata)
    whole = "\n".join(texts)
    if not scanner.spans(whole.encode("utf-8", "replace")) and not any(map(is_clipped, texts)):
        return record
    return replace(
        record,
        message=masked(record.message, scanner),
        resource=masked(record.resource, scanner),
        target_host=masked(record.target_host, scanner),
        target_path=masked(record.target_path, scanner),
        user_agent=masked(record.user_agent, scanner),
        metadata=tuple((name, masked(value, scanner)) for name, value in record.metadata),
    )


def without_texts(record: Record) -> Record:
    """Return a record that quotes nothing."""
    return replace(
        record, message="", resource="", target_host="", target_path="", user_agent="", metadata=()
    )


def scrubbed_of_file(
    record: Record, scanner: SecretScanner | None, exact: ExactIndex | None = None
) -> Record:
    """Return the record of a file without secrets; of one that passed, the name is looked at.

    ``exact`` are registered values that the scanner does not know. UnavailableError if it
    cannot be told.
    """
    if exact is not None:
        record = replace(
            record,
            message=masked(record.message, None, exact),
            resource=masked(record.resource, None, exact),
            target_path=masked(record.target_path, None, exact),
        )
    if scanner is None:
        return record
    if record.verdict == Verdict.ALLOW.value and not record.findings:
        told = f"{record.resource}\n{record.message}"
        if not scanner.shows(told.encode("utf-8", "replace")):
            return record
    return scrubbed(record, scanner)


def masked(text: str, scanner: SecretScanner | None, exact: ExactIndex | None = None) -> str:
    """Return ``text`` with stars in place of the secrets in it; UnavailableError as above.

    ``exact`` are registered values that the scanner does not know.
    """
    data = bytearray(text.encode("utf-8", "replace"))
    spans = scanner.spans(bytes(data)) if scanner is not None else []
    if exact is not None:
        spans += ((one.start, one.stop) for one in exact.block(bytes(data))[0])
    if is_clipped(text):
        spans.append((max(0, len(data) - _TAIL_BYTES), len(data)))
    for span in spans:
        start, stop = span
        # A rule may have matched a beginning; of a registered value a piece is known.
        while start > 0 and data[start - 1] in _WORD:
            start -= 1
        while stop < len(data) and data[stop] in _WORD:
            stop += 1
        overwrite(data, start, min(stop, len(data)))
    return data.decode("utf-8", "replace")
