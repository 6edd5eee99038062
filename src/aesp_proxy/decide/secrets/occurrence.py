"""Where a secret stands in a block: every place, with its extent, and never the secret."""

from __future__ import annotations

from dataclasses import dataclass

from aesp_proxy.decide.secrets.findings import masked
from aesp_proxy.decide.secrets.measure import entropy
from aesp_proxy.decide.secrets.redact import fingerprint
from aesp_proxy.decide.secrets.reference import Candidate
from aesp_proxy.model.decision import Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrence:
    """One place: the secret is ``data[start:end]`` of the block that was scanned.

    ``masked``, ``fingerprint`` and ``via`` are those of a finding; where ``via`` is not
    empty the place is that of what the secret is wrapped in. ``entropy`` is bits a byte.
    """

    rule: str
    severity: Severity
    start: int
    end: int
    masked: str
    fingerprint: str
    entropy: float
    via: str = ""


def occurrence(candidate: Candidate, key: bytes) -> Occurrence:
    """Return where a candidate stands; its value is not kept."""
    return Occurrence(
        rule=candidate.rule.id,
        severity=candidate.severity,
        start=candidate.start,
        end=candidate.end if candidate.via else candidate.start + len(candidate.value),
        masked=masked(candidate),
        fingerprint=candidate.fingerprint or fingerprint(key, candidate.value),
        entropy=entropy(candidate.value),
        via=candidate.via,
    )
