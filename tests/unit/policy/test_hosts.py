"""Host rules and their index: the same answers as asking each rule in turn."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.decide.policy.hosts import HostIndex, HostRule, names_address, parse_host_rule
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.host import parse_host

WEB = frozenset({80, 443})


def rule(text: str) -> HostRule:
    return parse_host_rule(Sourced(text, "p.yaml:4", 9))


def index(*texts: str, any_is_address: bool = False) -> HostIndex:
    return HostIndex(map(rule, texts), ports_without=WEB, any_is_address=any_is_address)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("api.example.com", "api.example.com"),
        ("API.Example.COM.", "api.example.com"),
        ("*.example.com", "a.example.com"),
        ("*.example.com", "a.b.example.com"),
        ("*.bücher.example", "x.xn--bcher-kva.example"),
        ("*", "anything.example"),
        ("*.com", "a.com"),
        ("api-*.example.com", "api-eu.example.com"),
        ("api.*.example.com", "api.eu.example.com"),
        ("a?c.example.com", "abc.example.com"),
        ("*a*b*.example.com", "xaxxbx.example.com"),
        ("10.0.0.0/8", "10.1.2.3"),
        ("127.1", "127.0.0.1"),
        ("fd00::/8", "fd12::1"),
        ("::1", "::1"),
    ],
)
def test_a_rule_names_its_hosts(text: str, host: str) -> None:
    assert index(text).find(parse_host(host), 443) is not None


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("example.com", "a.example.com"),
        ("example.com", "evil-example.com"),
        ("example.com", "example.com.evil.org"),
        ("*.example.com", "example.com"),
        ("*.example.com", "evilexample.com"),
        ("*.example.com", "example.com.evil.org"),
        ("*", "8.8.8.8"),
        ("*", "::1"),
        ("api-*.example.com", "api-a.b.example.com"),
        ("api.*.example.com", "api.a.b.example.com"),
        ("api.*.example.com", "api.example.com"),
        ("a?c.example.com", "ac.example.com"),
        ("10.0.0.0/8", "11.0.0.1"),
        ("10.0.0.0/8", "fd00::1"),
    ],
)
def test_a_rule_names_nothing_else(text: str, host: str) -> None:
    assert index(text).find(parse_host(host), 443) is None


def test_a_star_speaks_of_addresses_only_in_a_list_that_blocks() -> None:
    assert index("*", any_is_address=True).find(parse_host("8.8.8.8"), 443) is not None


@pytest.mark.parametrize(
    ("text", "port", "covered"),
    [
        ("a.example", 443, True),
        ("a.example", 80, True),
        ("a.example", 8443, False),
        ("a.example", 22, False),
        ("a.example:8443", 8443, True),
        ("a.example:8443", 443, False),
        ("a.example:*", 22, True),
        ("*.example:5432", 5432, True),
        ("*:22", 22, True),
        ("*:22", 443, False),
    ],
)
def test_a_rule_speaks_of_its_ports_only(text: str, port: int, *, covered: bool) -> None:
    assert (index(text).find(parse_host("a.example"), port) is not None) is covered


def test_a_rule_in_a_list_that_blocks_speaks_of_every_port() -> None:
    blocks = HostIndex([rule("a.example")], ports_without=None, any_is_address=True)
    assert blocks.find(parse_host("a.example"), 22) is not None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("https://a.example", "a URL; write the host only"),
        ("a.example/path", "a path, or a network whose address is a name; write the host only"),
        ("a b.example", "a space is not part of a host"),
        ("user@a.example", "user information is not part of a host"),
        ("*", None),
        ("**.a.example", "a wildcard beside xn--, or '**'"),
        ("xn--*.example", "a wildcard beside xn--, or '**'"),
        ("*paste*", "a '*' does not cross a dot, so this never matches; write *.NAME"),
        ("a.*.", None),
        ("*.1.2.3.4", "a wildcard before an address"),
        ("1.2.3.*", None),
        ("bü*.example", "only letters, digits, '-', '_', '*' and '?' beside a wildcard"),
        ("a.example:0", "the port is not a number from 1 to 65535, or *"),
        ("a.example:65536", "the port is not a number from 1 to 65535, or *"),
        ("a.example:", "the port is not a number from 1 to 65535, or *"),
        ("a.example:http", "the port is not a number from 1 to 65535, or *"),
        ("10.0.0.1/8", "bits are set beyond the length of the network; write 10.0.0.0/8"),
        ("10.0.0.0/x", "the length of the network is not a number"),
        ("fd00::/8:443", "an IPv6 network with a port stands in brackets: [fd00::/8]:443"),
        ("::ffff:10.0.0.0/104", "an IPv4 network inside IPv6; write it as IPv4"),
        ("[::1", "the bracket is not closed, or something other than a port follows"),
        ("[10.0.0.1]:80", "brackets are for IPv6 addresses"),
        ("a" * 600, "longer than 512 characters"),
    ],
)
def test_a_bad_rule_is_refused_with_its_place_and_reason(text: str, why: str | None) -> None:
    if why is None:
        assert rule(text).text == text
        return
    with pytest.raises(ConfigError) as caught:
        rule(text)
    assert str(caught.value) == f"p.yaml:4:9: bad host pattern {text[:80]!a}: {why}"


@pytest.mark.parametrize(
    ("text", "address", "named"),
    [
        ("10.0.0.0/8", "10.1.1.1", True),
        ("10.1.1.1", "10.1.1.1", True),
        ("0.0.0.0/0", "8.8.8.8", True),
        ("0.0.0.0/0", "10.1.1.1", False),
        ("0.0.0.0/0", "0.0.0.0", False),
        ("0.0.0.0/0", "127.0.0.1", False),
        ("8.0.0.0/6", "10.1.1.1", False),
        ("169.254.0.0/16", "169.254.1.1", True),
        ("169.254.0.0/16", "169.254.169.254", False),
        ("169.254.169.254", "169.254.169.254", True),
        ("100.64.0.0/10", "100.100.100.200", False),
        ("fd00::/8", "fd00:ec2::254", False),
        ("fc00::/7", "fd00::1", True),
        ("::/0", "::1", False),
        ("::/0", "2606:4700::1", True),
        ("*", "8.8.8.8", False),
    ],
)
def test_a_wide_network_does_not_open_a_special_address_by_the_way(
    text: str, address: str, *, named: bool
) -> None:
    assert names_address(rule(text), ip_address(address)) is named


_LABEL = st.sampled_from(["a", "b", "ab", "com", "x1"])
_NAME = st.lists(_LABEL, min_size=1, max_size=4).map(".".join)
_RULE = st.one_of(
    _NAME,
    _NAME.map(lambda name: f"*.{name}"),
    st.tuples(st.sampled_from(["a*", "*b", "?"]), _NAME).map(".".join),
    st.tuples(_NAME, st.sampled_from(["*", "a?"]), _NAME).map(".".join),
    st.tuples(_NAME, st.just("*")).map(".".join),
    st.just("*"),
)
_PORT = st.sampled_from(["", ":443", ":22", ":*"])


def _names(text: str, host: str) -> bool:
    """Say by definition whether a rule without its port names a host."""
    if text == "*":
        return True
    if text.startswith("*.") and "*" not in text[2:] and "?" not in text:
        return host.endswith(text[1:])
    patterns, labels = text.split("."), host.split(".")
    return len(patterns) == len(labels) and all(map(_label, patterns, labels))


def _label(pattern: str, label: str) -> bool:
    if not pattern:
        return not label
    if pattern[0] == "*":
        return any(_label(pattern[1:], label[cut:]) for cut in range(len(label) + 1))
    return bool(label) and pattern[0] in ("?", label[0]) and _label(pattern[1:], label[1:])


@given(st.lists(st.tuples(_RULE, _PORT), max_size=6), _NAME, st.sampled_from([22, 80, 443]))
def test_the_index_finds_a_rule_exactly_when_one_covers_host_and_port(
    rules: list[tuple[str, str]], host: str, port: int
) -> None:
    expected = any(
        _names(text, host) and (port in WEB if not part else part in (":*", f":{port}"))
        for text, part in rules
    )
    found = index(*(text + part for text, part in rules)).find(parse_host(host), port)
    assert (found is not None) is expected


@given(st.text(max_size=30))
def test_any_text_is_a_rule_or_a_config_error(text: str) -> None:
    try:
        rule(text)
    except ConfigError as error:
        told = str(error)
    else:
        return
    assert told.startswith("p.yaml:4:9: bad host pattern ")
