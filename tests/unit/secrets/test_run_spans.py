"""What was compiled finds the runs that Hyperscan finds, and leaves out none that it would read."""

from __future__ import annotations

import base64
import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aesp_proxy.decide.secrets import compiled as product
from aesp_proxy.decide.secrets.body import StreamPolicy
from aesp_proxy.decide.secrets.hyperscan_gates import mixed_run_traits, wide_gates
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.decide.secrets.views import run_spans, runs, stream
from aesp_proxy.decide.secrets.views.text_forms import RUN_BYTES_MIN

compiled = pytest.importorskip(
    "aesp_proxy.decide.secrets._runs", reason="built without a C compiler"
)

# Runs around the shortest that counts and around the steps of the loop; what stands between.
SIZES = st.sampled_from([0, 1, 15, 16, 17, 46, 47, 48, 49, 63, 64, 65, 95, 96, 97, 128, 200])
PARTS = st.lists(
    st.tuples(SIZES, st.sampled_from([b"", b" ", b"=", b"\xff", b"\0", b"@", b".!" * 30])),
    max_size=8,
)
LETTERS = b"ABYZabyz0189+/-_"


@settings(max_examples=200)
@given(PARTS, st.integers(0, 300), st.integers(0, 300), st.integers(0, 15))
def test_both_ways_find_the_same_runs(parts: list[tuple[int, bytes]], at: int, low: int, turn: int):
    letters = (LETTERS[turn:] + LETTERS[:turn]) * 20
    data = b"".join(letters[:size] + mark for size, mark in parts)
    at = min(at, len(data))
    assert compiled.spans(data, at, low, 0) == run_spans.spans(data, at, low, 0)
    assert compiled.end(data, at) == run_spans.end(data, at)


def test_each_byte_is_a_letter_for_both_or_for_none():
    for byte in range(256):
        data = b" " + b"a" * 30 + bytes((byte,)) + b"a" * 30 + bytes((byte,)) * 70
        assert compiled.spans(data, 1, 0, 0) == run_spans.spans(data, 1, 0, 0), byte
        assert compiled.end(data, 1) == run_spans.end(data, 1), byte


def _texts(chance: random.Random) -> bytes:
    """Return a run as somebody may write it: text in a base, or what looks like it and is none."""
    printable = bytes(range(32, 127))
    text = bytes(chance.choices(printable, k=chance.randint(10, 90)))
    noise = chance.randbytes(chance.randint(30, 160))
    wide = b"\0".join(bytes((byte,)) for byte in text)
    inner = chance.choice(
        (
            text,
            noise,
            wide,
            noise[:33] + text[:15],
            noise[:33] + text[:14],
            noise[:20] + text[:15] + noise,
            noise[:9] + wide[:30] + noise[:20],
        )
    )
    heads = (b"\x1f\x8b\x08", b"(\xb5/\xfd", b"PK\3\4", b"BZh", b"\xfd7zXZ", b"\x78\x9c", b"")
    coded = chance.choice((base64.b64encode, base64.urlsafe_b64encode, base64.b16encode,
                           base64.b32encode))(chance.choice(heads) + inner)  # fmt: skip
    return chance.choice((coded, coded.lower(), b"x" * chance.randrange(4) + coded)).rstrip(b"=")


@pytest.mark.parametrize("seed", range(6))
def test_no_run_is_left_out_that_would_be_looked_at(seed: int):
    chance = random.Random(seed)
    asked = kept = worth = 0
    for _ in range(60):
        data = b" ".join(_texts(chance) for _ in range(20)) + b"\n"
        every = run_spans.spans(data, 0, 0, len(data))
        some = compiled.spans(data, 0, 0, len(data))
        assert set(some) <= set(every)
        want = list(runs._worth(data, every))
        assert list(runs._worth(data, some)) == want
        asked, kept, worth = asked + len(every), kept + len(some), worth + len(want)
        for start, end in every:
            run = data[start:end]
            assert compiled.may_hold(run) or mixed_run_traits().first(run) < 0
    assert worth <= kept < asked


def test_long_and_open_runs_are_not_asked_what_they_hold():
    digest = b"0123456789abcdef" * 3
    assert compiled.spans(digest + b" ", 0, 0, 49) == []
    assert compiled.spans(digest, 0, 0, 48) == [(0, 48)]
    long = digest * 100
    assert compiled.spans(long + b" ", 0, 0, len(long) + 1) == [(0, len(long))]


@given(st.binary(max_size=120), st.integers(0, 9))
def test_what_is_high_is_in_a_place(data: bytes, most: int):
    places = compiled.high(data, most)
    marked = {at for start, end in places for at in range(start, end)}
    assert marked >= {at for at, byte in enumerate(data) if byte > 0x7F}
    assert len(places) <= max(most, 1)
    assert bool(places) is not data.isascii()


WIDE = ["a", "b ", "\u200b", "\uff47\uff48", "\u0430", "\U0001d5ee", "\u24d0", "\u1d43",
        "\u28ff" * 9, "\U000e0041" * 8, "\u4e2d", "caf\xe9", " " * 20, "x" * 300]  # fmt: skip
PACKED = [b"x\x9c\xed", b"x\x01\x55", b"x\xda\x55"]


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from([*map(str.encode, WIDE), *PACKED]), max_size=30).map(b"".join),
    st.integers(0, 40),
)
def test_places_open_what_the_whole_opens(data: bytes, most: int):
    found = stream._find_wide(memoryview(data), compiled.high(data, most))
    every = wide_gates().find_padded(memoryview(data))
    # What is packed may be told by bytes that follow it soon.
    left = {at for at, gate in set(every) - set(found) if wide_gates().views[gate] == "zlib"}
    assert all(data[at - 3 : at + 60].isascii() for at in left)
    assert len(every) == len(found) + len(left)
    assert set(found) <= set(every)
    assert found == sorted(found)


def test_what_is_packed_opens_when_the_bytes_that_tell_come_with_the_next_piece(
    scanner: SecretScanner, pack: tuple[Rule, ...]
):
    secret = next(rule for rule in pack if rule.id == "github-pat").positives[0]
    packed = zlib.compress(b"say it so " * 9 + secret, 1)
    assert packed.startswith(b"x\x01")
    for cut in range(1, 6):
        for before in (b"", b" " * 30, b"\xc3\xa9 " * 9, b"x" * 40_000 + b"\xc3\xa9" + b" " * 90):
            data = before + packed + b" " * 90
            found = []
            with scanner.stream("body", policy=StreamPolicy()) as body:
                for piece in (data[: len(before) + cut], data[len(before) + cut :]):
                    found += body.feed(piece).findings
                found += body.finish().findings
            assert [one.via for one in found] == ["zlib"], (cut, len(before))


def test_what_is_no_offset_is_refused():
    for ask in (lambda: compiled.spans(b"a" * 60, -1, 0, 0), lambda: compiled.end(b"a" * 60, -1)):
        with pytest.raises(ValueError, match="not negative"):
            ask()
    for ask in (lambda: compiled.spans("text", 0, 0, 0), lambda: compiled.high(b"", None),
                lambda: compiled.may_hold(1)):  # fmt: skip
        with pytest.raises(TypeError):
            ask()
    assert compiled.spans(b"a" * 60, 61, 0, 0) == []
    assert compiled.end(b"a" * 60, 99) == 60


def test_what_was_compiled_is_what_follows_runs():
    assert product.RUNS is compiled
    assert runs.LOOPS is compiled
    assert compiled.EDITION == product.RUNS_EDITION
    assert compiled.RUN_BYTES_MIN == RUN_BYTES_MIN
    assert compiled.FEW_BYTES == runs._FEW_BYTES
    assert compiled.SHORT_BYTES == runs._SHORT_BYTES
    assert compiled.HEAD_BYTES == runs.HEAD_DIGITS
    assert compiled.PACKED_KINDS_MIN == runs._PACKED_KINDS_MIN
