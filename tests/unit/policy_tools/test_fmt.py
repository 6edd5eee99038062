"""The one layout of policy files: what it changes, and what it must not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.decide.policy.document import parse_document
from aesp_proxy.decide.policy.layout.read import comments_of
from aesp_proxy.decide.policy.layout.same import laid_out
from aesp_proxy.errors import ConfigError

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "policies").rglob("*.yaml"))


def laid(text: str) -> str:
    return laid_out(dedent(text), "p.yaml")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_that_comes_along_can_be_laid_out_and_stays_so(path: Path) -> None:
    text = path.read_text("utf-8")
    made = laid_out(text, path.name)
    assert laid_out(made, path.name) == made
    assert Counter(each.text for each in comments_of(made)) == Counter(
        each.text for each in comments_of(text)
    )


@pytest.mark.parametrize(
    "path",
    [
        each
        for each in FILES
        if not each.name.endswith(".test.yaml") and each.parent.name != "governance"
    ],
    ids=lambda path: path.name,
)
def test_every_policy_that_comes_along_is_laid_out(path: Path) -> None:
    text = path.read_text("utf-8")
    assert laid_out(text, path.name) == text, "run policy fmt on it"


def test_keys_stand_in_the_order_of_the_schema_and_lists_in_their_own() -> None:
    assert laid(
        """\
        rules:
        - rule: {effect: DENY, condition: "true"}
          policy_id: r
        guards:
            mcp_tool:
                default_action: block
                allow:
                - b
                - a
            forbidden_path: {}
        name: p
        version: "1.2.0"
        """
    ) == dedent(
        """\
        version: "1.2.0"
        name: p

        guards:
          forbidden_path: {}

          mcp_tool:
            allow:
              - b
              - a
            default_action: block

        rules:
          - policy_id: r
            rule: {condition: "true", effect: DENY}
        """
    )


def test_comments_go_with_what_they_stand_above_behind_and_below() -> None:
    assert laid(
        """\
        # the file

        version: "1.2.0" # of the format
        guards:   # all of them
            # tools
            mcp_tool:
                # the default
                default_action: block
                allow: # these
                - a   # the first
                # - b
                # below the list
            # below the guard
            secret_leak:
                # on
                enabled: true
        # the end
        """
    ) == dedent(
        """\
        # the file

        version: "1.2.0"  # of the format

        guards:  # all of them
          # below the guard
          secret_leak:
            # on
            enabled: true

          # tools
          mcp_tool:
            allow:  # these
              - a  # the first
              # - b
              # below the list
            # the default
            default_action: block
        # the end
        """
    )


@pytest.mark.parametrize(
    ("written", "laid_as"),
    [
        ('"a.example"', "a.example"),
        ("'/etc/**'", "/etc/**"),
        ("'*.example'", "'*.example'"),
        ('"*.example"', '"*.example"'),
        ("'true'", "'true'"),
        ('"yes"', '"yes"'),
        ("'null'", "'null'"),
        ('"1.2.0"', '"1.2.0"'),
        ("1.2.0", "1.2.0"),
        ("''", "''"),
        ("'a: b'", "'a: b'"),
        ("'a #b'", "'a #b'"),
        ('"a, b"', '"a, b"'),
        ("'say \"a\"'", 'say "a"'),
        (r"'a\.b'", r"'a\.b'"),
        (r'"a\\.b"', r'"a\\.b"'),
        (r'"a\tb"', r'"a\tb"'),
        ("' a'", "' a'"),
        ("'a:'", "'a:'"),
        ("'[a]'", "'[a]'"),
        ('"a\n  b"', "a b"),
        ('"*a\n  b"', '"*a b"'),
    ],
)
def test_quotes_stand_only_where_they_are_needed(written: str, laid_as: str) -> None:
    assert laid(f"name: {written}\n") == f"name: {laid_as}\n"
    assert laid(f"locked:\n  - {written}\n") == f"locked:\n  - {laid_as}\n"
    assert laid(f"locked: [{written}]\n") == f"locked: [{laid_as}]\n"


def test_a_list_in_brackets_stays_where_it_fits_and_has_no_comment() -> None:
    assert laid("locked: [ a,\n  b ]\n") == "locked: [a, b]\n"
    assert laid("locked: [a, # why\n  b]\n") == "locked:\n  - a  # why\n  - b\n"
    long = ", ".join(f"guards.secret_leak{number}" for number in range(6))
    assert laid(f"locked: [{long}]\n").startswith("locked:\n  - guards.secret_leak0\n  - ")


def test_blocks_keep_their_lines_and_long_plain_texts_are_folded() -> None:
    assert laid("name: |\n      a\n\n        b\n") == "name: |\n  a\n\n    b\n"
    assert laid("name: a\n  b\n") == "name: a b\n"
    words = " ".join(["word"] * 30)
    made = laid(f"description: {words}\n  more\n")
    assert made.startswith("description: >-\n  word word")
    assert max(map(len, made.splitlines())) <= 100


def test_line_ends_and_the_mark_of_byte_order_become_plain() -> None:
    text = "\ufeffname: a # c\r\nlocked:\r\n- b\r\n"
    assert laid_out(text, "p") == "name: a  # c\n\nlocked:\n  - b\n"


def test_blank_lines_are_kept_one_at_a_time() -> None:
    assert laid("locked:\n  - a\n\n\n  # b\n\n  - b\n  - c\n") == (
        "locked:\n  - a\n\n  # b\n\n  - b\n  - c\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "name: [\n",
        "name: &a b\n",
        "name: !x b\n",
        "- a\n",
        "",
        "name: a\nname: b\n",
        "name: |2\n    a\n",
    ],
)
def test_what_is_no_good_document_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        laid_out(text, "p.yaml")
    assert raised.value.where.startswith("p.yaml")


VALUES = st.sampled_from(
    [
        "a", "1.2.0", "'single # x'", '"double # x"', "plain text", "'*.x'", "'a: b'",
        r'"a\\.b"', "'it''s \"q\"'", "/etc/**", "'true'", "''", "[]", "{}", "[a, 'b']",
        '"two\n      lines"', "|\n      block # no\n        more", ">-\n      folded\n\n      more",
        "[a, # in\n      {x: y, z: [1, '*']}]",
    ]
)  # fmt: skip
COMMENTS = st.sampled_from(["", "", "# c", "# 'q' \"", "#", "  # deeper", "    # deepest"])
KEYS = st.lists(
    st.sampled_from(["version", "name", "guards", "rules", "allow", "block", "zz", "condition"]),
    min_size=1,
    max_size=4,
    unique=True,
)


@st.composite
def documents(draw: st.DrawFn, depth: int = 0) -> str:
    """Tables of values, lists and tables, comments of any indentation between them."""
    pad = "  " * depth
    lines = []
    for key in draw(KEYS):
        lines.extend(
            f"{pad}{each}" if each else "" for each in draw(st.lists(COMMENTS, max_size=2))
        )
        kind = draw(st.sampled_from(["value", "list", "table"] if depth < 2 else ["value"]))
        if kind == "value":
            lines.append(f"{pad}{key}: {draw(VALUES)}")
        elif kind == "table":
            lines.extend((f"{pad}{key}:  {draw(COMMENTS).strip()}", draw(documents(depth + 1))))
        else:
            lines.append(f"{pad}{key}:")
            for _ in range(draw(st.integers(1, 3))):
                lines.append(f"{pad}{draw(st.sampled_from(['', '  ']))}{draw(COMMENTS)}".rstrip())
                lines.append(f"{pad}  - {draw(VALUES)}")
    lines.extend(f"{pad}{each}" if each else "" for each in draw(st.lists(COMMENTS, max_size=2)))
    return "\n".join(lines)


@given(documents())
def test_any_document_keeps_its_values_and_comments(text: str) -> None:
    """``laid_out`` holds its own result to that, and to being final; it must not refuse."""
    try:
        parse_document(text, "p.yaml")
    except ConfigError:
        return
    assert laid_out(text, "p.yaml")
