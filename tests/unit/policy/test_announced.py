"""Announced events: the seed system's shape, and a refusal for every doubt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.errors import InputError
from aesp_proxy.model.event import (
    CustomEvent,
    Event,
    FileAccess,
    FileOperation,
    NetworkAccess,
    PatchApply,
    ToolCall,
)
from aesp_proxy.normalize.announced import announcement, event_id_of, event_of, split_url
from aesp_proxy.normalize.json_text import read_json


def event(kind: str, data: dict[str, object], **more: object) -> Event:
    value = {"eventId": "e1", "eventType": kind, "data": data, **more}
    return event_of(announcement(read_json(json.dumps(value)), time_ns=5))


def test_a_file_event_is_an_access_to_its_path() -> None:
    made = event(
        "file_write",
        {"type": "file", "path": "/w/./a/../b.txt", "content": "héllo", "operation": "create"},
        timestamp="2026-01-31T12:00:00.5+01:00",
        sessionId="s9",
        metadata={"agentId": "a7"},
    )
    assert isinstance(made, FileAccess)
    assert (made.path, made.resolved, made.content) == ("/w/b.txt", "/w/b.txt", "héllo".encode())
    assert made.operation is FileOperation.CREATE
    assert made.time_ns == 1_769_857_200_500_000_000
    assert (made.principal.session_id, made.principal.agent_id) == ("s9", "a7")
    assert made.principal.agent_type == "announced"


@pytest.mark.parametrize(
    ("kind", "operation", "expected"),
    [
        ("file_read", None, FileOperation.OPEN),
        ("file_read", "read", FileOperation.OPEN),
        ("file_read", "exec", FileOperation.EXEC),
        ("file_write", None, FileOperation.WRITE),
        ("file_write", "append", FileOperation.WRITE),
        ("file_write", "delete", FileOperation.DELETE),
        ("file_write", "rename", FileOperation.RENAME),
    ],
)
def test_an_operation_fits_its_type(
    kind: str, operation: str | None, expected: FileOperation
) -> None:
    data = {"path": "/a"} | ({} if operation is None else {"operation": operation})
    made = event(kind, data)
    assert isinstance(made, FileAccess)
    assert made.operation is expected


@pytest.mark.parametrize(
    ("path", "metadata", "expected"),
    [
        ("/a//b/", {}, "/a/b"),
        ("//a", {}, "/a"),
        ("/", {}, "/"),
        ("/../../a", {}, "/a"),
        ("b/c", {"cwd": "/w"}, "/w/b/c"),
        ("../c", {"cwd": "/w/x"}, "/w/c"),
        ("~/.ssh/id", {"home": "/home/x"}, "/home/x/.ssh/id"),
        ("~", {"home": "/home/x"}, "/home/x"),
    ],
)
def test_a_path_becomes_absolute_and_normalised(
    path: str, metadata: dict[str, object], expected: str
) -> None:
    made = event("file_read", {"path": path}, metadata=metadata)
    assert isinstance(made, FileAccess)
    assert made.path == expected


def test_the_resolver_sees_the_path_before_dots_are_taken_out(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    value = {
        "eventId": "e",
        "eventType": "file_read",
        "data": {"path": f"{tmp_path}/link/../x"},
    }
    said = announcement(read_json(json.dumps(value)), time_ns=0)
    made = event_of(said, resolve=lambda path: str(Path(path).resolve()))
    assert isinstance(made, FileAccess)
    assert made.path == f"{tmp_path}/x"
    assert made.resolved == f"{tmp_path}/real/x"


def test_a_network_event_has_host_and_port() -> None:
    made = event(
        "network_egress",
        {"host": "API.example.com.", "port": 443, "url": "https://api.example.com/v1?x=1"},
    )
    assert isinstance(made, NetworkAccess)
    assert (made.host.name, made.port) == ("api.example.com", 443)
    assert made.url == "https://api.example.com/v1?x=1"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"url": "https://a.example"}, ("a.example", 443)),
        ({"url": "HTTP://a.example/x"}, ("a.example", 80)),
        ({"url": "wss://a.example:9/x#f"}, ("a.example", 9)),
        ({"url": "https://[::1]?q"}, ("::1", 443)),
        ({"url": "https://0x7f.1/"}, ("127.0.0.1", 443)),
        ({"host": "a.example", "protocol": "HTTPS"}, ("a.example", 443)),
        ({"host": "a.example", "port": 22, "protocol": "tcp"}, ("a.example", 22)),
    ],
)
def test_the_port_comes_from_the_url_or_the_protocol(
    data: dict[str, object], expected: tuple[str, int]
) -> None:
    made = event("network_egress", data)
    assert isinstance(made, NetworkAccess)
    assert (made.host.name, made.port) == expected


@pytest.mark.parametrize(
    "data",
    [
        {"filePath": "/w/a", "patchContent": "+x"},
        {"path": "/w/a", "patch": "+x"},
        {"file_path": "/w/a", "patch_content": "+x"},
        {"path": "/w/a", "filePath": "/w/a", "patch": "+x", "patchContent": "+x"},
    ],
)
def test_a_patch_event_is_read_in_every_spelling(data: dict[str, object]) -> None:
    made = event("patch_apply", data)
    assert isinstance(made, PatchApply)
    assert (made.path, made.patch) == ("/w/a", b"+x")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"toolName": "t"}, ("", "t", b"")),
        ({"tool_name": "t", "server_name": "s", "arguments": {"a": [1]}}, ("s", "t", b'{"a":[1]}')),
        ({"tool": "t", "server": "s", "parameters": "raw"}, ("s", "t", b"raw")),
        ({"tool": "t", "parameters": {"k": "\ud800é"}}, ("", "t", b'{"k":"\xed\xa0\x80\xc3\xa9"}')),
        ({"tool": ""}, ("", "", b"")),
    ],
)
def test_a_tool_event_is_a_call(data: dict[str, object], expected: tuple[str, str, bytes]) -> None:
    made = event("tool_call", data)
    assert isinstance(made, ToolCall)
    assert (made.server, made.name, made.arguments) == expected


def test_a_custom_event_keeps_its_kind() -> None:
    made = event("custom", {"customType": "x.y", "anything": [1]})
    assert isinstance(made, CustomEvent)
    assert made.kind == "x.y"


def test_without_a_timestamp_the_time_that_is_passed_in_holds() -> None:
    assert event("custom", {}).time_ns == 5


def test_base64_content_is_decoded() -> None:
    made = event("file_write", {"path": "/a", "contentBase64": "AP8="})
    assert isinstance(made, FileAccess)
    assert made.content == b"\x00\xff"


@pytest.mark.parametrize(
    ("kind", "data", "why"),
    [
        ("file_read", {}, "path is missing"),
        ("file_read", {"path": 7}, "path is not a text"),
        ("file_read", {"path": ""}, "data.path is empty"),
        ("file_read", {"path": "/a\x00b"}, "holds NUL"),
        ("file_read", {"path": "/" + "a" * 5000}, "longer than 4096"),
        ("file_read", {"path": "rel/x"}, "is relative, and metadata.cwd is not an absolute path"),
        ("file_read", {"path": "~/x"}, "metadata.home is not an absolute path"),
        ("file_read", {"path": "~root/x"}, "another user's home"),
        ("file_read", {"path": "C:\\x"}, "is relative"),
        ("file_read", {"path": "/a", "filePath": "/b"}, "path and filePath say different things"),
        ("file_read", {"path": "/a", "operation": "write"}, "does not fit file_read"),
        ("file_write", {"path": "/a", "operation": "read"}, "does not fit file_write"),
        ("file_write", {"path": "/a", "content": "x", "contentBase64": "eA=="}, "both given"),
        ("file_write", {"path": "/a", "contentBase64": "e"}, "not base64"),
        ("file_write", {"path": "/a", "contentBase64": "eA==\n!"}, "not base64"),
        ("file_write", {"path": "/a", "content": ["x"]}, "data.content is not a text"),
        ("file_read", {"path": "/a", "type": "network"}, "does not fit eventType file_read"),
        ("network_egress", {}, "data.host is missing"),
        ("network_egress", {"host": "a.example"}, "data.port is missing"),
        ("network_egress", {"host": "a.example", "port": 0}, "data.port is not a whole number"),
        ("network_egress", {"host": "a.example", "port": True}, "data.port is not a whole number"),
        ("network_egress", {"host": "a.example", "port": "443"}, "data.port is not a whole number"),
        ("network_egress", {"host": "a.example", "port": 4e2}, "data.port is not a whole number"),
        ("network_egress", {"host": "a b", "port": 443}, "a space is not part of a host"),
        ("network_egress", {"host": "a.example:443", "port": 443}, "a colon"),
        ("network_egress", {"host": "b.example", "url": "https://a.example/"}, "not the same"),
        ("network_egress", {"port": 80, "url": "https://a.example/"}, "not the same"),
        ("network_egress", {"url": "https://u:p@a.example/"}, "user information"),
        ("network_egress", {"url": "https://u@a.example/"}, "user information"),
        ("network_egress", {"url": "https://a.example\\@b.example/"}, "does not belong in a URL"),
        ("network_egress", {"url": "https://a.example /"}, "does not belong in a URL"),
        ("network_egress", {"url": "https://ä.example/"}, "does not belong in a URL"),
        ("network_egress", {"url": "https:a.example"}, "not an absolute"),
        ("network_egress", {"url": "ftp://a.example"}, "not an absolute"),
        ("network_egress", {"url": "//a.example"}, "not an absolute"),
        ("network_egress", {"url": "https:///x"}, "empty"),
        ("patch_apply", {"filePath": "/a"}, "patchContent is missing"),
        ("patch_apply", {"patchContent": "x"}, "filePath is missing"),
        ("patch_apply", {"filePath": "/a", "patch": "x", "patchContent": "y"}, "say different"),
        (
            "patch_apply",
            {"filePath": "/w/a", "patch": "--- /dev/null\n+++ /etc/passwd\n"},
            "names another file: '/etc/passwd'",
        ),
        ("tool_call", {}, "toolName is missing"),
        ("tool_call", {"toolName": "a", "tool": "b"}, "say different things"),
        ("tool_call", {"tool": "a", "arguments": 1, "parameters": True}, "say different things"),
        ("command_exec", {}, "eventType 'command_exec' is not one of"),
        ("", {}, "eventType '' is not one of"),
    ],
)
def test_a_doubt_is_refused_with_its_reason(kind: str, data: dict[str, object], why: str) -> None:
    with pytest.raises(InputError) as caught:
        event(kind, data)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("stamp", "good"),
    [
        ("2026-01-31T12:00:00Z", True),
        ("2026-01-31T12:00:00", False),
        ("yesterday", False),
        ("0001-01-01T00:00:00+23:59", False),
        (1769857200, False),
        ("2026-01-31T12:00:00Z" + "0" * 100, False),
    ],
)
def test_a_time_without_an_offset_is_no_time(stamp: object, *, good: bool) -> None:
    if good:
        assert event("custom", {}, timestamp=stamp).time_ns == 1_769_860_800_000_000_000
    else:
        with pytest.raises(InputError, match="timestamp is not RFC 3339"):
            event("custom", {}, timestamp=stamp)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not valid JSON"),
        ("[]", "not a JSON object"),
        ('"x"', "not a JSON object"),
        ("{", "not valid JSON"),
        ('{"a":1,"a":2}', "a key stands twice"),
        ('{"a":NaN}', "NaN is not JSON"),
        ('{"a":' + "9" * 5000 + "}", "a number too long"),
        ('{"a":' + "[" * 100_000 + "}", "nested too deep"),
        (b'{"a":"\xff"}', "not UTF-8"),
        ('{"a":1}'.encode("utf-16"), "not UTF-8"),
        ("\ufeff{}", "not valid JSON"),
    ],
)
def test_what_is_not_one_json_object_is_refused(text: str | bytes, why: str) -> None:
    with pytest.raises(InputError, match=why):
        read_json(text)


@pytest.mark.parametrize(
    "value", [{}, {"eventId": ""}, {"eventId": []}, {"eventId": True}, {"eventId": "x" * 257}]
)
def test_an_event_without_an_id_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(InputError, match="eventId is missing"):
        event_id_of(value)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
_KEYS = st.sampled_from(
    [
        "path",
        "filePath",
        "content",
        "contentBase64",
        "host",
        "port",
        "url",
        "protocol",
        "tool",
        "toolName",
        "server",
        "parameters",
        "arguments",
        "patch",
        "operation",
        "type",
        "customType",
    ]
)


@given(
    st.sampled_from(
        ["file_read", "file_write", "network_egress", "patch_apply", "tool_call", "custom", "x"]
    ),
    st.dictionaries(_KEYS, _JSON, max_size=6),
    _JSON,
    _JSON,
)
def test_any_json_is_an_event_or_an_input_error(
    kind: str, data: dict[str, object], stamp: object, metadata: object
) -> None:
    try:
        made = event(kind, data, timestamp=stamp, metadata=metadata)
    except InputError:
        return
    assert made.event_id == "e1"


@given(st.text(max_size=40))
def test_a_url_has_the_host_that_everyone_would_read(text: str) -> None:
    try:
        host, port = split_url(f"https://{text}")
    except InputError:
        return
    assert not set(text) & set("\\ \t\r\n")
    authority = text.split("/", maxsplit=1)[0].split("?", maxsplit=1)[0].split("#", maxsplit=1)[0]
    assert "@" not in authority
    assert 1 <= port <= 65535
    assert host.name
