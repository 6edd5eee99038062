"""The rules of a capture as text, and the wish that they come from."""

from __future__ import annotations

import pytest

from aesp_proxy.daemon.capturing import captures, wish_of
from aesp_proxy.daemon.config import Settings, build
from aesp_proxy.daemon.config_values import Given
from aesp_proxy.errors import ConfigError
from aesp_proxy.intercept.capture.ruleset import (
    UID_MAX,
    Cgroup,
    Selection,
    Ways,
    capturing,
    everybody_but,
)
from aesp_proxy.intercept.capture.who import Named
from aesp_proxy.intercept.capture.wish import Wish, read_wish

SOME = Selection(uids=((7, 7), (10, 12)), gids=(77,), cgroups=(Cgroup("agents.slice", 44),))


def chain(text: str, name: str) -> list[str]:
    """The rules of one chain."""
    body = text.split(f"chain {name} {{")[1].split("}", maxsplit=1)[0]
    return [line.strip() for line in body.splitlines() if line.strip()]


def test_each_of_who_is_captured_is_turned_refused_and_kept_in():
    text = capturing(SOME, Ways()).text()
    whom = ["meta skuid 7", "meta skuid 10-12", "meta skgid 77",
            'socket cgroupv2 level 1 "agents.slice"']  # fmt: skip
    for hooked, inner in (("nat_out", "nat_captured"), ("out", "captured")):
        assert chain(text, hooked)[1:] == [f"{each} jump {inner}" for each in whom]
    assert chain(text, "left")[1:] == [
        'ip daddr 127.0.0.0/8 oif != "lo" drop',
        'ip6 daddr ::1 oif != "lo" drop',
        *(f"{each} jump captured_left" for each in whom[:-1]),
    ]


def test_by_default_nothing_passes_but_to_the_proxy_and_answers_to_this_machine():
    text = capturing(SOME, Ways(host="127.0.0.5", explicit=1, port=2, dns_port=3)).text()
    assert chain(text, "nat_captured") == [
        "udp dport 53 redirect to :3",
        "tcp dport 53 redirect to :3",
        "ip daddr 127.0.0.5 tcp dport 1 return",
        "meta l4proto tcp redirect to :2",
    ]
    assert chain(text, "captured")[0] == "ip daddr 127.0.0.5 tcp dport 1 accept"
    assert chain(text, "captured")[-2:] == ["meta l4proto tcp reject with tcp reset", "reject"]
    accepted = [rule for rule in chain(text, "captured")[1:] if rule.endswith("accept")]
    assert all(rule.startswith("ct status dnat") for rule in accepted[:-1])
    assert accepted[-1] == 'oif "lo" ct direction reply accept'
    assert chain(text, "captured_left") == ['oif "lo" accept', "drop"]


def test_what_is_opened_is_opened_and_no_more():
    text = capturing(SOME, Ways(loopback=True, inbound=True)).text()
    assert chain(text, "nat_captured")[-2:] == ['oif "lo" return',
                                                "meta l4proto tcp redirect to :3129"]  # fmt: skip
    assert chain(text, "captured")[-3:-1] == ['oif "lo" accept',
                                              "meta l4proto tcp reject with tcp reset"]  # fmt: skip
    assert chain(text, "captured_left") == [
        'oif "lo" accept', "ct direction reply accept", "drop",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("uid", "ranges"),
    [
        (65532, ((0, 65531), (65533, UID_MAX))),
        (0, ((1, UID_MAX),)),
        (UID_MAX, ((0, UID_MAX - 1),)),
    ],
)
def test_everybody_but_one_is_everybody_but_one_and_the_kernel_begins_nothing(uid, ranges):
    selection = everybody_but(uid)
    assert selection.uids == ranges
    out = chain(capturing(selection, Ways()).text(), "out")[1:]
    assert f"meta skuid {uid} accept" in out
    assert out[-1] == "drop"
    assert chain(capturing(SOME, Ways()).text(), "out")[-1] != "drop"


@pytest.mark.parametrize(
    "wish",
    [
        Wish(),
        Wish(named=Named(users=("a", "b"), groups=("g",), cgroups=("c/d",)), release=True),
        Wish(spared=65532, ways=Ways(host="::1", loopback=True, inbound=True), proxy_uid=5),
    ],
    ids=["none", "named", "pod"],
)
def test_a_wish_comes_back_from_its_word(wish):
    assert read_wish(wish.word()) == wish


@pytest.mark.parametrize("word", ["", "{}", "[]", '{"users": []}', Wish(spared=-1).word()])
def test_what_is_no_wish_is_refused(word):
    with pytest.raises(ValueError):  # noqa: PT011 - which, JSON says
        read_wish(word)


def settings(**given: object) -> Settings:
    layer = {
        name.replace("__", "."): Given(value=value, where="-") for name, value in given.items()
    }
    return build([{"state_dir": Given(value="/s", where="-")} | layer])


def test_nothing_is_captured_unless_somebody_is_named():
    assert not captures(settings())
    assert captures(settings(capture__users="a"))
    assert captures(settings(capture__rules="elsewhere"))
    with pytest.raises(ConfigError, match="nobody is named"):
        wish_of(settings(listen__port=3128)).table()


def test_the_settings_say_whom_and_where_to():
    wish = wish_of(
        settings(
            listen__port=1, listen__host="::1", capture__users=" a, b ,", capture__groups="g",
            capture__port=2, capture__dns_port=3, capture__loopback="open",
            capture__inbound="any", capture__on_stop="release",
        )
    )  # fmt: skip
    assert wish.named == Named(users=("a", "b"), groups=("g",))
    assert wish.ways == Ways("::1", 1, 2, 3, loopback=True, inbound=True)
    assert wish.release
    assert wish_of(settings(listen__port=1), spared=9).spared == 9


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"capture__users": "a"}, "listen.port"),
        ({"capture__users": "a", "listen__port": 3129}, "three ports"),
        ({"capture__users": "a", "listen__port": 1, "capture__dns_port": 3129}, "three ports"),
    ],
    ids=str,
)
def test_ports_that_cannot_be_in_rules_are_an_error(given, words):
    with pytest.raises(ConfigError, match=words):
        wish_of(settings(**given))
