"""What an operator says of resolvers, and what a resolv.conf says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aesp_proxy.daemon import resolving
from aesp_proxy.daemon.config import Settings, build
from aesp_proxy.daemon.config_values import Given
from aesp_proxy.errors import ConfigError, UnavailableError
from aesp_proxy.intercept.resolver.upstream import parse_search, parse_servers, servers_of


def test_servers_are_addresses_with_a_port_or_without():
    given = ["192.0.2.1", "192.0.2.1:5353", "2001:db8::1", "[2001:db8::1]:54"]
    wanted = [("192.0.2.1", 53), ("192.0.2.1", 5353), ("2001:db8::1", 53), ("2001:db8::1", 54)]
    assert list(parse_servers(given)) == wanted


@pytest.mark.parametrize(
    "item", ["dns.example", "192.0.2.1:0", "192.0.2.1:x", "192.0.2.999", "[::1"]
)
def test_a_server_that_is_no_address_is_named(item):
    with pytest.raises(ConfigError, match="upstreams"):
        parse_servers([item])


def test_a_resolv_conf_is_read_as_far_as_it_makes_sense():
    text = """# made by hand
nameserver 192.0.2.1
nameserver fe80::1%eth0
nameserver 2001:db8::53 # trailing
options timeout:1
domain old.example
search Corp.example bad..name lab.example
"""
    servers, search = servers_of(text)
    assert servers == (("192.0.2.1", 53), ("2001:db8::53", 53))
    assert search == ("corp.example", "lab.example")
    assert parse_search(["10.0.0.1", "a.example."]) == ("a.example",)


def settings(tmp_path: Path, **given: object) -> Settings:
    layer = {f"resolver.{name}": Given(value=value, where="here") for name, value in given.items()}
    return build([{"state_dir": Given(value=str(tmp_path), where="here")} | layer])


def test_on_a_machine_without_resolvers_a_name_fails_and_says_what_is_missing(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(resolving, "RESOLV_CONF", tmp_path / "none")
    resolver = resolving.own_resolver(settings(tmp_path), clock=lambda: 0.0)
    with pytest.raises(UnavailableError, match="neither resolver"):
        asyncio.run(resolver.addresses("a.example"))


def test_limits_and_types_come_from_the_settings(tmp_path):
    chosen = settings(tmp_path, types="txt, MX", queries_per_s_max=7, name_bits_max=50).resolver
    limits = resolving.server_limits(chosen)
    assert (limits.types, limits.queries_per_s_max) == ({15, 16}, 7)
    assert resolving.budget_limits(chosen).of_one.bits_max == 50


@pytest.mark.parametrize("types", ["HTTPS", "svcb", "ANY", "AXFR", "nonsense"])
def test_a_type_that_is_never_told_cannot_be_listed(tmp_path, types):
    with pytest.raises(ConfigError, match=r"resolver\.types"):
        resolving.server_limits(settings(tmp_path, types=types).resolver)
