"""A decision: what was answered, by whom, why, and on what findings.

A verdict has no default and no zero value that allows. The words of
:class:`Reason` are API: they stand in records, denials, tests and metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Verdict(StrEnum):
    """What happens to the attempt. Strictness: deny > ask > redact > audit > allow."""

    DENY = "deny"
    ASK = "ask"
    REDACT = "redact"
    AUDIT = "audit"
    ALLOW = "allow"

    @property
    def strictness(self) -> int:
        """Rank for "the strictest answer wins": 4 denies, 0 allows."""
        return _STRICTNESS[self]

    @property
    def passes(self) -> bool:
        """Whether the attempt goes on. Only allow and audit pass as they are."""
        return self is Verdict.ALLOW or self is Verdict.AUDIT


_STRICTNESS = {
    Verdict.DENY: 4,
    Verdict.ASK: 3,
    Verdict.REDACT: 2,
    Verdict.AUDIT: 1,
    Verdict.ALLOW: 0,
}


class Severity(IntEnum):
    """How grave a refusal or finding is; the order is the order of gravity."""

    INFO = 1
    WARNING = 2
    ERROR = 3
    CRITICAL = 4

    @property
    def word(self) -> str:
        """The word used in policies, records and output."""
        return self.name.lower()


class Reason(StrEnum):
    """Why, in one word. A closed set: adding one is an API change."""

    ALLOWED = "allowed"
    # decided by a guard
    HOST_BLOCKED = "host_blocked"
    HOST_NOT_ALLOWED = "host_not_allowed"
    ADDRESS_FORBIDDEN = "address_forbidden"
    SECRET_FOUND = "secret_found"
    PATH_FORBIDDEN = "path_forbidden"
    TOOL_BLOCKED = "tool_blocked"
    TOOL_NOT_ALLOWED = "tool_not_allowed"
    TOOL_NEEDS_CONFIRMATION = "tool_needs_confirmation"
    TOOL_ARGUMENTS_TOO_LARGE = "tool_arguments_too_large"
    PATH_NOT_ALLOWED = "path_not_allowed"
    PATCH_TOO_LARGE = "patch_too_large"
    PATCH_UNBALANCED = "patch_unbalanced"
    PATCH_FORBIDDEN = "patch_forbidden"
    # decided by a rule
    RULE_DENIED = "rule_denied"
    RULE_NEEDS_CONFIRMATION = "rule_needs_confirmation"
    RULE_FAILED = "rule_failed"
    # decided before or without a guard
    MALFORMED = "malformed"
    NAME_MISMATCH = "name_mismatch"
    LIMIT_EXCEEDED = "limit_exceeded"
    UNSCANNABLE = "unscannable"
    UNSUPPORTED = "unsupported"
    NO_GUARD = "no_guard"
    # the four nets
    GUARD_FAILED = "guard_failed"
    ENGINE_FAILED = "engine_failed"
    RECORD_FAILED = "record_failed"
    INTERCEPTOR_FAILED = "interceptor_failed"
    # a passed attempt that did not come off: only in outcome records
    UPSTREAM_FAILED = "upstream_failed"
    UPSTREAM_UNTRUSTED = "upstream_untrusted"
    CLIENT_GONE = "client_gone"


WRAPPED = " > "
"""Stands between a location and what a secret there was wrapped in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One secret found, without the secret.

    ``location`` is ``host``, ``url``, ``header:NAME``, ``body``, ``frame``, ``content``,
    ``patch`` or ``arguments``; ``offset`` counts bytes from the start of that
    location to the start of the match. ``masked`` keeps at most the issuer's
    prefix; ``fingerprint`` is a keyed hash (hex) so that equal secrets can be
    told to be equal and nothing else. ``via`` is what it was wrapped in, outermost
    first (``base64 > gzip``), empty when it stood in clear; the offset is then that
    of the wrapping.
    """

    rule: str
    severity: Severity
    location: str
    offset: int
    masked: str
    fingerprint: str
    via: str = ""

    @property
    def where(self) -> str:
        """Location and wrapping in one: ``body > base64 > gzip``."""
        return f"{self.location}{WRAPPED}{self.via}" if self.via else self.location


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer to one event.

    ``guard`` is the guard or net that decided; ``source`` the file and line of
    the policy item that decided, when one did; ``remediation`` what a person or
    agent can do about a refusal, a sentence each. ``rules`` are the ids of the rules
    that matched, ``rule_errors`` those of them that could not be evaluated.
    """

    verdict: Verdict
    reason: Reason
    guard: str
    severity: Severity
    message: str
    source: str = ""
    findings: tuple[Finding, ...] = ()
    policy_name: str = ""
    policy_hash: str = ""
    remediation: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    rule_errors: tuple[str, ...] = ()
