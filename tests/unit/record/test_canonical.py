from __future__ import annotations

from dataclasses import fields, replace

import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.errors import InputError
from aesp_proxy.model.decision import Finding, Severity
from aesp_proxy.model.record import Outcome, Record, RecordId, RecordKind
from aesp_proxy.record.canonical import (
    FIELDS,
    POSITION,
    RECORD_BYTES_MAX,
    decode,
    decode_row,
    encode,
)

HERE = RecordId(origin="h-test", epoch=3, seq=9)
_uint = st.integers(min_value=0, max_value=2**63 - 1)
_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_findings = st.builds(
    Finding,
    rule=_text,
    severity=st.sampled_from(Severity),
    location=_text,
    offset=_uint,
    masked=_text,
    fingerprint=_text,
)
_by_type = {"int": _uint, "str": _text, "tuple[str, ...]": st.lists(_text, max_size=3).map(tuple)}
_records = st.builds(
    Record,
    **{
        field.name: _by_type[str(field.type)]
        for field in fields(Record)
        if str(field.type) in _by_type
    },
    kind=st.sampled_from(RecordKind),
    outcome=st.sampled_from(Outcome),
    findings=st.lists(_findings, max_size=2).map(tuple),
    metadata=st.dictionaries(_text, _text, max_size=3).map(lambda d: tuple(sorted(d.items()))),
)


@given(_records, st.integers(1, 2**40), st.integers(1, 2**40))
def test_what_is_encoded_is_decoded_again(record: Record, epoch: int, seq: int) -> None:
    record_id = RecordId(origin="h-x", epoch=epoch, seq=seq)
    assert decode(encode(record, record_id)) == (record_id, record)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_are_the_canonical_form(data: bytes) -> None:
    try:
        record_id, record = decode(data)
    except InputError:
        return
    assert encode(record, record_id) == data


@given(_records, st.data())
def test_no_other_bytes_decode_to_the_same_record(record: Record, data: st.DataObject) -> None:
    row = bytearray(encode(record, HERE))
    at = data.draw(st.integers(0, len(row) - 1))
    row[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        changed = decode(bytes(row))
    except InputError:
        return
    assert changed != (HERE, record)


def test_the_table_covers_every_field_of_a_record_and_its_identity() -> None:
    named = {field.name for field in fields(Record)} | {"version", "origin", "epoch", "seq"}
    assert {field.name for field in FIELDS} == named
    assert len(POSITION) == len(FIELDS)


def test_metadata_are_sorted_when_encoded(sample: Record) -> None:
    mixed = replace(sample, metadata=(("b", "1"), ("a", "2")))
    assert decode(encode(mixed, HERE))[1].metadata == (("a", "2"), ("b", "1"))


@pytest.mark.parametrize(
    "change",
    [
        {"time_ns": -1},
        {"duration_us": 2**63},
        {"status": 1.5},
        {"message": None},
        {"message": b"bytes"},
        {"message": "lone \ud800 surrogate"},
        {"metadata": (("a", "1"), ("a", "2"))},
        {"policy_violations": (1,)},
        {"resource": "x" * RECORD_BYTES_MAX},
    ],
    ids=str,
)
def test_a_value_without_canonical_form_is_refused(
    sample: Record, change: dict[str, object]
) -> None:
    with pytest.raises(InputError):
        encode(replace(sample, **change), HERE)  # type: ignore[arg-type]


def _row(sample: Record, **changes: object) -> bytes:
    values = decode_row(encode(sample, HERE))
    for name, value in changes.items():
        values[POSITION[name]] = value
    return ormsgpack.packb(values)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"kind": "rumour"},
        {"outcome": "PERHAPS"},
        {"seq": -1},
        {"seq": 2**63},
        {"seq": "1"},
        {"message": 7},
        {"metadata": [["b", "1"], ["a", "2"]]},
        {"metadata": [["a", "1"], ["a", "2"]]},
        {"metadata": [["a"]]},
        {"metadata": {"a": "b"}},
        {"findings": [["r", 9, "body", 1, "m", "f"]]},
        {"findings": [["r", 3, "body", -1, "m", "f"]]},
        {"findings": [["r", 3]]},
        {"applied_policies": [1]},
        {"time_ns": 1.0},
        {"time_ns": True},
    ],
    ids=str,
)
def test_a_row_with_a_wrong_value_is_refused(sample: Record, changes: dict[str, object]) -> None:
    with pytest.raises(InputError):
        decode_row(_row(sample, **changes))


def test_a_row_spelled_another_way_is_refused(sample: Record) -> None:
    row = encode(sample, HERE)
    assert row[:4] == b"\xdc\x00\x2a\x01"
    longer_integer = row[:3] + b"\xcc\x01" + row[4:]
    longer_array = b"\xdd\x00\x00\x00\x2a" + row[3:]
    for spelled in (longer_integer, longer_array, row + b"\x00", row[:-1], b"", b"\xc1"):
        with pytest.raises(InputError):
            decode_row(spelled)


def test_a_deeply_nested_row_is_refused() -> None:
    with pytest.raises(InputError):
        decode_row(b"\x91" * 60_000 + b"\xc0")
