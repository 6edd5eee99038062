"""A described attempt becomes the event it describes, or is refused with the fact's name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.errors import InputError
from aesp_proxy.model.context import NO_CONTEXT, Level
from aesp_proxy.model.event import (
    CustomEvent,
    EgressConnect,
    EgressRequest,
    FileAccess,
    FileOperation,
    PatchApply,
    ToolCall,
)
from aesp_proxy.normalize.described import described

NOW = 1_767_607_200_000_000_000


def event_of(request: dict[str, Any], **beside: Any) -> Any:
    return described({"request": request, **beside}, time_ns=NOW)[0]


def refused(facts: dict[str, Any]) -> InputError:
    with pytest.raises(InputError) as caught:
        described(facts, time_ns=NOW)
    return caught.value


def test_a_request_is_filled_in_as_an_ordinary_one() -> None:
    event = event_of({"action": "http.post", "host": "API.Example.com"})
    assert isinstance(event, EgressRequest)
    assert (event.scheme, event.port, event.path, event.method) == ("https", 443, "/", "POST")
    assert (event.host.name, event.sni, event.connect_host) == ("api.example.com",) * 3
    assert event.headers == ((b"host", b"api.example.com"),)
    assert (event.time_ns, event.action, event.content_length) == (NOW, "http.post", None)


def test_what_is_stated_of_a_request_holds() -> None:
    event = event_of(
        {
            "action": "http.get",
            "time": "2026-01-05T11:00:00+01:00",
            "host": "10.0.0.1",
            "scheme": "http",
            "port": 8080,
            "path": "/a%20b",
            "query": "q=1",
            "headers": {"accept": ["a", "b"], "x-one": "1"},
            "content_type": "text/plain",
        },
        content="four",
    )
    assert event.time_ns == NOW
    assert (event.target, event.path, event.query) == ("/a%20b?q=1", "/a%20b", "q=1")
    assert event.headers == (
        (b"host", b"10.0.0.1:8080"),
        (b"accept", b"a"),
        (b"accept", b"b"),
        (b"x-one", b"1"),
        (b"content-type", b"text/plain"),
    )
    assert (event.sni, event.connect_host, event.content_length) == ("", "", 4)


def test_the_other_kinds() -> None:
    connect = event_of({"action": "tcp.connect", "host": "db.example.com", "port": 5432})
    assert isinstance(connect, EgressConnect)
    assert connect.port == 5432
    place = {"path": "/a/../b", "resolved": "/c"}
    file = event_of({"action": "file.create", "resource": place}, content="x")
    assert isinstance(file, FileAccess)
    assert (file.operation, file.path, file.resolved, file.content) == (
        FileOperation.CREATE,
        "/b",
        "/c",
        b"x",
    )
    patch = event_of({"action": "file.write", "resource": {"path": "/b"}}, patch="+x\n")
    assert isinstance(patch, PatchApply)
    assert (patch.path, patch.resolved, patch.patch) == ("/b", "/b", b"+x\n")
    tool = event_of(
        {"action": "tool.call"}, tool={"server": "s", "name": "t", "arguments": {"a": [1, None]}}
    )
    assert isinstance(tool, ToolCall)
    assert (tool.server, tool.name, tool.arguments) == ("s", "t", b'{"a":[1,null]}')
    assert isinstance(event_of({"action": "custom"}), CustomEvent)


def test_what_is_not_stated_is_not_known() -> None:
    _, context = described({"request": {"action": "custom"}}, time_ns=NOW)
    assert context == NO_CONTEXT


def test_what_surrounds_the_event() -> None:
    event, context = described(
        {
            "request": {
                "action": "tool.call",
                "source_ip": "10.1.2.3",
                "user": {
                    "id": "u",
                    "roles": ["dev"],
                    "security_clearance": "secret",
                    "mfa_verified": True,
                    "spending_limit": 5,
                },
                "tenant": {"id": "t", "cost_center": "cc", "region": "eu"},
                "resource": {"classification": "public", "labels": [], "estimated_cost": 1.5},
            },
            "organization": {"id": "o", "approved_cost_centers": ["cc"]},
            "agent": {"id": "a", "type": "coder", "session_id": "s", "executable": "/bin/a"},
            "session": {"labels": ["pii"], "risk_score": 0.5, "started_at": "2026-01-05T10:00:00Z"},
            "tool": {"name": "t", "contract": {"version": "1.0", "approval_status": "APPROVED"}},
        },
        time_ns=0,
    )
    who = event.principal
    assert (who.principal_id, who.agent_id, who.agent_type) == ("u", "a", "coder")
    assert (who.session_id, who.tenant_id, who.source_ip) == ("s", "t", "10.1.2.3")
    assert context.claims.roles == ("dev",)
    assert context.claims.security_clearance is Level.SECRET
    assert context.claims.spending_limit == 5.0
    assert context.claims.approved_cost_centers == ("cc",)
    assert context.resource.labels == ()
    assert context.session.started_ns == NOW
    assert context.contract.approval_status == "APPROVED"
    assert context.agent_executable == "/bin/a"


GET = {"action": "http.get", "host": "a.example"}


@pytest.mark.parametrize(
    ("facts", "where"),
    [
        ({}, "request.action"),
        ({"request": {"action": "llm.call"}}, "request.action"),
        ({"request": {"action": "dns.query"}}, "request.host"),
        ({"request": {"action": "dns.query", "host": "10.0.0.1"}}, "request.host"),
        ({"request": {"action": "dns.query", "host": "a", "port": 53}}, "request.port"),
        ({"request": {"action": "http.GET", "host": "a"}}, "request.action"),
        ({"request": {"action": "http.", "host": "a"}}, "request.action"),
        ({"request": {"action": "http.get"}}, "request.host"),
        ({"request": {**GET, "host": "a b"}}, "request.host"),
        ({"request": {**GET, "hots": "a"}}, "request.hots"),
        ({"request": {**GET, "port": True}}, "request.port"),
        ({"request": {**GET, "port": 0}}, "request.port"),
        ({"request": {**GET, "port": "443"}}, "request.port"),
        ({"request": {**GET, "scheme": "ftp"}}, "request.scheme"),
        ({"request": {**GET, "method": "POST"}}, "request.method"),
        ({"request": {**GET, "path": "a"}}, "request.path"),
        ({"request": {**GET, "path": "/a b"}}, "request.path"),
        ({"request": {**GET, "path": "/a?b"}}, "request.path"),
        ({"request": {**GET, "query": "é"}}, "request.query"),
        ({"request": {**GET, "headers": {"A": "b"}}}, "request.headers.A"),
        ({"request": {**GET, "headers": {"a": "b\r\nc: d"}}}, "request.headers.a"),
        ({"request": {**GET, "headers": {"a": 1}}}, "request.headers.a"),
        ({"request": {**GET, "headers": ["a"]}}, "request.headers"),
        ({"request": {**GET, "size": 3}, "content": "four"}, "request.size"),
        ({"request": {**GET, "time": "2026-01-05T10:00:00"}}, "request.time"),
        ({"request": {**GET, "time": "2026-01-05"}}, "request.time"),
        ({"request": {**GET, "source_ip": "10.0.0.0/8"}}, "request.source_ip"),
        ({"request": {**GET, "user": {"roles": "dev"}}}, "request.user.roles"),
        ({"request": {**GET, "user": {"roles": None}}}, "request.user.roles"),
        ({"request": {**GET, "user": {"rolse": []}}}, "request.user.rolse"),
        (
            {"request": {**GET, "user": {"security_clearance": "high"}}},
            "request.user.security_clearance",
        ),
        ({"request": {**GET, "user": {"mfa_verified": "yes"}}}, "request.user.mfa_verified"),
        (
            {"request": {**GET, "user": {"spending_limit": float("nan")}}},
            "request.user.spending_limit",
        ),
        ({"request": {**GET, "resource": {"path": "/a"}}}, "request.resource.path"),
        ({"request": GET, "session": {"risk_score": -1}}, "session.risk_score"),
        ({"request": GET, "session": {"denials": 1.0}}, "session.denials"),
        ({"request": GET, "tool": {"name": "t"}}, "tool"),
        ({"request": GET, "patch": "+a"}, "patch"),
        ({"request": {"action": "tool.call"}}, "tool.name"),
        ({"request": {"action": "tool.call", "host": "a"}, "tool": {"name": "t"}}, "request.host"),
        (
            {
                "request": {"action": "tool.call"},
                "tool": {"name": "t", "arguments": {"a": float("inf")}},
            },
            "tool.arguments",
        ),
        ({"request": {"action": "file.open"}}, "request.resource.path"),
        (
            {"request": {"action": "file.open", "resource": {"path": "a"}}},
            "request.resource.path",
        ),
        (
            {"request": {"action": "file.open", "resource": {"path": "/a"}}, "patch": "+x"},
            "patch",
        ),
        (
            {
                "request": {"action": "file.write", "resource": {"path": "/a"}},
                "patch": "--- a/b\n+++ b/b\n",
            },
            "patch",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_the_name_of_the_fact(facts: Any, where: str) -> None:
    assert refused(facts).where == where


def test_the_nearest_known_fact_is_proposed() -> None:
    assert refused({"request": {**GET, "hots": "a"}}).remedy == "did you mean 'host'?"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
NAMES = st.sampled_from(["action", "host", "port", "headers", "user", "resource", "time", "size"])


@given(
    request=st.dictionaries(NAMES, JSON),
    beside=st.dictionaries(st.sampled_from(["session", "agent", "tool", "content"]), JSON),
    action=st.sampled_from(["http.get", "tcp.connect", "file.write", "tool.call", "custom"]),
)
def test_no_value_does_anything_but_describe_or_be_refused(
    request: dict[str, object], beside: dict[str, object], action: str
) -> None:
    where = "nothing was refused"
    try:
        described({"request": {**request, "action": action}, **beside}, time_ns=NOW)
    except InputError as error:
        where = error.where
    assert where
