"""The other names of files: whether a file that has several is forbidden under one of them.

A hard link is a name like any other (threat row 24). The trees are looked through before
the first call is answered, and again when the policy is another one. What the agent links
itself is decided when it does; a forbidden file cannot be linked, as it cannot be held.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from aesp_proxy.intercept.file_port import FileGate, Given
from aesp_proxy.intercept.notify.asking import Inode
from aesp_proxy.intercept.stage.survey import survey


class OtherNames:
    """The forbidden names of files with several names, in the trees that were given."""

    def __init__(self, gate: FileGate, given: Given) -> None:
        """Look through the trees; ConfigError when they have too many names."""
        self._gate = gate
        self._given = given
        self._generation = gate.generation
        self._forbidden = self._looked()

    def forbidden(self, inode: Inode) -> str:
        """Return a forbidden name of a file with several names, empty for none.

        ConfigError, UnavailableError when the trees cannot be looked through (any more).
        """
        if self._gate.generation != self._generation:
            self._forbidden = self._looked()
            self._generation = self._gate.generation
        return self._forbidden.get((inode.device, inode.number), "")

    def _looked(self) -> Mapping[tuple[int, int], str]:
        found: dict[tuple[int, int], str] = {}
        given = self._given
        for tree in given.trees:
            seen = survey(
                Path(tree),
                self._gate.hides,
                entries_max=given.entries_max,
                apart=given.apart,
                notes_links=False,
            )
            found.update(seen.inodes)
        return found
