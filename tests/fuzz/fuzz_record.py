"""Fuzz target: rows, journal segments and heads give a value, or the error of their family.

The first byte chooses: a row, a patch on a row that holds, a journal segment, a
patch on one that holds, a head.
"""

from __future__ import annotations

import contextlib
from functools import cache

from aesp_proxy.errors import InputError, RecordError
from aesp_proxy.model.decision import Finding, Severity
from aesp_proxy.model.record import Outcome, Record, RecordId, RecordKind
from aesp_proxy.record.canonical import decode, encode
from aesp_proxy.record.faults import ChainError
from aesp_proxy.record.frames import (
    SegmentHead,
    decode_segment_head,
    encode_frame,
    encode_segment_head,
    is_long_enough,
    resync,
    scan,
    scan_run,
)
from aesp_proxy.record.head import decode_head, encode_head

PLACE = RecordId(origin="h-fuzz", epoch=1, seq=1)


class FindingError(AssertionError):
    """A promise that did not hold."""


@cache
def row() -> bytes:
    """Encode the row that the patches are made on."""
    finding = Finding(
        rule="r", severity=Severity.ERROR, location="body", offset=1, masked="m", fingerprint="f"
    )
    record = Record(
        kind=RecordKind.DECISION,
        time_ns=1,
        event_type="t",
        action="a",
        outcome=Outcome.DENIED,
        verdict="deny",
        reason="secret_found",
        guard="g",
        severity="error",
        message="m",
        resource="r",
        policy_violations=("p",),
        findings=(finding,),
        metadata=(("k", "v"),),
    )
    return encode(record, PLACE)


@cache
def segment() -> bytes:
    """Frame a segment of three records and its end."""
    head = SegmentHead(origin="h-fuzz", epoch=1, segment=1, first_seq=1)
    frames = [encode_frame(seq, seq % 2, row()) for seq in (1, 2, 3)]
    return b"".join([encode_segment_head(head), *frames, encode_frame(4, 4, b"")])


def patched(whole: bytes, patch: bytes) -> bytes:
    """Replace bytes of ``whole``: two bytes of place, one of value, and again; a cut at the end."""
    data = bytearray(whole)
    for at in range(0, len(patch) - 2, 3):
        data[int.from_bytes(patch[at : at + 2]) % len(data)] = patch[at + 2]
    return bytes(data[: len(data) - len(patch) % 3])


def fuzz_one(data: bytes) -> None:
    """Run one input; anything but a value or the right error is a finding."""
    choice, rest = data[:1], data[1:]
    match choice:
        case b"\x00":
            check_row(rest)
        case b"\x01":
            check_row(patched(row(), rest))
        case b"\x02":
            check_segment(rest)
        case b"\x03":
            check_segment(patched(segment(), rest))
        case _:
            check_head(rest)


def check_row(data: bytes) -> None:
    """A row decodes to what encodes to it again, or not at all."""
    with contextlib.suppress(InputError):
        record_id, record = decode(data)
        if encode(record, record_id) != data:
            raise FindingError(data)


def check_segment(data: bytes) -> None:
    """Both ways of reading agree, stay within the bytes, and give only whole frames."""
    begin = 0
    with contextlib.suppress(RecordError):
        found = decode_segment_head(data, where="fuzz")
        begin = found[1] if found else 0
    everything = scan(data, begin)
    if not begin <= everything.end <= max(begin, len(data)):
        raise FindingError(data)
    run, end, _ = scan_run(data[begin:], 1, bytes_max=len(data))
    if run != [row for _, _, row in everything.frames[: len(run)]] or begin + end > everything.end:
        raise FindingError(data)
    if everything.end < len(data) and not everything.is_whole:
        next_at = resync(data, everything.end, 1)
        if 0 <= next_at <= everything.end:
            raise FindingError(data)
        is_long_enough(data[everything.end :])


def check_head(data: bytes) -> None:
    """A head decodes to what encodes to it again, or not at all."""
    with contextlib.suppress(ChainError):
        if encode_head(decode_head(data)) != data:
            raise FindingError(data)
