"""What a witness is asked and what it answers (C2SP tlog-witness, add-checkpoint).

Pure: what the witness has cosigned before comes in, the judgement goes out; keeping it
durably before the answer, and one request at a time, is the server's part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aesp_proxy.errors import InputError, TrustError
from aesp_proxy.record.merkle import EMPTY_ROOT, verify_consistency
from aesp_proxy.record.tlog.checkpoint import Checkpoint, parse_checkpoint
from aesp_proxy.record.tlog.note import (
    NOTE_BYTES_MAX,
    Note,
    NoteKey,
    parse_decimal,
    parse_note,
    verify_note,
)
from aesp_proxy.record.tlog.proof import parse_hash_lines

REQUEST_BYTES_MAX: Final = NOTE_BYTES_MAX + 4096
SIZE_TYPE: Final = "text/x.tlog.size"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddCheckpoint:
    """A request: the size that the log believes was cosigned last, the proof, the checkpoint."""

    old_size: int
    path: tuple[bytes, ...]
    note: Note
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A refusal: the HTTP status, and for 409 the size that was cosigned last."""

    status: int
    message: str
    size: int | None = None


def parse_add_checkpoint(data: bytes) -> AddCheckpoint:
    """Read a request. InputError for anything but its form (status 400)."""
    if len(data) > REQUEST_BYTES_MAX:
        raise InputError(f"the request has {len(data)} bytes")
    head, blank, rest = data.partition(b"\n\n")
    try:
        first, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise InputError("the request is not ASCII before its checkpoint") from error
    if not blank or not first.startswith("old "):
        raise InputError("the request does not begin with the old size")
    note = parse_note(rest)
    return AddCheckpoint(
        old_size=parse_decimal(first.removeprefix("old "), "the old size"),
        path=parse_hash_lines(lines),
        note=note,
        checkpoint=parse_checkpoint(note.text),
    )


def judge(
    request: AddCheckpoint, keys: Sequence[NoteKey], known: Checkpoint | None
) -> Refused | None:
    """Judge a request against the log's keys and what was cosigned last; None to cosign it.

    ``keys`` are those trusted for the checkpoint's origin; ``known`` None for never.
    """
    checkpoint = request.checkpoint
    if not keys:
        return Refused(status=404, message="this log is not known here")
    try:
        signed = verify_note(request.note, keys)
    except TrustError as error:
        return Refused(status=403, message=error.message)
    if not signed:
        return Refused(status=403, message="no key that is trusted for this log has signed it")
    if request.old_size > checkpoint.size:
        return Refused(status=400, message="the old size is above the checkpoint's")
    size, root = (known.size, known.root) if known else (0, EMPTY_ROOT)
    if request.old_size != size:
        return Refused(status=409, message="another size was cosigned last", size=size)
    if size == checkpoint.size and root != checkpoint.root:
        return Refused(status=409, message="another root of this size was cosigned", size=size)
    if not verify_consistency(size, checkpoint.size, root, checkpoint.root, request.path):
        return Refused(status=422, message="the log does not begin with what was cosigned last")
    return None
