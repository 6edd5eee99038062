"""A refusal as the refused client sees it: what, why in a word, whether to retry.

The body is an ``EnterpriseError`` of the AESP specification in an
``application/problem+json`` envelope (RFC 9457) with the reason word, or a page
for people. The header ``AESP-Reason`` carries the word, and so does the text of the status
line: of a refused CONNECT many clients show nothing else. gRPC is answered in its own terms.
Pure: bytes are made here and written elsewhere.
"""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from urllib.parse import quote

from aesp_proxy.model.decision import Decision, Reason, Severity, Verdict

# EnterpriseError codes of spec/aesp.md, and the status each reason answers with.
_CODES = {
    Reason.MALFORMED: ("POLICY_VIOLATION", 400),
    Reason.LIMIT_EXCEEDED: ("QUOTA_EXCEEDED", 431),
    Reason.SECRET_FOUND: ("SECURITY_THREAT_DETECTED", 403),
    Reason.NAME_MISMATCH: ("SUSPICIOUS_ACTIVITY", 403),
    Reason.GUARD_FAILED: ("POLICY_EVALUATION_FAILED", 403),
    Reason.ENGINE_FAILED: ("POLICY_EVALUATION_FAILED", 403),
    Reason.RECORD_FAILED: ("AUDIT_REQUIREMENT_NOT_MET", 403),
    Reason.INTERCEPTOR_FAILED: ("INTERNAL_ERROR", 502),
    Reason.UPSTREAM_FAILED: ("RESOURCE_UNAVAILABLE", 502),
    Reason.UPSTREAM_UNTRUSTED: ("CERTIFICATE_INVALID", 502),
    Reason.CLIENT_GONE: ("RESOURCE_UNAVAILABLE", 502),
}
_DEFAULT_CODE = ("POLICY_VIOLATION", 403)
_RETRY_MS = {Reason.RECORD_FAILED: 5_000, Reason.UPSTREAM_FAILED: 1_000}
# The operator's bounds on a session are no fault of a request's size (RFC 6585 section 4).
_BUDGET = ("QUOTA_EXCEEDED", 429)
_BUDGET_RETRY_MS = {"budget": 0, "budget_rate": 60_000}
_PHRASES = {
    400: "Bad Request",
    403: "Forbidden",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    502: "Bad Gateway",
}
PROBLEM_TYPE = "urn:aesp-proxy:denial:"
# What gRPC calls them (doc/statuscodes.md); any other is PERMISSION_DENIED.
_GRPC_CODES = {400: 3, 429: 8, 431: 8, 502: 14}
_GRPC_PERMISSION_DENIED = 7
_GRPC_SAFE = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}"  # all that is printed but "%" (PROTOCOL-HTTP2.md)


REDACTED_FIELD = "AESP-Redacted"
"""Says in an answer how many secrets were masked in its request."""


def redacted_line(count: int) -> bytes:
    """Return the line of a response head that tells the client what was masked."""
    return f"{REDACTED_FIELD}: {count}".encode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """A refusal that has been recorded; ``correlation_id`` names its record."""

    decision: Decision
    correlation_id: str
    tenant_id: str = ""
    principal_id: str = ""

    @property
    def status(self) -> int:
        """The HTTP status that says it."""
        return _code(self.decision)[1]

    @property
    def phrase(self) -> str:
        """The text after the status (RFC 9112 section 4), which says whose refusal it is."""
        return f"{_PHRASES[self.status]} (AESP Proxy: {self.decision.reason.value})"


def _code(decision: Decision) -> tuple[str, int]:
    if decision.guard in _BUDGET_RETRY_MS:
        return _BUDGET
    return _CODES.get(decision.reason, _DEFAULT_CODE)


def _retry_ms(decision: Decision) -> int:
    return _BUDGET_RETRY_MS.get(decision.guard) or _RETRY_MS.get(decision.reason, 0)


def enterprise_error(denial: Denial) -> dict[str, object]:
    """Give the problem document: EnterpriseError fields, RFC 9457 members, ``reason``."""
    decision = denial.decision
    code, status = _code(decision)
    return {
        "type": PROBLEM_TYPE + decision.reason.value,
        "title": "Refused by policy" if status == 403 else _PHRASES[status],
        "status": status,
        "detail": decision.message,
        "code": code,
        "message": decision.message,
        "reason": decision.reason.value,
        "details": {
            "verdict": decision.verdict.value,
            "guard": decision.guard,
            "severity": decision.severity.word,
            "source": decision.source,
            "policy": decision.policy_name,
        },
        "tenant_id": denial.tenant_id,
        "principal_id": denial.principal_id,
        "correlation_id": denial.correlation_id,
        "retry_after_ms": _retry_ms(decision),
        "security_implications": [
            f"{finding.rule} in {finding.where}: {finding.masked}" for finding in decision.findings
        ],
        "compliance_impact": [],
        "remediation_steps": list(decision.remediation),
        "escalation_required": decision.verdict is Verdict.ASK
        or decision.severity is Severity.CRITICAL,
    }


def page(denial: Denial) -> bytes:
    """Give the page for a person in a browser. No scripts, nothing loaded, all escaped."""
    decision = denial.decision
    esc = html.escape
    steps = "".join(f"<li>{esc(step)}</li>" for step in decision.remediation)
    found = "".join(
        f"<li>{esc(f.rule)} in {esc(f.where)}: <code>{esc(f.masked)}</code></li>"
        for f in decision.findings
    )
    text = (
        "<!doctype html><meta charset=utf-8><title>Refused: "
        f"{esc(decision.reason.value)}</title>"
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:4rem auto;"
        "padding:0 1rem;color:#1e293b}code{background:#f1f5f9;padding:.1em .3em}"
        "small{color:#64748b}</style>"
        f"<h1>AESP Proxy refused this</h1><p><b>{esc(decision.reason.value)}</b>: "
        f"{esc(decision.message)}</p><ul>{found}</ul><ol>{steps}</ol>"
        f"<p><small>Record {esc(denial.correlation_id)} · policy {esc(decision.policy_name)}"
        f" {esc(decision.source)}</small></p>"
    )
    return text.encode()


def body_for(denial: Denial, accept: bytes) -> tuple[str, bytes]:
    """Choose content type and body: a page for browsers, which alone ask for XHTML.

    HTML is asked for by programs too (Java's own client does).
    """
    if b"application/xhtml+xml" in accept and b"json" not in accept:
        return "text/html; charset=utf-8", page(denial)
    return "application/problem+json", json.dumps(enterprise_error(denial)).encode()


def response_fields(denial: Denial, content_type: str, body: bytes) -> list[tuple[str, str]]:
    """Give the header fields of a refusal, framing excepted."""
    fields = [
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("AESP-Reason", denial.decision.reason.value),
        ("AESP-Correlation-Id", denial.correlation_id),
    ]
    if retry_ms := _retry_ms(denial.decision):
        fields.append(("Retry-After", str(max(1, retry_ms // 1000))))
    return fields


def grpc_fields(denial: Denial) -> list[tuple[str, str]]:
    """Give the fields of a refused gRPC call, which are all of it (Trailers-Only, status 200).

    Some of its clients take no status from HTTP, none takes a text from there.
    """
    fields = response_fields(denial, "application/grpc", b"")
    text = f"AESP Proxy: {denial.decision.reason.value}: {denial.decision.message}"
    return [
        *(field for field in fields if field[0] != "Content-Length"),
        ("grpc-status", str(_GRPC_CODES.get(denial.status, _GRPC_PERMISSION_DENIED))),
        ("grpc-message", quote(text, safe=_GRPC_SAFE)),
    ]


def http1_response(
    denial: Denial, *, accept: bytes = b"", close: bool, head: bool = False
) -> bytes:
    """Give the whole HTTP/1.1 response. ``head`` leaves out the body, as HEAD demands."""
    content_type, body = body_for(denial, accept)
    lines = [f"HTTP/1.1 {denial.status} {denial.phrase}"]
    lines += [f"{name}: {value}" for name, value in response_fields(denial, content_type, body)]
    if close:
        lines.append("Connection: close")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (b"" if head else body)
