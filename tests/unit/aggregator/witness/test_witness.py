"""A witness answers as C2SP tlog-witness says, and never cosigns two histories."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from witness_lab import LOG, ORIGIN, note, request

from aesp_proxy.aggregator.witness.serve import witness_app
from aesp_proxy.aggregator.witness.state import (
    WitnessDir,
    WitnessState,
    load_logs,
    make_witness,
    open_state,
    trust_log,
)
from aesp_proxy.errors import ConfigError, RecordError
from aesp_proxy.record.files import OsFiles
from aesp_proxy.record.tlog.checkpoint import parse_checkpoint
from aesp_proxy.record.tlog.note import KeyType, Note, parse_signatures, signing_key, verify_note
from aesp_proxy.record.tlog.witness import parse_add_checkpoint

NOW_S = 1_800_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_witness(tmp_path / "witness", "witness.example/w1")
    trust_log(WitnessDir(tmp_path / "witness"), str(LOG.public))
    return tmp_path / "witness"


class Asked:
    """The witness's application, asked over its interface."""

    def __init__(self, state: WitnessState) -> None:
        self._transport = httpx.ASGITransport(app=witness_app(state, time_s=lambda: NOW_S))

    def send(self, method: str, path: str, body: bytes = b"") -> httpx.Response:
        async def sent() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://w") as peer:
                return await peer.request(method, path, content=body)

        return asyncio.run(sent())


def client(root: Path, **more: Any) -> Asked:
    return Asked(open_state(root, **more))


def ask(asked: Asked, body: bytes) -> httpx.Response:
    return asked.send("POST", "/add-checkpoint", body)


def size_of(root: Path) -> int:
    known = open_state(root).known(ORIGIN).checkpoint
    return known.size if known else 0


def assert_cosigned(root: Path, answer: httpx.Response, signed: Note) -> None:
    assert answer.status_code == 200, answer.text
    whole = Note(text=signed.text, signatures=parse_signatures(answer.text))
    (held,) = verify_note(whole, [open_state(root).key.public])
    assert held.time_s == NOW_S


def test_a_log_that_grows_is_cosigned_step_by_step(root: Path):
    asked = client(root)
    old = 0
    for size in (0, 1, 3, 3, 8, 300):
        assert_cosigned(root, ask(asked, request(old, size)), note(size))
        old = size
        assert size_of(root) == size


def test_another_old_size_is_answered_with_the_one_that_is_known(root: Path):
    asked = client(root)
    assert ask(asked, request(0, 5)).status_code == 200
    for old in (0, 4, 6):
        answer = ask(asked, request(old, 7))
        assert answer.status_code == 409
        assert answer.text == "5\n"
        assert answer.headers["content-type"].partition(";")[0] == "text/x.tlog.size"


@pytest.mark.parametrize(
    ("old", "size", "fork", "status"),
    [
        (5, 7, 2, 422),  # rewritten before what was cosigned
        (5, 5, 2, 409),  # another root of the same size
        (5, 7, 5, 200),  # what nobody has seen yet may be anything
        (5, 3, None, 400),  # shrinks, and says so
        (3, 3, None, 409),  # shrinks, and hides it
    ],
)
def test_a_second_history_is_never_cosigned(
    root: Path, old: int, size: int, fork: int | None, status: int
):
    asked = client(root)
    assert ask(asked, request(0, 5)).status_code == 200
    assert ask(asked, request(old, size, fork=fork)).status_code == status
    assert size_of(root) == (size if status == 200 else 5)


def test_a_proof_is_needed_and_none_where_there_is_nothing_to_prove(root: Path):
    asked = client(root)
    first = request(0, 5).replace(b"old 0\n", b"old 0\n" + b"A" * 43 + b"=\n")
    assert ask(asked, first).status_code == 422
    assert ask(asked, request(0, 5)).status_code == 200
    assert ask(asked, request(5, 7, bare=True)).status_code == 422
    again = request(5, 5).replace(b"old 5\n", b"old 5\n" + b"A" * 43 + b"=\n")
    assert ask(asked, again).status_code == 422


def test_a_log_that_is_unknown_is_404_and_a_key_that_is_unknown_403(root: Path):
    asked = client(root)
    elsewhere = signing_key("other.example/log", KeyType.ED25519, b"\x01" * 32)
    stranger = signing_key(ORIGIN, KeyType.ED25519, b"\x05" * 32)
    assert ask(asked, request(0, 5, key=elsewhere)).status_code == 404
    assert ask(asked, request(0, 5, key=stranger)).status_code == 403
    forged = request(0, 5).replace(b"\n5\n", b"\n6\n")
    assert ask(asked, forged).status_code == 403
    assert size_of(root) == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 0\n",
        b"old 00\n\n" + note(1).encode(),
        b"old -1\n\n" + note(1).encode(),
        b"new 0\n\n" + note(1).encode(),
        b"old 0\nnot base64\n\n" + note(1).encode(),
        b"old 0\n" + (b"A" * 43 + b"=\n") * 64 + b"\n" + note(1).encode(),
        b"old 0\n\n" + note(1).encode()[:-1],
        b"old 0\n\n" + note(1).text.encode(),
        b"old 0\n\n\xff" + note(1).encode(),
    ],
)
def test_what_is_no_request_is_400(root: Path, body: bytes):
    assert ask(client(root), body).status_code == 400


def test_a_request_that_is_too_long_is_413(root: Path):
    assert ask(client(root), b"old 0\n\n" + b"x" * 80_000).status_code == 413


def test_only_posts_to_the_one_place_are_answered(root: Path):
    asked = client(root)
    assert asked.send("GET", "/add-checkpoint").status_code == 405
    assert asked.send("POST", "/").status_code == 404
    assert asked.send("GET", "/health").status_code == 200


class Failing(OsFiles):
    """Files whose call number ``at`` fails before or after it was done, or half way."""

    def __init__(self, call: str, how: str) -> None:
        real: Callable[..., Any] = getattr(OsFiles(), call)

        def fails(*arguments: Any) -> Any:
            if how == "torn" and call == "write":
                real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            elif how == "done":
                real(*arguments)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        setattr(self, call, fails)


@pytest.mark.parametrize("call", ["create", "write", "fdatasync", "replace", "sync_dir"])
@pytest.mark.parametrize("how", ["not done", "done", "torn"])
def test_a_cosignature_that_cannot_be_kept_is_not_given(root: Path, call: str, how: str):
    """Whatever the disk did of it: the witness is still bound by all that it may have said."""
    assert ask(client(root), request(0, 5)).status_code == 200
    failing = client(root, files=Failing(call, how))
    assert ask(failing, request(5, 7)).status_code == 500
    known = size_of(root)
    assert known in {5, 7}
    assert ask(failing, request(known, 9)).status_code == 500
    # The log asks again as it would: it is told the size, and goes on from there.
    asked = client(root)
    known = size_of(root)
    assert ask(asked, request(known, 9)).status_code == 200
    assert ask(asked, request(9, 10, fork=3)).status_code == 422


def test_every_changed_byte_of_what_it_has_cosigned_is_noticed(root: Path):
    assert ask(client(root), request(0, 5)).status_code == 200
    path = WitnessDir(root).cosigned_of(ORIGIN)
    content = path.read_bytes()
    own = content.index(b"witness.example")
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        try:
            known = open_state(root).known(ORIGIN).checkpoint
        except RecordError:
            continue
        # A signature of the log beside ours may rot: what the witness has said stands.
        assert content.index(b"\n\n") < at < own
        assert known == parse_checkpoint(note(5).text)


def test_a_truncated_state_is_no_new_witness(root: Path):
    assert ask(client(root), request(0, 5)).status_code == 200
    path = WitnessDir(root).cosigned_of(ORIGIN)
    path.write_bytes(b"")
    with pytest.raises(RecordError):
        open_state(root)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from([None, 3])), max_size=8))
def test_at_once_or_in_any_order_one_history_is_cosigned(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[int, int | None]]
):
    root = tmp_path_factory.mktemp("witness") / "w"
    make_witness(root, "witness.example/w1")
    trust_log(WitnessDir(root), str(LOG.public))
    state = open_state(root)
    cosigned: dict[int, set[bytes]] = {}

    def ask_as_a_log(size: int, fork: int | None) -> None:
        for _ in range(3):
            known = state.known(ORIGIN).checkpoint
            old = known.size if known else 0
            if old > size:
                return
            wanted = parse_add_checkpoint(request(old, size, fork=fork))
            answer = state.add(wanted, time_s=NOW_S)
            if isinstance(answer, str):
                cosigned.setdefault(size, set()).add(wanted.checkpoint.root)
                return

    threads = [threading.Thread(target=ask_as_a_log, args=one) for one in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(roots) == 1 for roots in cosigned.values())
    assert size_of(root) == max(cosigned, default=0)


def test_a_witness_of_several_logs_keeps_them_apart(root: Path):
    second = signing_key("other.example/log", KeyType.ED25519, b"\x08" * 32)
    trust_log(WitnessDir(root), str(second.public))
    asked = client(root)
    assert ask(asked, request(0, 5)).status_code == 200
    assert ask(asked, request(0, 3, key=second, fork=0)).status_code == 200
    assert ask(asked, request(5, 6)).status_code == 200
    assert ask(asked, request(3, 4, key=second, fork=0)).status_code == 200


def test_while_a_log_changes_its_key_both_are_taken(root: Path):
    new = signing_key(ORIGIN, KeyType.ED25519, b"\x0b" * 32)
    assert ask(client(root), request(0, 5)).status_code == 200
    assert ask(client(root), request(5, 6, key=new)).status_code == 403
    trust_log(WitnessDir(root), str(new.public))
    assert ask(client(root), request(5, 6, key=new)).status_code == 200
    assert ask(client(root), request(6, 7)).status_code == 200


def test_a_wrong_use_is_an_error_of_ours(root: Path, tmp_path: Path):
    place = WitnessDir(root)
    with pytest.raises(ConfigError, match="already"):
        make_witness(root, "another")
    with pytest.raises(ConfigError, match="cannot name"):
        make_witness(tmp_path / "new", "with space")
    with pytest.raises(ConfigError, match="already"):
        trust_log(place, str(LOG.public))
    with pytest.raises(ConfigError, match="type 1"):
        trust_log(place, str(open_state(root).key.public))
    with pytest.raises(ConfigError, match="no witness"):
        open_state(tmp_path / "nothing")
    place.logs.write_text("nonsense\n")
    with pytest.raises(ConfigError, match="logs:1"):
        load_logs(place)
    place.key.chmod(0o644)
    with pytest.raises(ConfigError):
        open_state(root)


def test_a_state_that_another_witness_wrote_is_not_taken(root: Path, tmp_path: Path):
    assert ask(client(root), request(0, 5)).status_code == 200
    make_witness(tmp_path / "other", "witness.example/w2")
    trust_log(WitnessDir(tmp_path / "other"), str(LOG.public))
    path = WitnessDir(tmp_path / "other").cosigned_of(ORIGIN)
    path.write_bytes(WitnessDir(root).cosigned_of(ORIGIN).read_bytes())
    with pytest.raises(RecordError, match="not what this witness"):
        open_state(tmp_path / "other")
    assert isinstance(open_state(root), WitnessState)
