"""The traps of the wheel are closed: what would be missed or would crash is an answer here."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aesp_proxy.decide.secrets import hyperscan as located
from aesp_proxy.decide.secrets.hyperscan import (
    HITS_MAX,
    SLICE_BYTES_MAX,
    Hit,
    Locator,
    compile_locator,
    content_key,
    dump,
    load,
    refusals,
)
from aesp_proxy.decide.secrets.pattern import translate
from aesp_proxy.decide.secrets.reference import compile_re2
from aesp_proxy.errors import ConfigError, UnavailableError

END = translate("$").hyperscan
EXPRESSIONS = (rb"tok_[a-z]{4}", rb"\bword\b", b"end" + END)


@pytest.fixture(scope="module")
def locator() -> Locator:
    return compile_locator(EXPRESSIONS)


def test_a_block_gives_each_rule_and_end(locator: Locator) -> None:
    assert sorted(locator.block(b"tok_abcd word end")) == [
        (8, 0, True),
        (13, 1, True),
        (17, 2, False),
    ]


def _places(hits: list[Hit]) -> list[tuple[int, int]]:
    return sorted({(end, index) for end, index, _ in hits})


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_a_stream_gives_what_a_block_gives(locator: Locator, size: int) -> None:
    text = b"xtok_abcd,word.words tok_ tok_zzzz end"
    stream = locator.open()
    hits = [hit for at in range(0, len(text), size) for hit in stream.scan(text[at : at + size])]
    hits += stream.finish()
    assert _places(hits) == _places(locator.block(text))


def test_a_buffer_longer_than_a_slice_is_scanned_whole(locator: Locator) -> None:
    for place in (0, SLICE_BYTES_MAX - 4, SLICE_BYTES_MAX, 2 * SLICE_BYTES_MAX + 5):
        text = b"." * place + b"tok_abcd" + b"." * SLICE_BYTES_MAX
        assert locator.block(text) == [(place + 8, 0, True)]


def test_scanning_a_closed_stream_is_refused(locator: Locator) -> None:
    stream = locator.open()
    stream.close()
    with pytest.raises(UnavailableError):
        stream.scan(b"tok_abcd")


def test_closing_twice_does_nothing(locator: Locator) -> None:
    stream = locator.open()
    stream.close()
    stream.close()
    assert stream.finish() == []


def test_closing_without_finish_reports_nothing_later(locator: Locator) -> None:
    stream = locator.open()
    stream.scan(b"the end")
    assert stream.finish() == [(7, 2, False)]
    assert stream.finish() == []


def test_a_stream_keeps_its_database_alive() -> None:
    stream = compile_locator(EXPRESSIONS).open()
    gc.collect()
    assert stream.scan(b"tok_abcd") == [(8, 0, True)]
    stream.close()


def test_a_forgotten_stream_is_closed_and_freed(locator: Locator) -> None:
    stream = locator.open()
    native = stream._stream
    assert sys.getrefcount(native) == 4  # wrapper, bound scan, this frame, the argument
    del stream
    gc.collect()
    assert sys.getrefcount(native) == 2


def test_many_streams_leave_no_memory_behind(locator: Locator) -> None:
    def once() -> None:
        stream = locator.open()
        stream.scan(b"tok_abcd")
        stream.close()

    once()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(500):
        once()
    gc.collect()
    assert sys.getallocatedblocks() - before < 100


WITHOUT_LITERAL = (
    rb"[0-9]{1,2}c[a-f]*",
    rb"[b-d]{1,3}[cd]+\d*",
    rb"[a-c]{1,3}[ac][ab]*",
    rb"[ac]{1,3}[cd]+",
    rb"(?:ab|ba)+c*",
    rb"(?i)[a-f]{2}=[0-9]+",
    rb"[ab]{2}[cd](?:[\n ]|$)",
    rb"[d1b][0a]?$",
)


@pytest.mark.parametrize("expression", WITHOUT_LITERAL)
@settings(max_examples=150, deadline=None)
@given(
    body=st.binary(max_size=3).map(lambda raw: bytes(b"abcdx0= "[byte % 8] for byte in raw)),
    lead=st.sampled_from([b"a", b"b", b"0", b" ", b"x"]),
    count=st.integers(0, 80),
    cuts=st.lists(st.integers(0, 90), max_size=3),
)
def test_nothing_is_missed_at_the_end_of_a_buffer_or_at_a_cut(
    expression: bytes, body: bytes, lead: bytes, count: int, cuts: list[int]
) -> None:
    """The wheel's engine alone misses such matches: see the module's last rule."""
    locator = compile_locator([translate(expression.decode()).hyperscan])
    text = lead * count + body
    expected = compile_re2(expression).search(text) is not None
    assert bool(locator.block(text)) == expected
    edges = [0, *sorted({cut for cut in cuts if cut < len(text)}), len(text)]
    stream = locator.open()
    hits = [hit for start, end in pairwise(edges) for hit in stream.scan(text[start:end])]
    assert bool(hits + stream.finish()) == expected


def test_a_word_that_goes_on_after_a_cut_is_no_hit(locator: Locator) -> None:
    stream = locator.open()
    hits = [hit for byte in b"a word\x73 b" for hit in stream.scan(bytes([byte]))]
    assert hits + stream.finish() == []


def test_too_many_hits_cut_the_scan_and_end_the_stream(locator: Locator) -> None:
    dense = b"tok_abcd" * (HITS_MAX + 10)
    assert len(locator.block(dense)) >= HITS_MAX
    stream = locator.open()
    assert len(stream.scan(dense)) >= HITS_MAX
    with pytest.raises(UnavailableError):
        stream.scan(b"tok_abcd")


def test_an_exception_while_a_match_is_told_is_never_a_clean_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(index: int, start: int, end: int, flags: int, hits: object) -> bool:
        raise MemoryError

    monkeypatch.setattr(located, "_collect", broken)
    locator = compile_locator(EXPRESSIONS)
    stream = locator.open()
    with pytest.raises(UnavailableError):
        stream.scan(b"tok_abcd")
    with pytest.raises(UnavailableError):
        stream.scan(b"clean")
    with pytest.raises((UnavailableError, MemoryError)):
        locator.block(b"tok_abcd")


def test_a_pattern_with_a_nul_is_refused_and_an_escaped_one_is_not_cut() -> None:
    with pytest.raises(ConfigError, match="NUL"):
        compile_locator([b"ab\0cd"])
    locator = compile_locator([rb"ab\x00cd"])
    assert locator.block(b"ab") == []
    assert locator.block(b"ab\0cd") == [(5, 0, True)]


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ConfigError, match="no rule"):
        compile_locator([])


def test_a_bad_expression_is_told_by_its_place() -> None:
    refused = refusals([b"good", b"(?=x)bad", b"good too", b"a*"])
    assert sorted(refused) == [1, 3]
    with pytest.raises(ConfigError, match="Hyperscan refuses"):
        compile_locator([b"good", b"(?=x)bad"])


def test_threads_scan_at_once_without_disturbing_each_other(locator: Locator) -> None:
    text = b"." * 50_000 + b"tok_abcd" + b"." * 50_000
    wrong: list[object] = []

    def work() -> None:
        for _ in range(30):
            stream = locator.open()
            hits = [
                hit for at in range(0, len(text), 4096) for hit in stream.scan(text[at : at + 4096])
            ]
            hits += stream.finish()
            if hits != [(50_008, 0, True)] or locator.block(text) != [(50_008, 0, True)]:
                wrong.append(hits)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_stream_may_move_to_another_thread(locator: Locator) -> None:
    stream = locator.open()
    stream.scan(b"tok_a")
    hits: list[object] = []
    thread = threading.Thread(target=lambda: hits.extend(stream.scan(b"bcd")))
    thread.start()
    thread.join()
    assert hits == [(8, 0, True)]
    stream.close()


def test_a_dump_is_loaded_for_the_same_rules(locator: Locator) -> None:
    loaded = load(dump(locator), EXPRESSIONS)
    assert loaded is not None
    text = b"xtok_abcd word end"
    assert loaded.block(text) == locator.block(text)
    stream = loaded.open()
    assert stream.scan(text) + stream.finish() == locator.block(text)


def _flip(blob: bytes, at: int) -> bytes:
    return blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda blob: b"",
        lambda blob: blob[:-1],
        lambda blob: blob + b"x",
        lambda blob: _flip(blob, 0),
        lambda blob: _flip(blob, 20),
        lambda blob: _flip(blob, len(blob) // 2),
        lambda blob: b"AESPHS1\n" + bytes(100),
    ],
)
def test_a_damaged_dump_is_not_used(locator: Locator, damage: Callable[[bytes], bytes]) -> None:
    assert load(damage(dump(locator)), EXPRESSIONS) is None


def test_a_dump_of_other_rules_is_not_used(locator: Locator) -> None:
    assert load(dump(locator), (*EXPRESSIONS[:2], b"END" + END)) is None
    assert load(dump(locator), EXPRESSIONS[::-1]) is None


def test_the_content_key_tells_sets_apart() -> None:
    assert content_key([b"ab", b"c"]) != content_key([b"a", b"bc"])
    assert content_key([b"ab"]) == content_key([b"ab"])
    assert len(content_key([b"ab"])) == 64
