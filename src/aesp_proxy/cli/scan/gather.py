"""Carry out a scan: what was asked for, leak by leak, and what could not be looked at."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Final

import click

from aesp_proxy.cli.scan import git
from aesp_proxy.cli.scan.asked import STDIN, Asked, Mode
from aesp_proxy.cli.scan.files import LEAKS_MAX, Scanned, scan_open, scan_targets
from aesp_proxy.cli.scan.known import Known
from aesp_proxy.cli.scan.leak import Leak, Source, file_name
from aesp_proxy.cli.scan.patches import PatchReader
from aesp_proxy.cli.scan.pieces import leaks_in, too_many
from aesp_proxy.cli.scan.rules import Spot
from aesp_proxy.cli.scan.targets import Target, targets_of
from aesp_proxy.model.decision import Severity

_BAR_FILES_MIN: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Sieve:
    """What is no leak to tell: below ``severity``, known, or let be by a comment."""

    severity: Severity
    known: Known
    comments: bool


@dataclass(slots=True)
class Gathered:
    """What a scan found; ``unread`` could not be scanned, ``skipped`` was not to be."""

    leaks: list[Leak] = field(default_factory=list)
    unread: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    files: int = 0
    bytes_read: int = 0
    commits: int = 0
    allowed: int = 0
    known: int = 0


def gather(spot: Spot, asked: Asked, sieve: Sieve) -> Gathered:
    """Scan what was asked for. InputError for what is not there, UnavailableError without git."""
    scan = _Scan(spot, asked, sieve)
    match asked.mode:
        case Mode.FILES:
            scan.files()
        case Mode.STDIN:
            scan.stdin()
        case Mode.HISTORY:
            scan.history()
        case Mode.STAGED:
            with git.staged(git.top_of(asked.folder)) as output:
                scan.patches(output, lambda: None)
    return scan.gathered


class _Scan:
    def __init__(self, spot: Spot, asked: Asked, sieve: Sieve) -> None:
        self._spot = spot
        self._asked = asked
        self._sieve = sieve
        self.gathered = Gathered()

    def files(self) -> None:
        targets = list(self._targets())
        with _progress(len(targets), "scanning files") as advance:
            for scanned in scan_targets(
                self._spot, targets, bytes_max=self._asked.bytes_max, jobs=self._asked.jobs
            ):
                self._add(scanned)
                advance()

    def _targets(self) -> Iterator[Target]:
        for path in dict.fromkeys(self._asked.paths):
            yield from targets_of(
                path,
                ignoring=self._asked.ignoring,
                skipped=lambda path, reason: self._note(self.gathered.skipped, path, reason),
                unreadable=lambda path, reason: self._note(self.gathered.unread, path, reason),
            )

    def _note(self, notes: list[tuple[str, str]], path: str, reason: str) -> None:
        notes.append((file_name(os.fsencode(os.path.normpath(path))), reason))

    def stdin(self) -> None:
        self._add(scan_open(self._spot, Source(file=STDIN), sys.stdin.buffer))

    def history(self) -> None:
        folder, since = git.top_of(self._asked.folder), self._asked.since
        if since:
            since = git.commit_of(folder, since)
        if git.is_shallow(folder):
            self.gathered.skipped.append((str(folder), "older commits are not in this clone"))
        options = list(self._asked.log_options)
        count = git.commit_count(folder, since, options) if sys.stderr.isatty() else 0
        with git.history(folder, since, options) as output, _progress(count, "commits") as advance:
            self.patches(output, advance)

    def patches(self, output: IO[bytes], advance: Callable[[], None]) -> None:
        """Scan the added lines of git's patches."""
        reader = PatchReader(output)
        commits = 0
        for added in reader.added():
            found = leaks_in(
                self._spot,
                added.source,
                self._counted(added.chunks),
                first_line=added.first_line,
            )
            self._sift(_bounded(found))
            if reader.commits != commits:
                commits = reader.commits
                advance()
        self.gathered.commits = commits
        self.gathered.unread += [(name, "git does not show it") for name in reader.hidden]

    def _counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.gathered.bytes_read += len(chunk)
            yield chunk

    def _add(self, scanned: Scanned) -> None:
        gathered = self.gathered
        gathered.bytes_read += scanned.bytes_read
        if scanned.skipped:
            gathered.skipped.append((scanned.file, scanned.skipped))
        elif scanned.unread:
            gathered.unread.append((scanned.file, scanned.unread))
        else:
            gathered.files += 1
        self._sift(iter(scanned.leaks))

    def _sift(self, leaks: Iterator[Leak]) -> None:
        sieve = self._sieve
        for leak in leaks:
            if leak.severity < sieve.severity:
                continue
            if leak.allowed and sieve.comments:
                self.gathered.allowed += 1
            elif sieve.known.has(leak):
                self.gathered.known += 1
            else:
                self.gathered.leaks.append(leak)


def _bounded(leaks: Iterator[Leak]) -> Iterator[Leak]:
    for count, leak in enumerate(leaks):
        if count >= LEAKS_MAX:
            yield too_many(leak)
            return
        yield leak


@contextmanager
def _progress(length: int, label: str) -> Iterator[Callable[[], None]]:
    """Show a bar where a person waits for many."""
    if length < _BAR_FILES_MIN or not sys.stderr.isatty():
        yield lambda: None
        return
    with click.progressbar(length=length, label=label, file=sys.stderr) as bar:
        yield lambda: bar.update(1)
