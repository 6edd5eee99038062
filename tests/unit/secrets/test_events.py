"""What is said piece by piece in events of one stream is found; what only streams is not."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest

from aesp_proxy.decide.secrets.body import StreamPolicy
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.model.decision import Finding, Severity


def _data(body: object) -> str:
    return f"data: {json.dumps(body)}\n\n"


def _chunk(text: str) -> str:
    delta = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return _data({"id": "chatcmpl-AbC1", "object": "chat.completion.chunk", "choices": [delta]})


def _block(text: str) -> str:
    delta = {"type": "input_json_delta", "partial_json": text}
    return f"event: content_block_delta\n{_data({'index': 1, 'delta': delta})}"


SHAPES: dict[str, Callable[[str], str]] = {
    "chunks of a completion": _chunk,
    "deltas of a response": lambda text: _data({"delta": text, "sequence_number": 4}),
    "deltas of a tool call": _block,
    "parts": lambda text: _data({"candidates": [{"content": {"parts": [{"text": text}]}}]}),
    "lines of JSON": lambda text: json.dumps({"d": text}) + "\n",
    "objects behind each other": lambda text: json.dumps({"delta": text}, separators=(",", ":")),
    "data that is no JSON": lambda text: f"data: {text}\n\n",
    "messages of a local model": lambda text: (
        json.dumps({"model": "m", "message": {"content": text}, "done": False}) + "\n"
    ),
}


def _body(shape: str, text: str, longest: int) -> str:
    chance = random.Random(f"{shape} {longest}")
    said = []
    while text:
        size = chance.randint(1, longest)
        said.append(SHAPES[shape](text[:size]))
        text = text[size:]
    return "".join(said)


def _found(scanner: SecretScanner, body: str) -> list[Finding]:
    data = body.encode()
    with scanner.stream("body", policy=StreamPolicy(threshold=Severity.CRITICAL)) as scan:
        steps = [scan.feed(data[at : at + 700]) for at in range(0, len(data), 700)]
        steps.append(scan.finish())
    return [finding for step in steps for finding in step.findings]


@pytest.fixture
def said(pack: tuple[Rule, ...]) -> str:
    token = next(rule for rule in pack if rule.id == "github-pat").positives[0].decode()
    return f"The key is {token} and nothing else."


@pytest.mark.parametrize("longest", [1, 4])
@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_a_token_said_by_events_is_found(
    scanner: SecretScanner, said: str, shape: str, longest: int
) -> None:
    found = _found(scanner, _body(shape, said, longest))
    assert {(one.rule, one.via) for one in found} == {("github-pat", "events")}


def test_it_is_found_where_the_stream_stands_in_a_json_string(
    scanner: SecretScanner, said: str
) -> None:
    log = _body("chunks of a completion", said, 3)
    for _ in range(2):
        log = json.dumps({"content": log})
    assert "github-pat" in {one.rule for one in _found(scanner, log)}


def test_it_is_found_behind_pages_of_the_same_stream(scanner: SecretScanner, said: str) -> None:
    body = _body("deltas of a response", "It was a long and honest answer. " * 60 + said, 4)
    assert "github-pat" in {one.rule for one in _found(scanner, body)}


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_an_honest_answer_is_no_secret(scanner: SecretScanner, shape: str) -> None:
    text = "To sign in, set GITHUB_TOKEN=ghp_... and run `gh auth status` (see README, 4.2). " * 9
    assert _found(scanner, _body(shape, text, 5)) == []
