"""Every byte of a journal segment cut or flipped: a prefix comes back, and nothing bogus."""

from __future__ import annotations

import pytest

from aesp_proxy.record.journal_tail import EpochTail
from aesp_proxy.record.verify import Pins, verify_place


@pytest.fixture
def written(fault_state):
    journal = fault_state.journal()
    fault_state.append(journal, 4)
    journal.close()
    path = fault_state.paths.segment(1, 1)
    return fault_state, path, path.read_bytes(), read_rows(fault_state)[0]


def read_rows(state) -> tuple[dict[int, bytes], bool]:
    """Rows by sequence number, and whether anything was said to be wrong or absent."""
    tail = EpochTail(state.paths, state.origin, 1, 1)
    rows: dict[int, bytes] = {}
    is_told = False
    while True:
        stretch = tail.read([1], bytes_max=10_000, is_dead=True)
        for index, row in enumerate(stretch.rows):
            assert stretch.first_seq + index not in rows
            rows[stretch.first_seq + index] = row
        is_told |= bool(stretch.lost or stretch.torn_bytes)
        if stretch.at_end:
            return rows, is_told or not stretch.is_closed


def test_a_segment_cut_anywhere_gives_the_records_before_the_cut(written) -> None:
    state, path, data, rows = written
    ends = [at for at in range(len(data)) if data[:at].count(rows[1]) and at]
    assert ends
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        found, is_told = read_rows(state)
        assert found == {seq: row for seq, row in rows.items() if row in data[:cut]}
        assert is_told


def test_a_segment_with_any_byte_flipped_gives_only_true_records(written) -> None:
    state, path, data, rows = written
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x21]) + data[at + 1 :])
        found, is_told = read_rows(state)
        assert found.items() <= rows.items()
        assert found == rows or is_told, at
        assert len(rows) - len(found) <= 1, at


def test_a_segment_with_any_byte_flipped_is_sealed_with_its_loss_declared(
    new_fault_state,
) -> None:
    template = new_fault_state()
    journal = template.journal()
    template.append(journal, 3)
    journal.close()
    data = template.paths.segment(1, 1).read_bytes()
    for at in range(0, len(data), 19):
        state = new_fault_state()
        state.paths.segment(1, 1).write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        state.sealer().tick(drain=True)
        report = verify_place(state.directory, Pins(key=state.key.public_key))
        told = len(report.problems) + len(report.notes)
        assert report.records == 3 or told, at
        assert {problem.kind.value for problem in report.problems} <= {"lost"}


def test_zeros_at_the_end_as_after_a_power_cut_are_no_record(written) -> None:
    state, path, data, rows = written
    path.write_bytes(data[:-17] + bytes(4096))
    found, is_told = read_rows(state)
    assert found == rows
    assert is_told
