"""What a rule may speak of."""

from __future__ import annotations

import pytest

from aesp_proxy.decide.policy.selectors import (
    ACTIONS,
    SelectorKind,
    expand_actions,
    names_action,
    parse_selector,
)
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.errors import ConfigError


def said(text):
    return Sourced(text, "p.yaml:3", 5)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("*", SelectorKind.ANY),
        ("egress:*", SelectorKind.EGRESS),
        ("egress:*.example.com:8443", SelectorKind.EGRESS),
        ("egress:[fd00::/8]:443", SelectorKind.EGRESS),
        ("file:**", SelectorKind.FILE),
        ("file:/srv/{a,b}/*.txt", SelectorKind.FILE),
        ("tool:*", SelectorKind.TOOL),
        ("tool:files/read_*", SelectorKind.TOOL),
    ],
)
def test_each_form_is_read(text, kind):
    selector = parse_selector(said(text))
    assert selector.kind is kind
    inner = selector.host or selector.glob or selector.tool
    assert (inner is None) == (kind is SelectorKind.ANY)


@pytest.mark.parametrize(
    "text",
    ["", "egress", "egress:", "file:", "tool:", "host:a", "EGRESS:a.example", "file:etc", "**",
     "egress:https://a.example", "tool:a b", "any:x"],
)  # fmt: skip
def test_what_is_no_resource_is_refused_with_its_place(text):
    with pytest.raises(ConfigError) as caught:
        parse_selector(said(text))
    assert caught.value.where == "p.yaml:3:5"


def test_groups_of_actions_are_written_out():
    assert expand_actions((said("file.*"),)) == {a for a in ACTIONS if a.startswith("file.")}
    assert set(ACTIONS) <= expand_actions((said("*"),))
    assert expand_actions(()) == frozenset()


def test_an_unlisted_method_is_named_by_all_of_http_only():
    assert names_action(expand_actions((said("http.*"),)), "http.propfind")
    assert names_action(expand_actions((said("*"),)), "http.propfind")
    assert not names_action(expand_actions((said("http.get"),)), "http.propfind")
    assert not names_action(expand_actions((said("http.*"),)), "tcp.connect")
    assert names_action(frozenset(), "anything")


@pytest.mark.parametrize("text", ["http.", "HTTP.GET", "get", "http.propfind", ""])
def test_unknown_actions_are_refused(text):
    with pytest.raises(ConfigError, match="unknown action"):
        expand_actions((said(text),))
