"""Tool rules: exact names, patterns, and whose server a tool is."""

from __future__ import annotations

import pytest

from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.decide.policy.tools import ToolIndex, check_tool_rule
from aesp_proxy.errors import ConfigError


def finds(text: str, server: str, name: str, *, refuses: bool) -> bool:
    return ToolIndex([Sourced(text, "p:1")], refuses=refuses).find(server, name) is not None


@pytest.mark.parametrize(
    ("text", "server", "name"),
    [
        ("read_file", "", "read_file"),
        ("read_file", "files", "read_file"),
        ("files/read_file", "files", "read_file"),
        ("read_*", "", "read_file"),
        ("files/*", "files", "anything"),
        ("*", "any", "thing"),
        ("*", "", "a/b"),
        ("r?ad", "", "read"),
    ],
)
def test_an_allow_rule_names_its_tools(text: str, server: str, name: str) -> None:
    assert finds(text, server, name, refuses=False)


@pytest.mark.parametrize(
    ("text", "server", "name"),
    [
        ("read_file", "", "READ_FILE"),
        ("read_file", "", "read_file2"),
        ("files/read_file", "", "read_file"),
        ("files/read_file", "other", "read_file"),
        ("files/read_file", "evil", "files/read_file"),
        ("read_*", "", "read_a/b"),
        ("files/*", "evil", "x"),
        ("r.ad", "", "read"),
    ],
)
def test_an_allow_rule_names_nothing_else(text: str, server: str, name: str) -> None:
    assert not finds(text, server, name, refuses=False)


@pytest.mark.parametrize(
    ("text", "server", "name"),
    [
        ("delete", "", "DELETE"),
        ("delete", "github", "delete"),
        ("*delete*", "github", "x/delete/y"),
        ("github/delete", "github", "Delete"),
        ("github/delete", "", "github/delete"),
        ("github/delete", "evil", "github/delete"),
        ("*ü*", "", "Ü\n"),
    ],
)
def test_a_block_rule_reads_every_spelling(text: str, server: str, name: str) -> None:
    assert finds(text, server, name, refuses=True)


@pytest.mark.parametrize("text", ["", "a b", "a\n", "/a", "a/", "a/b/c", "x" * 513])
def test_a_bad_rule_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^p:3:5: bad tool pattern "):
        check_tool_rule(Sourced(text, "p:3", 5))
