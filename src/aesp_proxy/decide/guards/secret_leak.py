"""What leaves must hold no secret: heads of requests, written content, patches, arguments.

A content guard: it answers only when it finds something, and its answer never lets an
event pass that no access guard allows. A finding of at least the threshold refuses; a
weaker one is noted. ``credentials`` of the policy name secrets that may go home: the
finding of that rule, in that header, over TLS, to that host, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from aesp_proxy.decide.answer import Answer
from aesp_proxy.decide.policy.globs import PathGlobs
from aesp_proxy.decide.policy.hosts import HostIndex
from aesp_proxy.decide.policy.policy import Credential, SecretSection
from aesp_proxy.model.decision import Finding, Reason, Severity, Verdict
from aesp_proxy.model.event import (
    EgressRequest,
    Event,
    FileAccess,
    NetworkAccess,
    PatchApply,
    ToolCall,
)

_TLS_SCHEMES = frozenset({"https", "wss"})
_WEB_PORTS = frozenset({443})
_HEADER = "header:"


class Scanner(Protocol):
    """What the guard needs of the secret scanner."""

    def scan(self, data: bytes, location: str) -> tuple[Finding, ...]:
        """Return the findings of a block."""
        ...

    def scan_head(
        self, target: bytes, headers: Sequence[tuple[bytes, bytes]]
    ) -> tuple[Finding, ...]:
        """Return the findings of a request target and headers."""
        ...


@dataclass(frozen=True, slots=True)
class SecretLeak:
    """Built by :func:`secret_leak`; answers for everything that carries content out."""

    scanner: Scanner
    section: SecretSection
    skip_paths: PathGlobs
    homes: tuple[tuple[Credential, HostIndex], ...]
    name: str = "secret_leak"
    grants: bool = False

    def check(self, event: Event) -> Answer | None:
        """Answer when something was found; None otherwise."""
        findings = self._findings(event)
        if not findings:
            return None
        leaving = findings
        if isinstance(event, EgressRequest) and self.homes:
            home = {_secret(each) for each in findings if self._is_home(each, event)}
            # A registered value that a rule knows too goes home with it.
            leaving = tuple(each for each in findings if _secret(each) not in home)
        return self.answer(findings, leaving)

    def _findings(self, event: Event) -> tuple[Finding, ...]:
        match event:
            case EgressRequest():
                return self.scanner.scan_head(_bytes(event.target), event.headers)
            case NetworkAccess():
                return self.scanner.scan_head(_bytes(event.url), ()) if event.url else ()
            case ToolCall():
                return self.scanner.scan(event.arguments, "arguments")
            case FileAccess():
                if event.content is None or self._skipped(event.path, event.resolved):
                    return ()
                return self.scanner.scan(event.content, "content")
            case PatchApply():
                if self._skipped(event.path, event.resolved):
                    return ()
                return self._patch_findings(event.patch)
            case _:
                return ()

    def _patch_findings(self, patch: bytes) -> tuple[Finding, ...]:
        """Scan a patch as it is and what it adds without the signs before the lines."""
        found = self.scanner.scan(patch, "patch")
        added = b"\n".join(line[1:] for line in patch.split(b"\n") if line.startswith(b"+"))
        known = {(finding.rule, finding.fingerprint) for finding in found}
        more = self.scanner.scan(added, "patch:added") if added else ()
        return found + tuple(f for f in more if (f.rule, f.fingerprint) not in known)

    def _skipped(self, given: str, resolved: str) -> bool:
        skip = self.skip_paths
        return skip.find(resolved) is not None and (
            given == resolved or skip.find(given) is not None
        )

    def _is_home(self, finding: Finding, event: EgressRequest) -> bool:
        if event.scheme not in _TLS_SCHEMES or not finding.location.startswith(_HEADER):
            return False
        header = finding.location.removeprefix(_HEADER)
        return any(
            header in credential.headers
            and fnmatchcase(finding.rule, credential.rule.value)
            and hosts.find(event.host, event.port) is not None
            for credential, hosts in self.homes
        )

    def answer(self, findings: tuple[Finding, ...], leaving: tuple[Finding, ...]) -> Answer:
        """Answer for ``findings``, of which ``leaving`` are not credentials on their way home."""
        worst = max(leaving, key=lambda finding: finding.severity, default=None)
        if worst is None:
            return _noted(Verdict.ALLOW, Reason.ALLOWED, "a credential goes home", findings)
        what = f"{worst.rule} in {worst.location} ({worst.masked})"
        if worst.severity < self.section.severity_threshold:
            message = f"{what}; {worst.severity.word} is below the threshold"
            return _noted(Verdict.AUDIT, Reason.SECRET_FOUND, message, findings)
        more = f" and {len(leaving) - 1} more" if len(leaving) > 1 else ""
        return Answer(
            verdict=Verdict.DENY,
            reason=Reason.SECRET_FOUND,
            severity=worst.severity,
            message=f"found {what}{more}",
            source=self.section.source,
            findings=findings,
            remediation=(
                "Do not retry with the secret, whole, split or encoded: take it out.",
                "If it is real, treat it as leaked to the agent and rotate it.",
            ),
        )


def secret_leak(section: SecretSection, scanner: Scanner) -> SecretLeak:
    """Build the guard from its section of the policy and the scanner of its rules."""
    return SecretLeak(
        scanner=scanner,
        section=section,
        skip_paths=PathGlobs(section.skip_paths, fold=False),
        homes=tuple(
            (
                credential,
                HostIndex(credential.hosts, ports_without=_WEB_PORTS, any_is_address=False),
            )
            for credential in section.credentials
        ),
    )


def _secret(finding: Finding) -> tuple[str, str]:
    """Return what two findings of the same secret in the same place share."""
    return finding.location, finding.fingerprint


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _noted(verdict: Verdict, reason: Reason, what: str, findings: tuple[Finding, ...]) -> Answer:
    return Answer(
        verdict=verdict,
        reason=reason,
        severity=Severity.INFO if verdict is Verdict.ALLOW else Severity.WARNING,
        message=what,
        findings=findings,
    )
