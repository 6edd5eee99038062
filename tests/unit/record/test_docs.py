"""``docs/audit.md`` says what the code says."""

from __future__ import annotations

from pathlib import Path

from aesp_proxy.record.canonical import FIELDS
from aesp_proxy.record.faults import Fault

PAGE = Path(__file__).parents[3] / "docs" / "audit.md"
BEGIN, END = "<!-- fields -->\n", "<!-- /fields -->"


def field_table() -> str:
    lines = ["| # | field | form | meaning |", "|---|---|---|---|"]
    lines += [
        f"| {place} | `{field.name}` | {field.kind} | {field.meaning} |"
        for place, field in enumerate(FIELDS)
    ]
    return "\n".join(lines) + "\n"


def test_the_field_table_is_the_one_of_the_code() -> None:
    text = PAGE.read_text("utf-8")
    written = text.partition(BEGIN)[2].partition(END)[0]
    assert written == field_table()


def test_every_word_of_the_verifier_is_explained() -> None:
    text = PAGE.read_text("utf-8")
    assert [fault.value for fault in Fault if f"| `{fault.value}` |" not in text] == []
