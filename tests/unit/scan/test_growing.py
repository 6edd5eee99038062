"""A file that grows faster than it is scanned does not hold the scan for ever."""

from __future__ import annotations

from pathlib import Path

from aesp_proxy.cli.scan.files import scan_target
from aesp_proxy.cli.scan.leak import Source
from aesp_proxy.cli.scan.pieces import CHUNK_BYTES
from aesp_proxy.cli.scan.targets import Target


def test_a_file_is_scanned_as_far_as_it_went_when_it_was_opened(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"x" * (CHUNK_BYTES + 7))
    pieces = []

    def spot(data: bytes, _: Source) -> tuple[tuple[()], bool]:
        pieces.append(len(data))
        assert len(pieces) < 5
        with file.open("ab") as more:
            more.write(b"y" * CHUNK_BYTES)
        return (), False

    scanned = scan_target(spot, Target(path=str(file)), 0)
    assert scanned.bytes_read == CHUNK_BYTES + 7
    assert scanned.unread == scanned.skipped == ""


def test_a_file_that_says_it_is_empty_and_is_not_is_scanned() -> None:
    seen = []

    def spot(data: bytes, _: Source) -> tuple[tuple[()], bool]:
        seen.append(data)
        return (), False

    scan_target(spot, Target(path="/proc/self/status"), 0)
    assert b"Name:" in seen[0]
