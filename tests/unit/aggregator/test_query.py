"""Questions are read strictly, and times and cursors mean one thing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.aggregator.ports import EventCursor, EventQuery, EventRow
from aesp_proxy.aggregator.query import (
    event_json,
    format_cursor,
    format_time,
    next_cursor,
    parse_cursor,
    parse_query,
    parse_time,
)
from aesp_proxy.errors import InputError

NOW_NS = 1_800_000_000_000_000_000
ROW = EventRow(
    time_ns=NOW_NS,
    origin="h-one",
    epoch=2,
    seq=7,
    kind="decision",
    agent="a",
    host="api.example.test",
    verdict="deny",
    reason="host_blocked",
    guard="egress_allowlist",
    action="http.get",
    outcome="DENIED",
    session="s",
    tenant="",
    status=403,
)


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("1970-01-01T00:00:01Z", 10**9),
        ("1970-01-01T00:00:01", 10**9),
        ("1970-01-01T01:00:00.000001+01:00", 1000),
        ("1970-01-02", 86_400 * 10**9),
        ("0s", NOW_NS),
        ("90s", NOW_NS - 90 * 10**9),
        ("15m", NOW_NS - 900 * 10**9),
        ("1h", NOW_NS - 3600 * 10**9),
        ("7d", NOW_NS - 7 * 86_400 * 10**9),
        ("999999999w", 0),
    ],
)
def test_a_time_is_iso_8601_or_so_long_ago(text: str, time_ns: int) -> None:
    assert parse_time(text, now_ns=NOW_NS, where="since") == time_ns


@pytest.mark.parametrize(
    "text",
    ["", "now", "h", "-1h", "1 h", "\u0661h", "1e3s", "2026-13-01", "1960-01-01", "9999999999s"],
)
def test_what_is_no_time_is_refused_by_name(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_time(text, now_ns=NOW_NS, where="since")
    assert caught.value.where == "since"


@pytest.mark.parametrize(
    ("parameters", "where"),
    [
        ({"hots": "x"}, "hots"),
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"limit": "9" * 30}, "limit"),
        ({"verdict": "denied"}, "verdict"),
        ({"kind": "any"}, "kind"),
        ({"agent": "a" * 1025}, "agent"),
        ({"cursor": "?"}, "cursor"),
        ({"cursor": "MSwyLDM="}, "cursor"),
        ({"cursor": "A" * 10_000}, "cursor"),
        ({"since": "soon"}, "since"),
    ],
)
def test_a_wrong_parameter_is_named(parameters: dict[str, str], where: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_query(parameters, now_ns=NOW_NS)
    assert caught.value.where == where


def test_a_question_without_parameters_asks_for_the_newest_hundred() -> None:
    assert parse_query({}, now_ns=NOW_NS) == EventQuery(limit=100)


def test_every_filter_reaches_the_query() -> None:
    filters = dict.fromkeys(("origin", "agent", "host", "reason", "session", "tenant"), "x")
    query = parse_query(filters | {"verdict": "deny", "kind": "outcome"}, now_ns=NOW_NS)
    assert query == EventQuery(
        origin="x",
        agent="x",
        host="x",
        reason="x",
        session="x",
        tenant="x",
        verdict="deny",
        kind="outcome",
    )


INT63 = st.integers(0, (1 << 63) - 1)


@given(time_ns=INT63, epoch=INT63, seq=INT63)
def test_a_cursor_names_its_place(time_ns: int, epoch: int, seq: int) -> None:
    from dataclasses import replace

    row = replace(ROW, time_ns=time_ns, epoch=epoch, seq=seq)
    assert parse_cursor(format_cursor(row)) == EventCursor(
        time_ns=time_ns, origin="h-one", epoch=epoch, seq=seq
    )


@given(text=st.text(max_size=80))
def test_any_text_is_a_cursor_or_an_input_error(text: str) -> None:
    try:
        parse_cursor(text)
    except InputError:
        return


@given(time_ns=INT63)
def test_any_time_can_be_shown(time_ns: int) -> None:
    assert format_time(time_ns)


def test_times_are_shown_to_the_nanosecond() -> None:
    assert format_time(1_800_000_000_123_456_789) == "2027-01-15T08:00:00.123456789Z"


def test_only_a_full_page_has_a_next_one() -> None:
    assert next_cursor(EventQuery(limit=2), [ROW]) is None
    assert next_cursor(EventQuery(limit=1), [ROW]) == format_cursor(ROW)
    assert next_cursor(EventQuery(limit=1), []) is None


def test_an_event_in_json_has_its_id_and_time() -> None:
    shown: dict[str, Any] = event_json(ROW)
    assert shown["id"] == "h-one/2/7"
    assert shown["time"].endswith("Z")
    assert "record" not in shown
