"""What a patch may do to a file: its size, its balance, and what it may not add.

A content guard: it answers only to refuse. Lines are counted by ``patch_lines``, which
takes every doubt for an addition, so what is no patch at all is one of additions.

- More than ``max_additions`` or ``max_deletions`` lines: ``patch_too_large``.
- An added line, or several that follow each other, that a forbidden pattern matches:
  ``patch_forbidden``. A binary patch cannot be searched: where there are patterns it is
  refused with the same reason, where there are none only the limits hold for it.
- With ``require_balance``, more than ``max_imbalance_ratio`` additions a deletion:
  ``patch_unbalanced``. Without a deletion any addition is out of balance, in a new file
  too, as in the system that the key is from: whether a file is new only the patch says.
  Only deletions inside a hunk count for the balance. Deletions may outnumber additions.

Known gap: ``*** Delete File:`` deletes lines that the patch does not show; paths decide.
"""

from __future__ import annotations

from dataclasses import dataclass

from aesp_proxy.decide.answer import Answer
from aesp_proxy.decide.patch_lines import PatchLines, patch_lines
from aesp_proxy.decide.policy.patch_patterns import PatchPatterns
from aesp_proxy.decide.policy.policy import PatchSection
from aesp_proxy.model.decision import Reason, Severity, Verdict
from aesp_proxy.model.event import Event, PatchApply

_SECTION = "guards.patch_integrity"


@dataclass(frozen=True, slots=True)
class PatchIntegrity:
    """Built by :func:`patch_integrity`; answers for patches that it refuses."""

    patterns: PatchPatterns
    section: PatchSection
    name: str = "patch_integrity"
    grants: bool = False

    def check(self, event: Event) -> Answer | None:
        """Answer when a patch is too large, out of balance, or adds what is forbidden."""
        match event:
            case PatchApply():
                section = self.section
                lines = patch_lines(
                    event.patch,
                    additions_max=section.additions_max,
                    deletions_max=section.deletions_max,
                )
                return self._too_large(lines) or self._forbidden(lines) or self._unbalanced(lines)
            case _:
                return None

    def _too_large(self, lines: PatchLines) -> Answer | None:
        section = self.section
        if lines.additions > section.additions_max:
            return self._over("adds", section.additions_max, "max_additions")
        if lines.deletions > section.deletions_max:
            return self._over("deletes", section.deletions_max, "max_deletions")
        return None

    def _over(self, does: str, lines_max: int, key: str) -> Answer:
        return Answer(
            verdict=Verdict.DENY,
            reason=Reason.PATCH_TOO_LARGE,
            severity=Severity.WARNING,
            message=f"the patch {does} more than {lines_max} lines",
            source=self.section.source,
            remediation=(f"Change less at once; the limit is {_SECTION}.{key}.",),
        )

    def _forbidden(self, lines: PatchLines) -> Answer | None:
        if not self.patterns:
            return None
        if lines.binary:
            return _refused("a binary patch cannot be searched", self.section.source)
        for reading in lines.readings:
            found = self.patterns.find(reading)
            if found is not None:
                pattern, number = found
                what = f"line {number} of the patch adds what the pattern of {pattern.source}"
                return _refused(f"{what} forbids", pattern.source)
        return None

    def _unbalanced(self, lines: PatchLines) -> Answer | None:
        section = self.section
        additions, deletions = lines.additions, lines.deletions_sure
        if not section.require_balance or not additions:
            return None
        if deletions and additions / deletions <= section.imbalance_ratio_max:
            return None
        return Answer(
            verdict=Verdict.DENY,
            reason=Reason.PATCH_UNBALANCED,
            severity=Severity.WARNING,
            message=(
                f"the patch adds {additions} lines and deletes {deletions};"
                f" at most {section.imbalance_ratio_max:g} a deletion are allowed"
            ),
            source=section.source,
            remediation=(
                f"Change lines instead of adding; the limit is {_SECTION}.max_imbalance_ratio.",
            ),
        )


def patch_integrity(section: PatchSection) -> PatchIntegrity:
    """Build the guard from its section of the policy; ``ConfigError`` for a bad pattern."""
    return PatchIntegrity(patterns=PatchPatterns(section.forbidden_patterns), section=section)


def _refused(message: str, source: str) -> Answer:
    file, _, line = source.rpartition(":")
    return Answer(
        verdict=Verdict.DENY,
        reason=Reason.PATCH_FORBIDDEN,
        severity=Severity.ERROR,
        message=message,
        source=source,
        remediation=(
            "Do not retry with the same change in other words or another file.",
            f"Ask the owner of {file} about {_SECTION}.forbidden_patterns (line {line}).",
        ),
    )
