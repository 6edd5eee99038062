"""At least 20,000 generated requests through the proxy; what comes out, five parsers read alike.

Ours, mitmproxy's stock layer, h11, llhttp (Node's) and a real nginx. What is right is mixed
with what parsers are known to disagree on, so that many of the streams are read differently
before the proxy, and none is behind it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_answers import random_answers
from http_grammar import random_streams
from http_passage import HONEST, HONEST_BYTES, Passage, misled, objection
from http_readers import READERS, Reader, disagreement
from nginx_reader import NGINX, nginx

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

REQUESTS = 20_000
ANSWERS = 3_000
ROUND = 1_000
SEED = 4


@pytest.fixture(scope="module")
def readers() -> Iterator[dict[str, Reader]]:
    if NGINX is None:
        yield dict(READERS)
        return
    with nginx() as reader:
        yield {**READERS, "nginx": reader.read}


@pytest.fixture
def passage(tmp_path: Path) -> Iterator[Passage]:
    passage = Passage(tmp_path)
    try:
        yield passage
    finally:
        passage.close()


def test_what_is_read_differently_does_not_get_through(
    passage: Passage, readers: dict[str, Reader]
) -> None:
    counted: Counter[str] = Counter()
    objections = []
    while counted["passed"] + counted["refused"] < REQUESTS:
        for entry, stream in random_streams(SEED + counted["rounds"], ROUND):
            passed = passage.send(entry, stream)
            counted["passed"] += len(passed.decided)
            counted["refused"] += passed.refused
            counted["read differently"] += bool(_before(stream))
            why = objection(passed, readers)
            if why:
                objections.append((entry, stream, why))
        counted["rounds"] += 1
    print(f"\n{', '.join(readers)}: {dict(counted)}")
    assert objections == []
    assert counted["passed"] > REQUESTS / 4
    assert counted["read differently"] > REQUESTS / 100
    if NGINX is None:
        pytest.skip("nginx is not installed: the other four agree")


def test_no_answer_is_read_as_that_of_another_host(passage: Passage) -> None:
    counted: Counter[str] = Counter()
    objections = []
    for method, answer in random_answers(SEED, ANSWERS):
        received = passage.answer(method, answer)
        counted["both answered"] += received.endswith(HONEST.body)
        counted["misleads without us"] += bool(misled(method, answer + HONEST_BYTES))
        why = misled(method, received)
        if why:
            objections.append((method, answer, why))
    print(f"\n{dict(counted)}")
    assert objections == []
    assert counted["both answered"] > ANSWERS / 20
    assert counted["misleads without us"] > ANSWERS / 20


def _before(stream: bytes) -> str:
    return disagreement({name: read(stream) for name, read in READERS.items()})
