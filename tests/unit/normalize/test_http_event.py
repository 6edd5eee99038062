"""Requests as events: where they go is read once, and disagreeing names are told."""

from __future__ import annotations

import pytest

from aesp_proxy.errors import InputError
from aesp_proxy.model.host import parse_host
from aesp_proxy.model.principal import Principal
from aesp_proxy.normalize.http import (
    Tunnel,
    absolute_target,
    egress_request,
    name_mismatch,
    tunnel_target,
)
from aesp_proxy.normalize.http_head import HeadLimits, parse_request_head

TUNNEL = Tunnel(scheme="https", host=parse_host("a.test"), port=443, sni="a.test")
WHO = Principal(principal_id="p", agent_id="a", agent_type="t", session_id="s")


def head(target: str, host: str = "a.test", version: str = "1.1"):
    block = f"GET {target} HTTP/{version}\r\nHost: {host}\r\n\r\n".encode()
    return parse_request_head(block, HeadLimits())


def event(target):
    return egress_request(
        method="GET", target=target, headers=(), content_length=None, http_version="1.1",
        tunnel=TUNNEL, principal=WHO, time_ns=1,
    )  # fmt: skip


def test_an_absolute_url_is_taken_apart_once():
    target = absolute_target(head("http://A.Test:8080/x?y=z", "a.test:8080"))
    assert (target.host.name, target.port, target.origin_form) == ("a.test", 8080, "/x?y=z")
    made = event(target)
    assert (made.path, made.query, made.action) == ("/x", "y=z", "http.get")


@pytest.mark.parametrize(("url", "origin"), [("http://a.test", "/"), ("http://a.test?q", "/?q")])
def test_a_url_without_a_path_gets_one(url, origin):
    assert absolute_target(head(url)).origin_form == origin


@pytest.mark.parametrize(
    "url",
    ["https://a.test/", "ftp://a.test/", "/relative", "http://u:p@a.test/", "http:///x",
     "a.test:80", "http://b.test/", "http://a.test:81/"],
)  # fmt: skip
def test_an_absolute_url_that_could_mean_two_things_is_refused(url):
    with pytest.raises(InputError):
        absolute_target(head(url))


def test_inside_a_tunnel_only_a_path_is_a_target():
    assert tunnel_target(head("/x"), TUNNEL).host.name == "a.test"
    for target in ("http://a.test/", "a.test:443", "*"):
        with pytest.raises(InputError):
            tunnel_target(head(target), TUNNEL)


@pytest.mark.parametrize(
    ("host", "sni", "agrees"),
    [("a.test", "a.test", True), ("a.test", "", True), ("A.TEST:443", "a.test", True),
     ("b.test", "a.test", False), ("a.test", "b.test", False), ("a.test:8443", "a.test", False)],
)  # fmt: skip
def test_the_three_names_agree_or_all_are_told(host, sni, agrees):
    tunnel = Tunnel(scheme="https", host=TUNNEL.host, port=443, sni=sni)
    told = name_mismatch(event(tunnel_target(head("/", host), tunnel)), tunnel)
    assert (told == "") == agrees
    if not agrees:
        assert "CONNECT named a.test:443" in told
        assert "SNI" in told
        assert "Host" in told
