"""CEL rules on the wire: what they allow, refuse and record of real requests."""

from __future__ import annotations

import pytest
from egress_lab import POLICY, Proxy

GET = b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n"
RULES = """
rules:
  - policy_id: sub.get
    applies_to: ["egress:*.sub.test"]
    rule: {condition: "request.path.startsWith('/open/')", effect: ALLOW, actions: [http.get]}
  - policy_id: no.admin
    rule: {condition: "request.path.startsWith('/admin')", effect: DENY,
           parameters: {message: no admin}}
  - policy_id: only.three
    applies_to: ["egress:allowed.test"]
    rule: {condition: "session.egress_count >= 3", effect: DENY, actions: ["http.*"]}
  - policy_id: seen
    rule: {condition: "request.query != ''", effect: AUDIT}
  - policy_id: unknown.fact
    applies_to: ["egress:allowed.test"]
    rule: {condition: "session.risk_score > 0.9", effect: DENY, actions: [http.put]}
"""


@pytest.fixture
def ruled(tmp_path):
    proxy = Proxy(tmp_path, POLICY.replace('"*.sub.test", ', "") + RULES)
    try:
        yield proxy
    finally:
        proxy.stop()


def asked(proxy, path: bytes, host: bytes = b"allowed.test") -> bytes:
    return proxy.ask(GET % (path, host), host=host.decode())


def decisions(proxy) -> list[tuple[str, str, str]]:
    return [(r.action, r.verdict, r.guard) for r in proxy.journal.records if r.kind == "decision"]


def test_a_rule_opens_a_host_that_is_on_no_list_for_the_requests_it_allows(ruled):
    assert asked(ruled, b"/open/x", b"a.sub.test").startswith(b"HTTP/1.1 200")
    assert decisions(ruled) == [
        ("tcp.connect", "allow", "rule:sub.get"),
        ("http.get", "allow", "rule:sub.get"),
    ]


def test_the_tunnel_that_a_rule_opens_carries_nothing_else(ruled):
    assert asked(ruled, b"/secret", b"a.sub.test").startswith(b"HTTP/1.1 403")
    assert decisions(ruled)[-1] == ("http.get", "deny", "egress_allowlist")


def test_a_rule_refuses_what_an_entry_allows_and_says_why(ruled):
    answer = asked(ruled, b"/admin/users")
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"no admin" in answer
    assert b"rule_denied" in answer


def test_a_rule_counts_what_the_session_has_sent(ruled):
    answers = [asked(ruled, b"/x")[:12] for _ in range(5)]
    assert answers == [b"HTTP/1.1 200"] * 3 + [b"HTTP/1.1 403"] * 2


def test_what_a_rule_has_recorded_passes_and_is_marked(ruled):
    assert asked(ruled, b"/x?q=1").startswith(b"HTTP/1.1 200")
    marked = [r for r in ruled.journal.records if r.verdict == "audit"]
    assert [r.guard for r in marked] == ["rule:seen"]
    assert "seen" in marked[0].applied_policies


def test_a_rule_on_a_fact_that_nobody_knows_refuses_what_it_speaks_of(ruled):
    answer = ruled.ask(b"PUT /x HTTP/1.1\r\nHost: allowed.test\r\nContent-Length: 0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"rule_failed" in answer
    assert b"session.risk_score is not known" in answer


@pytest.mark.parametrize(
    "spelled",
    [
        b"/%61dmin/users",
        b"//admin/users",
        b"/x/../admin/users",
        b"/x/%2e%2e/admin/users",
        b"/x/..%2fadmin/users",
        b"/x/%252e%252e/admin/users",
        b"/..;/admin/users",
    ],
)
def test_a_path_is_refused_however_it_is_spelled(ruled, spelled):
    answer = asked(ruled, spelled)
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"no.admin" in answer
    assert ruled.origin.requests == []
