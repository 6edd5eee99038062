"""The host parser: one spelling for each host, or a refusal that says why."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aesp_proxy.errors import InputError
from aesp_proxy.model.host import Host, parse_authority, parse_host


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.com", "example.com"),
        ("example.com.", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("ⓔxample。com", "example.com"),
        ("exam\u00adple.com", "example.com"),
        ("faß.example", "xn--fa-hia.example"),
        ("my_service.internal", "my_service.internal"),
        ("r3---sn-4g5e.googlevideo.com", "r3---sn-4g5e.googlevideo.com"),
        ("localhost", "localhost"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
    ],
)
def test_every_spelling_of_a_name_becomes_the_same_name(text: str, name: str) -> None:
    assert parse_host(text) == Host(name)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0X7F.1", "127.0.0.1"),
        ("0x7f.0.0.0x1", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("0177.0.0.01", "127.0.0.1"),
        ("0000000000177.0.0.1", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("0x", "0.0.0.0"),
        ("127。0。0。1", "127.0.0.1"),
        ("\uff11\uff12\uff17.0.0.1", "127.0.0.1"),
        ("[::ffff:127.0.0.1]", "127.0.0.1"),
        ("::ffff:7f00:1", "127.0.0.1"),
        ("[::127.0.0.1]", "127.0.0.1"),
    ],
)
def test_every_spelling_of_an_ipv4_address_becomes_that_address(text: str, address: str) -> None:
    assert parse_host(text) == Host(address, IPv4Address(address))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
        ("[FD00:EC2::254]", "fd00:ec2::254"),
        ("[64:ff9b::7f00:1]", "64:ff9b::7f00:1"),
    ],
)
def test_an_ipv6_address_is_compressed_and_written_in_brackets(text: str, address: str) -> None:
    host = parse_host(text)
    assert host == Host(address, IPv6Address(address))
    assert str(host) == f"[{address}]"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        (".", "empty"),
        ("..", "empty"),
        ("a..b", "an empty label"),
        ("example.com..", "an empty label"),
        ("evil.com\x00.good.com", "the character U+0000"),
        ("good.com\r\nx", "the character U+000D"),
        ("good.com evil.com", "a space"),
        ("good.com\t", "the character U+0009"),
        ("good.com\\@evil.com", "a backslash"),
        ("user@good.com", "user information"),
        ("good.com/x", "a slash"),
        ("good.com?x", "a question mark"),
        ("good.com#x", "a fragment"),
        ("good%2ecom", "percent-encoding"),
        ("good\uff052ecom", "percent-encoding"),
        ("good.com:443", "a colon"),
        ("*.good.com", "a wildcard"),
        ("[::1", "the bracket is not closed"),
        ("[good.com]", "not an IPv6 address"),
        ("[127.0.0.1]", "not an IPv6 address"),
        ("[fe80::1%eth0]", "zone ids"),
        ("[fe80::1%25eth0]", "zone ids"),
        ("fe80::1%eth0", "zone ids"),
        ("[v1.fe80]", "not an IPv6 address"),
        ("1.2.3.4.5", "ends in a number"),
        ("1.2.3.08", "ends in a number"),
        ("evil.0x", "ends in a number"),
        ("256.0.0.1", "out of range"),
        ("1.2.3.256", "out of range"),
        ("4294967296", "out of range"),
        ("0" * 5 + "7" * 500, "out of range"),
        ("-a.example", "a hyphen"),
        ("a-.example", "a hyphen"),
        ("a" * 64 + ".example", "longer than 63"),
        (".".join(["a" * 60] * 5), "longer than 253"),
        ("a" * 5000, "longer than 1024"),
        ("xn--a.example", "punycode"),
        ("xn--99999999.example", "punycode"),
        ("xn--.example", "hyphen"),
        ("a\ud800.example", "internationalised"),
        ("\u202egood.com", "internationalised"),
        ("good.com\u2044evil", "internationalised"),
    ],
)
def test_what_is_not_one_host_beyond_doubt_is_refused_with_its_reason(text: str, why: str) -> None:
    with pytest.raises(InputError, match=r"^host '.*' is refused: ") as caught:
        parse_host(text)
    assert why in caught.value.message
    assert caught.value.message.isascii()
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("text", ["user:hunter2@a.example", "hunter2@a.example"])
def test_a_password_before_the_host_is_not_repeated(text: str) -> None:
    for parse in (parse_host, lambda text: parse_authority(text, 443)):
        with pytest.raises(InputError) as caught:
            parse(text)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "default", "expected"),
    [
        ("example.com", 443, ("example.com", 443)),
        ("example.com:8443", 443, ("example.com", 8443)),
        ("EXAMPLE.com.:1", None, ("example.com", 1)),
        ("[::1]:65535", None, ("::1", 65535)),
        ("[::1]", 80, ("::1", 80)),
        ("127.1:80", None, ("127.0.0.1", 80)),
    ],
)
def test_an_authority_is_a_host_and_a_port(
    text: str, default: int | None, expected: tuple[str, int]
) -> None:
    host, port = parse_authority(text, default)
    assert (host.name, port) == expected


@pytest.mark.parametrize(
    ("text", "default", "why"),
    [
        ("example.com", None, "the port is missing"),
        ("example.com:", 443, "the port is not a decimal number"),
        ("example.com:0", 443, "the port is not a decimal number"),
        ("example.com:080", 443, "the port is not a decimal number"),
        ("example.com:65536", 443, "the port is not a decimal number"),
        ("example.com:+80", 443, "the port is not a decimal number"),
        ("example.com:\uff180", 443, "the port is not a decimal number"),
        ("example.com:80:80", 443, "an IPv6 address must stand in brackets"),
        ("::1", 443, "an IPv6 address must stand in brackets"),
        ("[::1]80", 443, "the bracket is not closed, or no port follows it"),
        ("[::1", 443, "the bracket is not closed, or no port follows it"),
        ("user:pass@example.com:80", 443, "an IPv6 address must stand in brackets"),
        ("user@example.com", 443, "user information"),
        ("", 443, "empty"),
        (":80", 443, "empty"),
    ],
)
def test_an_authority_in_doubt_is_refused(text: str, default: int | None, why: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_authority(text, default)
    assert why in caught.value.message


_HOSTISH = st.text(
    alphabet=st.sampled_from(
        [*"abcxyzABZ019-_.:[]%@/\\*\x00 ", "。", "ü", "ß", "\uff11", "\u200d", "x", "n"]
    ),
    max_size=40,
)


@given(st.one_of(_HOSTISH, st.text(max_size=60)))
@example("xn--xn---epa.com")
@example("0x.0x")
@example("\uff11.\uff11")
def test_parsing_is_idempotent_and_raises_nothing_but_input_errors(text: str) -> None:
    try:
        host = parse_host(text)
    except InputError:
        return
    assert parse_host(str(host)) == host
    assert parse_host(host.name) == host
    assert host.name == host.name.lower()
    assert host.name.isascii()
    assert not set(host.name) & set("%@/\\*\x00 []?#")
    assert (host.address is None) == (
        not host.name.replace(":", "").replace(".", "").isdigit()
    ) or (isinstance(host.address, IPv6Address))


@given(st.integers(0, 2**32 - 1), st.sampled_from(["{}", "0x{:x}", "0{:o}"]))
def test_an_ipv4_number_in_any_base_is_that_address(value: int, form: str) -> None:
    assert parse_host(form.format(value)).address == IPv4Address(value)


@given(st.ip_addresses())
def test_every_address_parses_to_itself_or_to_what_it_wraps(
    address: IPv4Address | IPv6Address,
) -> None:
    parsed = parse_host(str(address)).address
    if isinstance(address, IPv6Address) and isinstance(parsed, IPv4Address):
        assert int(address) & 0xFFFF_FFFF == int(parsed)
        assert int(address) >> 32 in (0, 0xFFFF)
    else:
        assert parsed == address


@given(_HOSTISH, st.sampled_from([None, 80]))
def test_an_authority_raises_nothing_but_input_errors(text: str, default: int | None) -> None:
    try:
        host, port = parse_authority(text, default)
    except InputError:
        return
    assert 1 <= port <= 65535
    assert parse_authority(f"{host}:{port}", None) == (host, port)
