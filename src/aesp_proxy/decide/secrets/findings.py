"""Turn candidates into findings: masked, fingerprinted, told once, bounded."""

from __future__ import annotations

from collections.abc import Sequence

from aesp_proxy.decide.secrets.redact import fingerprint, mask
from aesp_proxy.decide.secrets.reference import Candidate
from aesp_proxy.decide.secrets.rule import TOO_MANY, UNSCANNABLE
from aesp_proxy.model.decision import Finding, Severity


def masked(candidate: Candidate) -> str:
    """Return what may be shown of a candidate's value: at most the issuer's prefix."""
    lowered = candidate.value.lower()
    words = candidate.rule.keywords
    return mask(candidate.value, max((len(w) for w in words if lowered.startswith(w)), default=0))


class Findings:
    """The findings of one scan, in the order they were found.

    After ``findings_max`` different ones the next is the synthetic rule
    ``too-many-findings`` (critical) and no more are taken.
    """

    __slots__ = ("_findings_max", "_fresh", "_key", "_location", "_seen")

    def __init__(self, key: bytes, location: str, findings_max: int) -> None:
        self._key = key
        self._location = location
        self._findings_max = findings_max
        self._seen: set[tuple[str, str, str]] = set()
        self._fresh: list[Finding] = []

    def add(self, candidates: Sequence[Candidate], *, cut: bool = False) -> None:
        """Note ``candidates`` of this location; ``cut`` says that there were more."""
        for candidate in candidates:
            self.add_at(candidate, self._location, candidate.start)
        if cut:
            self.cut(candidates[-1].end if candidates else 0)

    def add_here(self, candidate: Candidate, offset: int) -> None:
        """Note one candidate of this location at another offset."""
        self.add_at(candidate, self._location, offset)

    def add_at(self, candidate: Candidate, location: str, offset: int) -> None:
        """Note one candidate at a place of its own."""
        rule, value = candidate.rule, candidate.value
        told = candidate.fingerprint or fingerprint(self._key, value)
        identity = (rule.id, location, told)
        if identity in self._seen:
            return
        if len(self._seen) >= self._findings_max:
            self.cut(offset)
            return
        self._seen.add(identity)
        self._fresh.append(
            Finding(
                rule=rule.id,
                severity=candidate.severity,
                location=location,
                offset=offset,
                masked=masked(candidate),
                fingerprint=told,
                via=candidate.via,
            )
        )

    def cut(self, offset: int) -> None:
        """Say, once, that there was too much to tell."""
        identity = (TOO_MANY, self._location, "")
        if identity in self._seen:
            return
        self._seen.add(identity)
        self._fresh.append(
            Finding(
                rule=TOO_MANY,
                severity=Severity.CRITICAL,
                location=self._location,
                offset=offset,
                masked="",
                fingerprint="",
            )
        )

    def unscannable(self, problem: str) -> None:
        """Say, once, that something here could not be scanned, and why."""
        identity = (UNSCANNABLE, self._location, problem)
        if identity in self._seen:
            return
        self._seen.add(identity)
        self._fresh.append(
            Finding(
                rule=UNSCANNABLE,
                severity=Severity.CRITICAL,
                location=self._location,
                offset=0,
                masked="",
                fingerprint="",
                via=problem,
            )
        )

    @property
    def is_fresh(self) -> bool:
        """Whether something was noted since the last call of ``take``."""
        return bool(self._fresh)

    def take(self) -> tuple[Finding, ...]:
        """Return what was noted since the last call."""
        fresh = tuple(self._fresh)
        self._fresh.clear()
        return fresh
