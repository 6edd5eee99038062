"""The nouns of the secret scan: one kind of secret, what lets it pass, and a set of both."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from aesp_proxy.model.decision import Severity

TOO_MANY = "too-many-findings"
"""The synthetic rule of a scan that was cut because there was too much to tell."""

UNSCANNABLE = "unscannable"
"""The synthetic rule of what could not be looked through; ``via`` says why."""


class Target(Enum):
    """What the regexes of an allowlist look at."""

    SECRET = "secret"  # noqa: S105 - the word of the format
    MATCH = "match"
    LINE = "line"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowlist:
    """What is no secret although a rule matches it, as gitleaks has it.

    ``regexes`` (of ``target``), ``paths`` are expressions for RE2, ``commits`` and
    ``stopwords`` (part of the secret) are in lower case. Any of them lets pass, or,
    with ``every``, all kinds that are stated together.
    """

    description: str = ""
    every: bool = False
    target: Target = Target.SECRET
    regexes: tuple[bytes, ...] = ()
    paths: tuple[bytes, ...] = ()
    commits: tuple[str, ...] = ()
    stopwords: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Required:
    """Another rule that must be found too, at most so many lines and columns away (None: any)."""

    id: str
    within_lines: int | None = None
    within_columns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One kind of secret.

    ``expression`` is the regex for Hyperscan, ``confirm`` the same for RE2, both
    without an unbounded tail where that changes nothing; ``whole`` is the regex
    as written, for RE2, and gives the value. All three are empty for a rule that
    looks at names of files only. ``keywords`` are in lower case; one
    of them must stand in the confirm window (none needed when empty).
    ``entropy`` is bits a byte that the secret must exceed, 0 for any.
    ``secret_group`` is the capture that is the secret; 0 means the first group
    that took part, or the whole match. ``validate`` names the checks of
    ``validators`` that must hold; ``invalid`` is the severity of a match for which
    one does not, None when it is no match then. ``path`` (RE2) is what the name of
    a file must match, empty for any. ``report`` is false for a rule that only serves
    others as ``required``. ``hosts`` are where such a token may go, by its issuer.
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
    validate: tuple[str, ...] = ()
    invalid: Severity | None = None
    path: bytes = b""
    allow: tuple[Allowlist, ...] = ()
    required: tuple[Required, ...] = ()
    report: bool = True
    tags: tuple[str, ...] = ()
    issuer: str = ""
    hosts: tuple[str, ...] = ()
    published: frozenset[bytes] = frozenset()
    positives: tuple[bytes, ...] = ()
    negatives: tuple[bytes, ...] = ()
    where: str = ""

    @property
    def path_only(self) -> bool:
        """Whether the rule looks at names of files and at nothing in them."""
        return not self.whole


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSet:
    """Rules, the allowlists of all of them, and a line for each thing that was not taken."""

    rules: tuple[Rule, ...]
    allow: tuple[Allowlist, ...] = ()
    warnings: tuple[str, ...] = ()
