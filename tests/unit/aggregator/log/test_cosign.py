"""The aggregator asks witnesses, believes none blindly, and waits long for none."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from log_lab import KEY, Objects, Shelf, integrator

from aesp_proxy.aggregator.log import cosign
from aesp_proxy.aggregator.log.cosign import Cosigners
from aesp_proxy.aggregator.log.publish import Publisher
from aesp_proxy.aggregator.log.store import CHECKPOINT_KEY, LogStore
from aesp_proxy.aggregator.witness.serve import witness_app
from aesp_proxy.aggregator.witness.state import WitnessDir, make_witness, open_state, trust_log
from aesp_proxy.errors import ConfigError
from aesp_proxy.record.tlog.note import KeyType, sign_text, signing_key
from aesp_proxy.record.tlog.policy import LogPolicy, parse_policy, policy_of
from aesp_proxy.record.tlog.witness import parse_add_checkpoint

Answer = Callable[[bytes], tuple[int, bytes]]
KEYS = [signing_key(f"w{n}.example", KeyType.COSIGNATURE, bytes([n + 2]) * 32) for n in range(3)]


@contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """Serve a witness that answers as told."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status, said = answer(body)
            self.send_response(status)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def honest(root: Path) -> Answer:
    """Answer as a real witness of this log."""
    make_witness(root, "w.example")
    trust_log(WitnessDir(root), str(KEY.public))
    app = witness_app(open_state(root), time_s=lambda: 7)

    def answer(body: bytes) -> tuple[int, bytes]:
        async def sent() -> httpx.Response:
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app), base_url="http://w"
            ) as peer:
                return await peer.post("/add-checkpoint", content=body)

        response = asyncio.run(sent())
        return response.status_code, response.content

    return answer


def signing(number: int) -> Answer:
    """Cosign anything."""

    def answer(body: bytes) -> tuple[int, bytes]:
        text = parse_add_checkpoint(body).note.text
        return 200, sign_text(text, KEYS[number], time_s=7).line().encode()

    return answer


def policy(urls: list[str], quorum: str = "none") -> LogPolicy:
    lines = [f"witness w{n} {KEYS[n].public} {url}" for n, url in enumerate(urls)]
    names = " ".join(f"w{n}" for n in range(len(urls)))
    group = [] if quorum == "none" else [f"group q {quorum} {names}"]
    last = "quorum none" if quorum == "none" else "quorum q"
    return parse_policy("\n".join([*lines, *group, last, ""]).encode())


class Changing:
    """Answer as told, until told otherwise."""

    def __init__(self, answer: Answer) -> None:
        self.now = answer

    def __call__(self, body: bytes) -> tuple[int, bytes]:
        return self.now(body)


class Lab:
    """A log with its publisher."""

    def __init__(self, asked: LogPolicy) -> None:
        self.shelf, self.objects = Shelf(), Objects()
        self.log = integrator(self.shelf, self.objects)
        self.publisher = Publisher(LogStore(self.objects), Cosigners(asked))

    def publish(self, count: int = 1) -> Any:
        self.shelf.add(count)
        while self.log.step():
            pass
        for one in self.publisher.cosigners.all:  # type: ignore[union-attr]
            one.again_s = float("-inf")
        return self.publisher.publish(self.log.note)

    def cosigners(self, keys: Any = KEYS) -> int:
        note = LogStore(self.objects).published()
        assert note is not None
        found = policy_of([KEY.public], [key.public for key in keys], need=1)
        return len(found.accept(note).witnesses)


@pytest.fixture
def lab() -> Iterator[Callable[[LogPolicy], Lab]]:
    made: list[Lab] = []

    def make(asked: LogPolicy) -> Lab:
        made.append(Lab(asked))
        return made[-1]

    yield make
    for one in made:
        one.publisher.close()


def test_a_real_witness_cosigns_every_checkpoint_from_wherever_it_was(lab: Any, tmp_path: Path):
    with answering(honest(tmp_path / "w")) as url:
        key = open_state(tmp_path / "w").key.public
        asked = parse_policy(f"witness w {key} {url}\nquorum w\n".encode())
        one = lab(asked)
        for count in (1, 2, 300, 0):
            said = one.publish(count)
            assert (said.alarm, said.published) == ("", len(one.shelf.batches))
        # A new process knows nothing of what was cosigned, and is told.
        again = Publisher(LogStore(one.objects), Cosigners(asked))
        one.shelf.add(5)
        one.log.step()
        assert again.publish(one.log.note).published == 308
        again.close()


def test_the_quorum_is_published_without_whom_is_down(lab: Any):
    with socket.socket() as nobody, answering(signing(0)) as first, answering(signing(1)) as second:
        nobody.bind(("127.0.0.1", 0))
        down = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        one = lab(policy([first, second, down], "2"))
        said = one.publish()
        assert (said.published, one.cosigners()) == (1, 2)
        assert "no answer" in said.witnesses[2][2]
        assert said.alarm == ""


def test_without_the_quorum_nothing_is_published_until_it_is_there(lab: Any):
    other = Changing(lambda _: (500, b""))
    with answering(signing(0)) as first, answering(other) as second:
        one = lab(policy([first, second], "all"))
        said = one.publish()
        assert (said.size, said.published) == (1, 0)
        assert "too few witnesses" in said.alarm
        assert CHECKPOINT_KEY not in one.objects.kept
        other.now = signing(1)
        said = one.publish(0)
        assert (said.published, said.alarm, one.cosigners()) == (1, "", 2)


def test_one_that_is_slow_holds_up_nothing_but_the_quorum_that_needs_it(
    lab: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cosign, "GRACE_S", 0.2)
    go_on = threading.Event()

    def slow(body: bytes) -> tuple[int, bytes]:
        go_on.wait(20)
        return signing(1)(body)

    with answering(signing(0)) as first, answering(slow) as second:
        one = lab(policy([first, second], "any"))
        begun_s = time.monotonic()
        assert one.publish().published == 1
        assert one.publish().published == 2  # it is still busy with the first: not asked again
        assert time.monotonic() - begun_s < 3
        go_on.set()


LIES: list[tuple[Answer, str, bool]] = [
    (lambda _: (200, b""), "cut off", False),
    (lambda _: (200, b"nonsense\n"), "form of a note", False),
    (lambda _: (200, sign_text("other\n", KEYS[0], time_s=1).line().encode()), "trusted", False),
    (signing(1), "no cosignature of its key", False),
    (lambda _: (403, b""), "403", False),
    (lambda _: (404, b""), "404", False),
    (lambda _: (302, b""), "302", False),
    (lambda _: (409, b"x\n"), "not a decimal", False),
    (lambda _: (409, b"0\n"), "changes with every question", False),
    (lambda _: (200, b"x" * 100_000), "too long", False),
    (lambda _: (422, b""), "not the beginning", True),
    (lambda _: (409, b"900\n"), "has cosigned 900 entries", True),
    (lambda _: (409, b"3\n"), "another log of 3 entries", True),
]


@pytest.mark.parametrize(("answer", "says", "is_alarm"), LIES, ids=[says for _, says, _ in LIES])
def test_an_answer_that_is_no_cosignature_is_none(
    lab: Any,
    answer: Answer,
    says: str,
    is_alarm: bool,  # noqa: FBT001
):
    with answering(answer) as url:
        one = lab(policy([url]))
        said = one.publish(3)
        assert says in said.witnesses[0][2]
        assert (said.alarm != "") is is_alarm
        assert said.published == 3  # nobody asked for a quorum
        strict = lab(policy([url], "all"))
        assert strict.publish(3).published == 0


def test_a_cosignature_that_is_published_is_not_lost_when_its_witness_is(lab: Any):
    changing = Changing(signing(0))
    with answering(changing) as url:
        one = lab(policy([url]))
        one.publish()
        changing.now = lambda _: (500, b"")
        again = Publisher(LogStore(one.objects), Cosigners(policy([url])))
        again.publish(one.log.note)
        again.close()
        assert one.cosigners() == 1


def test_a_witness_without_an_address_is_refused():
    with pytest.raises(ConfigError, match="no URL"):
        Cosigners(policy_of([], [KEYS[0].public]))
