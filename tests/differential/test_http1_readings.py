"""At least 20,000 generated requests through the proxy; what comes out, five parsers read alike.

Ours, mitmproxy's stock layer, h11, llhttp (Node's) and a real nginx. What is right is mixed
with what parsers are known to disagree on, so that many of the streams are read differently
before the proxy, and none is behind it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from egress_lab import Proxy
from http_grammar import random_streams
from http_passage import Passage, objection
from http_readers import READERS, Reader, disagreement
from nginx_reader import NGINX, nginx

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

REQUESTS = 20_000
ROUND = 1_000
SEED = 4


@pytest.fixture(scope="module")
def readers() -> Iterator[dict[str, Reader]]:
    if NGINX is None:
        yield dict(READERS)
        return
    with nginx() as reader:
        yield {**READERS, "nginx": reader.read}


def test_what_is_read_differently_does_not_get_through(
    tmp_path_factory: pytest.TempPathFactory, readers: dict[str, Reader]
) -> None:
    proxy = Proxy(tmp_path_factory.mktemp("passage"))
    passage = Passage(proxy)
    counted: Counter[str] = Counter()
    objections = []
    try:
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
    finally:
        passage.close()
        proxy.stop()
    print(f"\n{', '.join(readers)}: {dict(counted)}")
    assert objections == []
    assert counted["passed"] > REQUESTS / 4
    assert counted["read differently"] > REQUESTS / 100
    if NGINX is None:
        pytest.skip("nginx is not installed: the other four agree")


def _before(stream: bytes) -> str:
    return disagreement({name: read(stream) for name, read in READERS.items()})
