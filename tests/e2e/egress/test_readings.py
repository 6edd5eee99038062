"""What the proxy forwards is what was decided, and every parser reads it alike.

A few hundred streams of the grammar, and with Hypothesis the smallest one that is a hole;
``make long`` sends thousands, and asks nginx too.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from http_answers import random_answers
from http_grammar import streams
from http_passage import Passage, misled, objection
from http_readers import READERS
from hypothesis import HealthCheck, given, settings


@pytest.fixture(scope="module")
def passage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Passage]:
    passage = Passage(tmp_path_factory.mktemp("passage"))
    try:
        yield passage
    finally:
        passage.close()


@settings(max_examples=200, derandomize=True, suppress_health_check=list(HealthCheck))
@given(streams())
def test_no_request_that_can_be_read_in_two_ways_gets_through(
    passage: Passage, sent: tuple[str, bytes]
) -> None:
    entry, stream = sent
    assert objection(passage.send(entry, stream), READERS) == ""


def test_no_answer_is_read_as_that_of_another_host(passage: Passage) -> None:
    for method, answer in random_answers(1, 150):
        assert misled(method, passage.answer(method, answer)) == ""
