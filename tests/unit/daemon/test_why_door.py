"""The door at which a command asks why it was refused: who is answered what, and who nothing."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Awaitable, Callable, Sequence

import pytest
import trio

from aesp_proxy.cli.why_inside import ask_at_door
from aesp_proxy.daemon import why_door
from aesp_proxy.daemon.control import FrameDecoder, denials_frame, from_worker
from aesp_proxy.daemon.denials import (
    DENIALS_MAX,
    NAME_CHARS_MAX,
    Denials,
    Denied,
    Door,
    read_denials,
)
from aesp_proxy.daemon.why_door import serve_door
from aesp_proxy.errors import InputError, UnavailableError

TOKEN = "0123456789abcdef"
OF_FILES = (
    Denied(time_ns=2, action="file.open", name="/h/.env", reason="path_forbidden"),
    Denied(time_ns=4, action="file.create", name="/h/caf\\xff", reason="secret_found"),
)
OF_PROXY = (Denied(time_ns=3, action="http.get", name="http://x:80/", reason="host_not_allowed"),)

type Use = Callable[[str, int], Awaitable[None]]


def at_door(use: Use, *, ask: why_door.Ask | None = None) -> None:
    """Open a door, use it by its host and port, close it."""

    async def told() -> Sequence[Sequence[Denied]]:
        return (OF_FILES, OF_PROXY)

    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        host, port = listener.getsockname()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_door, Door(listener, TOKEN), ask or told)
            with trio.fail_after(20):
                await use(host, port)
            nursery.cancel_scope.cancel()

    trio.run(main)


async def asked(port: int, question: bytes) -> bytes:
    """Send a question as it is, say that it was all, and return the whole answer."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    answer = b""
    async with stream:
        try:
            await stream.send_all(question)
            await stream.send_eof()
            async for data in stream:
                answer += data
        except (trio.BrokenResourceError, OSError):
            return answer
    return answer


def question(what: bytes = b"", *, last: bytes = b"9", token: bytes = TOKEN.encode()) -> bytes:
    return b"".join(each + b"\0" for each in (token, last, what))


@pytest.mark.parametrize(
    ("what", "last", "times"),
    [("", 9, [2, 3, 4]), ("", 2, [3, 4]), ("H/.ENV", 9, [2]), ("secret", 9, [4]),
     ("host_not", 9, [3]), ("file.", 1, [4]), ("nothing", 9, []), (b"caf\xff", 9, [4])],
    ids=["all", "last two", "a path", "a reason", "a host's", "an action", "none", "not UTF-8"],
)  # fmt: skip
def test_who_shows_the_token_is_told_the_last_refusals_in_order(what, last, times):
    async def use(host: str, port: int) -> None:
        where = f"{host} {port} {TOKEN}"
        rows = await trio.to_thread.run_sync(
            lambda: ask_at_door(where, os.fsdecode(what), last=last)
        )
        assert [row["time_ns"] for row in rows] == times
        assert all(row.keys() == {"time_ns", "action", "resource", "reason", "remedy"}
                   for row in rows)  # fmt: skip

    at_door(use)


GARBAGE = {
    "nothing": b"",
    "no token": question(token=b""),
    "another token": question(token=b"f" * 16),
    "a beginning of it": question(token=TOKEN[:8].encode()),
    "not ASCII": question(token="é".encode() * 8),
    "no end": question()[:-1],
    "a field more": question() + b"\0",
    "more than a question": question() + question(),
    "no number": question(last=b""),
    "below zero": question(last=b"-1"),
    "a digit of another script": question(last="٣".encode()),
    "a huge number": question(last=b"9" * 5_000),
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(190),
    "too long": question(b"x" * 40_000),
    "without an end": b"\xff" * 40_000,
}


@pytest.mark.parametrize("raw", GARBAGE.values(), ids=GARBAGE)
def test_whoever_asks_in_another_way_is_told_nothing_and_the_door_stays(raw):
    async def use(_: str, port: int) -> None:
        assert await asked(port, raw) == b""
        assert (await asked(port, question())).endswith(b'{"told": 3}\n')

    at_door(use)


def test_a_path_as_long_as_there_are_is_a_question():
    async def use(_: str, port: int) -> None:
        assert await asked(port, question(b"/" + b"\xfe" * 4095)) == b'{"told": 0}\n'

    at_door(use)


def test_who_says_nothing_is_let_go_and_many_of_them_keep_nobody_out(monkeypatch):
    monkeypatch.setattr(why_door, "_PATIENCE_S", 0.3)

    async def use(_: str, port: int) -> None:
        silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(60)]
        ends = 0
        for each in silent:
            with trio.fail_after(10):
                try:
                    ends += await each.receive_some(1) == b""
                except trio.BrokenResourceError:
                    ends += 1
            await each.aclose()
        assert ends == 60
        assert (await asked(port, question())).endswith(b'{"told": 3}\n')

    at_door(use)


def test_a_flood_of_questions_is_not_one_of_looks():
    looks = 0

    async def ask() -> Sequence[Sequence[Denied]]:
        nonlocal looks
        looks += 1
        return (OF_PROXY,)

    async def use(_: str, port: int) -> None:
        began = trio.current_time()
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(asked, port, question())
        assert looks <= 1 + (trio.current_time() - began) / why_door._PAUSE_S
        assert (await asked(port, question())).endswith(b'{"told": 1}\n')

    at_door(use, ask=ask)


def test_where_nobody_knows_it_is_said_and_no_answer_is_made_up():
    async def ask() -> Sequence[Sequence[Denied]]:
        raise UnavailableError("the file guard does not answer")

    async def use(host: str, port: int) -> None:
        assert json.loads(await asked(port, question())) == {
            "error": "the file guard does not answer"
        }
        for token, says in ((TOKEN, "does not answer"), ("other", "does not know us")):
            with pytest.raises(UnavailableError, match=says):
                await trio.to_thread.run_sync(
                    lambda token=token: ask_at_door(f"{host} {port} {token}", "", last=5)
                )

    at_door(use, ask=ask)


@pytest.mark.parametrize("where", ["", "x", "127.0.0.1 x y", "127.0.0.1 1", "a b c d", "h -1 t"])
def test_a_place_that_is_none_is_said(where):
    with pytest.raises(InputError, match="AESP_WHY"):
        ask_at_door(where, "", last=5)


def test_nobody_there_is_said():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UnavailableError, match="AESP_WHY"):
        ask_at_door(f"127.0.0.1 {port} {TOKEN}", "", last=5)


def test_of_more_refusals_the_last_are_kept_each_no_longer_than_a_path():
    denials = Denials(iter(range(10**6)).__next__)
    for number in range(100, 100 + 3 * DENIALS_MAX):
        denials.note("file.open", f"/{number}" + "\udcff" * 5_000, "path_forbidden")
    (frame,) = FrameDecoder().feed(denials_frame(denials))
    told = from_worker(frame).denials
    assert [each.time_ns for each in told] == [*range(2 * DENIALS_MAX, 3 * DENIALS_MAX)]
    assert {len(each.name) for each in told} == {NAME_CHARS_MAX}
    assert all(each.name.startswith("/2") and "\\xff" in each.name for each in told)


@pytest.mark.parametrize(
    "rows",
    [None, {}, [1], [[]], [[1, "a", "b"]], [["1", "a", "b", "c"]], [[1, "a", "b", "c", "d"]],
     [[1, "a", "b", "c"]] * (DENIALS_MAX + 1)],
    ids=range(8),
)  # fmt: skip
def test_rows_that_nobody_makes_are_refused(rows):
    with pytest.raises(InputError):
        read_denials(rows)
