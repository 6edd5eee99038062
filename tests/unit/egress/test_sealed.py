"""The operator's list of hosts whose TLS is passed through."""

from __future__ import annotations

import pytest

from aesp_proxy.errors import ConfigError
from aesp_proxy.intercept.egress.sealed import sealed_hosts
from aesp_proxy.model.host import parse_host


def test_entries_are_host_rules_separated_by_commas() -> None:
    index = sealed_hosts("pinned.test, *.bank.test ,one.test:8443,")
    told = {
        (host, port): index.find(parse_host(host), port) is not None
        for host in ("pinned.test", "a.bank.test", "bank.test", "one.test", "other.test")
        for port in (443, 8443)
    }
    assert {place for place, listed in told.items() if listed} == {
        ("pinned.test", 443), ("pinned.test", 8443), ("a.bank.test", 443), ("a.bank.test", 8443),
        ("one.test", 8443),
    }  # fmt: skip


def test_no_entries_list_nothing() -> None:
    assert sealed_hosts("").find(parse_host("pinned.test"), 443) is None


@pytest.mark.parametrize(
    "entry", ["*", "*:443", "10.0.0.0/8", "127.0.0.1", "https://a.test", "a b"]
)
def test_what_is_no_host_is_refused(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"egress\.passthrough"):
        sealed_hosts(f"pinned.test,{entry}")
