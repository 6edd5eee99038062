"""A token that a format has cut and spread is put together: cookies, parts, runs, lines."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from packed_files import docx, drawn_pdf
from scan_lab import token

from aesp_proxy.decide.secrets.scanner import SecretScanner

TOKEN = token(7)
HALVES = (TOKEN[:20], TOKEN[20:])
PIECES = tuple(TOKEN[at : at + 9] for at in range(0, len(TOKEN), 9))
FULL_WIDTH = "".join(chr(ord(char) + 0xFEE0) for char in TOKEN)
PARTS = "".join(
    f'--b1\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{half}\r\n'
    for name, half in zip("ab", HALVES, strict=True)
)
SPREAD: dict[str, bytes | str] = {
    "cookies": "Cookie: theme=dark; a={}; b={}; region=eu".format(*HALVES),
    "a continued parameter": 'x; filename*0="{}"; filename*1="{}"'.format(*HALVES),
    "parts of a multipart body": f"{PARTS}--b1--\r\n",
    "paragraphs": "<p>{}</p>\n<p>{}</p>".format(*HALVES).replace("\n", ""),
    "runs of a document": docx(*(piece.encode() for piece in PIECES)),
    "a page of a PDF": "BT [({}) -12 ({})] TJ ET".format(*HALVES),
    "a page of a PDF, deflated": drawn_pdf(*(piece.encode() for piece in PIECES)),
    "folded YAML": "key: >-\n    {}\n    {}\nnext: 1\n".format(*HALVES),
    "a quotation": "> {}\n> {}\n".format(*HALVES),
    "a comment": "# {}\n# {}\n".format(*HALVES),
    "a comment of C": "// {}\n// {}\n".format(*HALVES),
    "lines of a patch": "+{}\n+{}\n".format(*HALVES),
    "full width in JSON": json.dumps({"k": FULL_WIDTH}),
    "zero width in JSON": json.dumps({"k": "\u200b".join(TOKEN)}),
}


@pytest.mark.parametrize("how", SPREAD, ids=str)
def test_a_token_that_a_format_has_spread_is_found(scanner: SecretScanner, how: str) -> None:
    spread = SPREAD[how]
    data = spread if isinstance(spread, bytes) else f"words before\n{spread}\nand behind".encode()
    assert "github-pat" in {one.rule for one in scanner.scan(data, "body")}


HONEST: dict[str, Callable[[str], str]] = {
    "a list": lambda one: f"- {one[:20]}\n- {one[:20]}\n",
    "prose in paragraphs": lambda one: f"<p>{one[:12]}</p> <p>and more</p>",
    "calls": lambda one: f"f({one[:12]}) + g(words)",
}


@pytest.mark.parametrize("how", HONEST, ids=str)
def test_the_beginning_of_a_token_is_joined_to_no_words(scanner: SecretScanner, how: str) -> None:
    assert scanner.scan(HONEST[how](TOKEN).encode(), "body") == ()
