"""The noun of the secret scan: one kind of secret, as a value."""

from __future__ import annotations

from dataclasses import dataclass

from aesp_proxy.model.decision import Severity

TOO_MANY = "too-many-findings"
"""The synthetic rule of a scan that was cut because there was too much to tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One kind of secret.

    ``expression`` is the regex for Hyperscan, ``confirm`` the same for RE2, both
    without an unbounded tail where that changes nothing; ``whole`` is the regex
    as written, for RE2, and gives the value. ``keywords`` are in lower case; one
    of them must stand in the confirm window (none needed when empty).
    ``entropy`` is bits a byte that the secret must exceed, 0 for any.
    ``secret_group`` is the capture that is the secret; 0 means the first group
    that took part, or the whole match. ``luhn`` demands a Luhn check digit.
    ``published`` are values that the issuer prints as examples. ``where`` is
    file and line.
    """

    id: str
    description: str
    severity: Severity
    expression: bytes
    confirm: bytes
    whole: bytes
    keywords: tuple[bytes, ...] = ()
    entropy: float = 0.0
    secret_group: int = 0
    luhn: bool = False
    issuer: str = ""
    published: frozenset[bytes] = frozenset()
    positives: tuple[bytes, ...] = ()
    negatives: tuple[bytes, ...] = ()
    where: str = ""
