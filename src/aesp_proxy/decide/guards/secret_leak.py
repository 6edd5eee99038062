"""What leaves must hold no secret: heads of requests, written content, patches, arguments.

A content guard: it answers only when it finds something, and its answer never lets an
event pass that no access guard allows. A finding of at least the threshold refuses, or is
masked in a body, or noted, as ``redact`` and ``actions`` of the policy say; a weaker one is
noted. ``credentials`` of the policy name secrets that may go home: the
finding of that rule, in that header, over TLS, to that host, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from aesp_proxy.decide.answer import Answer
from aesp_proxy.decide.policy.globs import PathGlobs
from aesp_proxy.decide.policy.hosts import HostIndex, HostRule
from aesp_proxy.decide.policy.policy import Credential, LeakAction, SecretSection
from aesp_proxy.decide.secrets.rule import TOO_MANY, UNSCANNABLE
from aesp_proxy.model.decision import Finding, Reason, Severity, Verdict
from aesp_proxy.model.event import (
    DnsQuery,
    EgressConnect,
    EgressRequest,
    Event,
    FileAccess,
    NetworkAccess,
    PatchApply,
    ToolCall,
)
from aesp_proxy.model.host import Host

_TLS_SCHEMES = frozenset({"https", "wss"})
_WEB_PORTS = frozenset({443})
_HEADER = "header:"
_NOT_HERE = ", which cannot be masked there"

Place = tuple[Host, int]
"""Where a request goes: host and port."""


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
    actions: tuple[tuple[LeakAction, HostIndex | None], ...] = ()
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
        place = (event.host, event.port) if isinstance(event, EgressRequest) else None
        return self.answer(findings, leaving, place)

    def verdict(self, rule: str, severity: Severity, place: Place | None) -> Verdict:
        """Return what becomes of one finding on its way to ``place``: deny, redact or audit.

        Of the actions that speak of it the mildest counts, so that another entry never
        makes a policy stricter, and one less never milder.
        """
        if rule == UNSCANNABLE:
            return Verdict.AUDIT if self.section.records_unscannable else Verdict.DENY
        if severity < self.section.severity_threshold:
            return Verdict.AUDIT
        if rule == TOO_MANY:
            return Verdict.DENY
        told = [
            action.verdict
            for action, hosts in self.actions
            if severity <= action.severity_max
            and fnmatchcase(rule, action.rule.value)
            and (hosts is None or (place is not None and hosts.find(*place) is not None))
        ]
        if self.section.redact:
            told.append(Verdict.REDACT)
        return min(told, key=lambda verdict: verdict.strictness, default=Verdict.DENY)

    @property
    def may_redact(self) -> bool:
        """Whether any finding may be redacted."""
        return self.section.redact or any(
            action.verdict is Verdict.REDACT for action, _ in self.actions
        )

    def _findings(self, event: Event) -> tuple[Finding, ...]:
        match event:
            case EgressRequest():
                return self.scanner.scan_head(_bytes(event.target), event.headers)
            case EgressConnect() | DnsQuery():
                return self.scanner.scan(_labels(event.host.name), "host")
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
        plain_header = finding.location.startswith(_HEADER) and not finding.via
        if event.scheme not in _TLS_SCHEMES or not plain_header:
            return False
        header = finding.location.removeprefix(_HEADER)
        return any(
            header in credential.headers
            and fnmatchcase(finding.rule, credential.rule.value)
            and hosts.find(event.host, event.port) is not None
            for credential, hosts in self.homes
        )

    def answer(
        self,
        findings: tuple[Finding, ...],
        leaving: tuple[Finding, ...],
        place: Place | None = None,
        *,
        redacts: bool = False,
    ) -> Answer:
        """Answer for ``findings``, of which ``leaving`` are not credentials on their way home.

        ``place`` is host and port. ``redacts`` is whether what is to be redacted is: where
        it cannot be (a head, a signed body), it refuses.
        """
        if not leaving:
            return _noted(Verdict.ALLOW, Reason.ALLOWED, "a credential goes home", findings)
        verdicts = [(self.verdict(each.rule, each.severity, place), each) for each in leaving]
        verdict, worst = max(verdicts, key=lambda one: (one[0].strictness, one[1].severity))
        what = f"{worst.rule} in {worst.where} ({worst.masked})"
        more = f" and {len(leaving) - 1} more" if len(leaving) > 1 else ""
        if verdict is Verdict.AUDIT:
            below = worst.severity < self.section.severity_threshold
            why = f"{worst.severity.word} is below the threshold" if below else "recorded only"
            return _noted(Verdict.AUDIT, Reason.SECRET_FOUND, f"{what}; {why}", findings)
        if verdict is Verdict.REDACT and redacts:
            return _noted(Verdict.REDACT, Reason.SECRET_FOUND, f"masked {what}{more}", findings)
        if worst.rule == UNSCANNABLE:
            return self._unscannable(worst, findings)
        return Answer(
            verdict=Verdict.DENY,
            reason=Reason.SECRET_FOUND,
            severity=worst.severity,
            message=f"found {what}{more}" + (_NOT_HERE if verdict is Verdict.REDACT else ""),
            source=self.section.source,
            findings=findings,
            remediation=(
                "Do not retry with the secret, whole, split or encoded: take it out.",
                "If it is real, treat it as leaked to the agent and rotate it.",
            ),
        )

    def _unscannable(self, worst: Finding, findings: tuple[Finding, ...]) -> Answer:
        return Answer(
            verdict=Verdict.DENY,
            reason=Reason.UNSCANNABLE,
            severity=Severity.ERROR,
            message=f"{worst.location} cannot be scanned: {worst.via}",
            source=self.section.source,
            findings=findings,
            remediation=(
                "Send it in clear, or less wrapped.",
                "The operator may let it pass, recorded: unscannable: record.",
            ),
        )


def _labels(name: str) -> bytes:
    """Return a host name, and its labels as one word: what does not fit in one goes in several."""
    return _bytes(f"{name}\n{name.replace('.', '')}")


def secret_leak(section: SecretSection, scanner: Scanner) -> SecretLeak:
    """Build the guard from its section of the policy and the scanner of its rules."""
    return SecretLeak(
        scanner=scanner,
        section=section,
        skip_paths=PathGlobs(section.skip_paths, fold=False),
        homes=tuple((credential, _index(credential.hosts)) for credential in section.credentials),
        actions=tuple(
            (action, _index(action.hosts) if action.hosts else None) for action in section.actions
        ),
    )


def _index(hosts: tuple[HostRule, ...]) -> HostIndex:
    return HostIndex(hosts, ports_without=_WEB_PORTS, any_is_address=False)


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
