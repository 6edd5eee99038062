"""Fuzz target: any bytes are counted as a patch, with no more lines than they have."""

from __future__ import annotations

from aesp_proxy.decide.patch_lines import patch_lines
from aesp_proxy.normalize.patch import other_file


class FindingError(AssertionError):
    """A promise that did not hold."""


def fuzz_one(data: bytes) -> None:
    """Run one input; nothing is refused here, so any exception is a finding."""
    told = patch_lines(data, additions_max=1_000, deletions_max=1_000)
    if not 0 <= told.deletions_sure <= told.deletions:
        raise FindingError("more deletions are sure than there are")
    lines = data.count(b"\n") + 1
    for reading in told.readings:
        if any(not 0 < number <= lines for number, _ in reading):
            raise FindingError("a line that is not there")
    other_file(data.decode("latin-1"), "/tmp/a")
