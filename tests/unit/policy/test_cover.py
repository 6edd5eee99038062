"""What covers what: a yes is always right, by the indexes that decide; a no has a witness."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aesp_proxy.decide.policy.cover_hosts import WEB_PORTS, covers, hosts_of, uncovered
from aesp_proxy.decide.policy.cover_names import (
    glob_covers,
    paths_of,
    tool_covers,
    tools_of,
    uncovered_path,
    uncovered_tool,
)
from aesp_proxy.decide.policy.globs import PathGlobs, check_path_glob
from aesp_proxy.decide.policy.hosts import HostIndex, names_address, parse_host_rule
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.decide.policy.tools import ToolIndex, check_tool_rule
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.host import parse_host


def said(text):
    return Sourced(text, "p:1")


def rule(text):
    return parse_host_rule(said(text))


def allows(index, host, port):
    if host.address is None:
        return index.find(host, port) is not None
    return any(
        r.covers(port, WEB_PORTS) and names_address(r, host.address) for r in index.naming(host)
    )


LABELS = st.sampled_from(["a", "b", "ab", "a-b", "*", "a*", "*b", "a?", "?"])
NAMES = st.lists(LABELS, min_size=2, max_size=4).map(".".join)
NETWORKS = st.sampled_from(
    ["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "8.0.0.0/5", "8.8.8.8", "127.0.0.1", "fd00::/8",
     "::/0", "169.254.0.0/16", "169.254.169.254", "192.168.0.0/16", "0.0.0.0/1"]
)  # fmt: skip
PORTS = st.sampled_from(["", ":443", ":8443", ":*", ":80"])
HOSTS = st.one_of(
    st.builds(lambda n, p: n + p, NAMES, PORTS),
    st.builds(lambda n, p: n + p if ":" not in n else n, NETWORKS, PORTS),
    st.sampled_from(["*", "*:*", "*:22"]),
)
EVENT_HOSTS = st.one_of(
    st.lists(st.sampled_from(["a", "b", "ab", "a-b", "abb"]), min_size=1, max_size=4).map(".".join),
    st.sampled_from(["10.1.2.3", "10.0.0.1", "8.8.8.8", "127.0.0.1", "fd00::1", "169.254.169.254"]),
)


def good(text, check):
    try:
        check(said(text))
    except ConfigError:
        return False
    return True


@settings(max_examples=300)
@given(
    HOSTS.filter(lambda text: good(text, parse_host_rule)),
    HOSTS.filter(lambda text: good(text, parse_host_rule)),
    EVENT_HOSTS.map(parse_host),
    st.sampled_from([80, 443, 8443, 22, 4443]),
)
def test_a_host_rule_that_covers_another_allows_all_that_it_allows(outer, inner, host, port):
    one, other = rule(outer), rule(inner)
    indexes = [HostIndex((r,), ports_without=WEB_PORTS, any_is_address=False) for r in (one, other)]
    if covers(one, other):
        for each in (host, *hosts_of(other)):
            assert not allows(indexes[1], each, port) or allows(indexes[0], each, port)
    witness = uncovered(other, (one,))
    if covers(one, other):
        assert witness is None


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        ("*.a.example", "x.a.example", True),
        ("*.a.example", "a.example", False),
        ("*.a.example", "*.b.a.example", True),
        ("*.a.example", "x-*.a.example", True),
        ("*.a.example", "*", False),
        ("*", "*.a.example:443", True),
        ("*", "10.0.0.1", False),
        ("api-*.example", "api-x*.example", True),
        ("api-?.example", "api-*.example", False),
        ("10.0.0.0/8", "10.1.0.0/16", True),
        ("0.0.0.0/0", "10.0.0.0/8", False),
        ("0.0.0.0/0", "8.8.8.0/24", True),
        ("a.example", "a.example:8443", False),
        ("a.example:*", "a.example", True),
        ("a.example:443", "a.example", False),
    ],
)
def test_host_rules_compare_as_the_guard_reads_them(outer, inner, expected):
    assert covers(rule(outer), rule(inner)) is expected
    assert (uncovered(rule(inner), (rule(outer),)) is None) is expected


def test_two_rules_together_may_cover_the_ports_of_one():
    assert uncovered(rule("a.example"), (rule("a.example:443"), rule("a.example:80"))) is None


PIECES = st.sampled_from(["a", "b", "*", "?", "[ab]", "[!a]", "{a,b}", "{ab,b*}", "a*", "*b", "é"])
GLOBS = st.builds(
    lambda head, parts: head + "/".join(parts),
    st.sampled_from(["/", "**/"]),
    st.lists(st.one_of(PIECES, st.just("**")), min_size=1, max_size=4),
).filter(lambda text: good(text, check_path_glob))
PATHS = st.lists(st.sampled_from(["a", "b", "ab", "ba", "é", "abb"]), max_size=4).map(
    lambda parts: "/" + "/".join(parts)
)


@settings(max_examples=300)
@given(GLOBS, GLOBS, st.lists(PATHS, max_size=8))
def test_a_glob_that_covers_another_matches_all_that_it_matches(outer, inner, paths):
    one, other = (PathGlobs([said(text)], fold=False) for text in (outer, inner))
    assert all(other.find(path) is not None for path in paths_of(inner))
    witness = uncovered_path(said(inner), [said(outer)])
    if glob_covers(outer, inner):
        assert witness is None
        for path in (*paths, *paths_of(inner)):
            assert other.find(path) is None or one.find(path) is not None


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        ("/srv/**", "/srv", True),
        ("/srv/**", "/srv/a/*.txt", True),
        ("/srv/*", "/srv/**", False),
        ("**", "/", True),
        ("**/.env", "/a/.env", True),
        ("/w/{a,b}", "/w/[ab]", False),
        ("/w/[a-c]", "/w/{a,b}", True),
        ("/w/a", "/W/a", False),
        ("/a/**/b", "/a/b", True),
    ],
)
def test_globs_compare_name_by_name(outer, inner, expected):
    assert glob_covers(outer, inner) is expected


TOOLS = st.builds(
    "".join, st.lists(st.sampled_from(["a", "b", "*", "?", "/", "é"]), min_size=1, max_size=4)
).filter(lambda text: good(text, check_tool_rule))
CALLS = st.tuples(st.sampled_from(["", "a", "b"]), st.sampled_from(["a", "ab", "é", "a/b", "b"]))


@settings(max_examples=300)
@given(TOOLS, TOOLS, st.lists(CALLS, max_size=8))
def test_a_tool_rule_that_covers_another_allows_all_that_it_allows(outer, inner, calls):
    one, other = (ToolIndex([said(text)], refuses=False) for text in (outer, inner))
    if tool_covers(outer, inner):
        assert uncovered_tool(said(inner), [said(outer)]) is None
        for server, name in (*calls, *tools_of(inner)):
            assert other.find(server, name) is None or one.find(server, name) is not None


def test_the_tool_of_one_server_is_not_covered_by_the_tool_of_any():
    assert uncovered_tool(said("fs/read"), [said("read")]) == ("", "fs/read")
