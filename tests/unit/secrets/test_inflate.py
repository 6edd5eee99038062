"""A compressed body is scanned as what it inflates to, or not let through at all."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from aesp_proxy.decide.secrets.body import StreamPolicy
from aesp_proxy.decide.secrets.codings import DECODERS, DamagedError, begins_as
from aesp_proxy.decide.secrets.inflated import RAW_HELD_BYTES_MAX
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.rules import rule_from_policy
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.model.decision import Severity

STOP = StreamPolicy(threshold=Severity.CRITICAL)
FILLER = b'{"role": "user", "content": "the quick brown fox \\n jumps"}, '


def _run(
    scanner: SecretScanner,
    raw: bytes,
    size: int,
    encoding: str = "gzip",
    policy: StreamPolicy = STOP,
) -> tuple[bytes, list[str], str]:
    with scanner.stream("body", encoding=encoding, policy=policy) as scan:
        steps = [scan.feed(raw[at : at + size]) for at in range(0, len(raw), size)]
        steps.append(scan.finish())
        reason = scan.unscannable
    released = b"".join(step.data for step in steps)
    return released, [one.rule for step in steps for one in step.findings], reason


def _partial(raw: bytes, wbits: int) -> bytes:
    return zlib.decompressobj(wbits).decompress(raw)


@pytest.fixture
def secret(pack: tuple[Rule, ...]) -> bytes:
    return next(rule for rule in pack if rule.id == "github-pat").positives[0]


@settings(max_examples=80, deadline=None)
@given(
    before=st.integers(0, 3_000),
    noise=st.binary(max_size=3_000),
    size=st.sampled_from([1, 7, 100, 1_000, 4_096, 100_000]),
    level=st.sampled_from([0, 1, 9]),
    coding=st.sampled_from([("gzip", 31), ("X-Gzip", 31), ("deflate", 15)]),
)
def test_no_byte_of_a_secret_can_be_inflated_from_what_left(
    scanner: SecretScanner,
    pack: tuple[Rule, ...],
    before: int,
    noise: bytes,
    size: int,
    level: int,
    coding: tuple[str, int],
) -> None:
    token = next(rule for rule in pack if rule.id == "github-pat").positives[0]
    content = noise + FILLER * (before // 60) + token + FILLER * 30
    squeeze = zlib.compressobj(level, zlib.DEFLATED, coding[1])
    raw = squeeze.compress(content) + squeeze.flush()
    released, found, reason = _run(scanner, raw, size, coding[0])
    # The noise may be the beginning of what cannot be opened: refused, too.
    assert found == ["github-pat"] or reason
    assert raw.startswith(released)
    assert len(_partial(released, coding[1])) <= len(content) - 30 * len(FILLER) - len(token)


@pytest.fixture(scope="module")
def edge(key: bytes) -> SecretScanner:
    return SecretScanner([rule_from_policy("edge", "tok-[a-z]{36}", Severity.CRITICAL)], key)


@settings(max_examples=60, deadline=None)
@given(
    before=st.integers(0, 300),
    size=st.integers(1, 80),
    level=st.sampled_from([0, 6]),
    window_bytes=st.integers(40, 60),
)
def test_a_secret_just_as_long_as_the_window_cannot_be_inflated_in_part(
    edge: SecretScanner, before: int, size: int, level: int, window_bytes: int
) -> None:
    content = b"." * before + b"tok-" + b"abcdefghijkl" * 3 + b"." * 90
    squeeze = zlib.compressobj(level, zlib.DEFLATED, 31)
    raw = b"".join(
        squeeze.compress(bytes([byte])) + squeeze.flush(zlib.Z_SYNC_FLUSH) for byte in content
    )
    policy = StreamPolicy(threshold=Severity.CRITICAL, window_bytes=window_bytes)
    released, found, _ = _run(edge, raw, size, policy=policy)
    assert found == ["edge"]
    assert _partial(released, 31) == b"." * len(_partial(released, 31))


@settings(max_examples=60, deadline=None)
@given(
    content=st.binary(max_size=20_000),
    repeat=st.integers(1, 20),
    size=st.sampled_from([1, 33, 5_000, 1 << 20]),
    coding=st.sampled_from([("gzip", 31), ("deflate", 15)]),
)
def test_a_clean_compressed_body_leaves_byte_for_byte(
    scanner: SecretScanner, content: bytes, repeat: int, size: int, coding: tuple[str, int]
) -> None:
    squeeze = zlib.compressobj(6, zlib.DEFLATED, coding[1])
    raw = squeeze.compress(content * repeat) + squeeze.flush()
    if size == 1:
        raw = raw[:2_000]
    released, found, reason = _run(scanner, raw, size, coding[0])
    assert found == []
    assert raw.startswith(released)
    assert released == raw or reason


def test_a_clean_compressed_body_is_not_held_until_its_end(scanner: SecretScanner) -> None:
    raw = gzip.compress(FILLER * 20_000, compresslevel=0)
    with scanner.stream("body", encoding="gzip", policy=STOP) as scan:
        out = scan.feed(raw[:200_000]).data
    assert len(out) > 190_000


@pytest.mark.parametrize("encoding", ["", "identity", " Identity ", "identity, identity"])
def test_no_encoding_is_scanned_as_it_is(
    scanner: SecretScanner, secret: bytes, encoding: str
) -> None:
    assert _run(scanner, secret, 10, encoding)[1] == ["github-pat"]


@pytest.mark.parametrize(
    "encoding", ["compress", "gzip, x-unknown", "br, br, br, br", "x-unknown", "aes128gcm", "*"]
)
def test_what_cannot_be_scanned_is_said_when_the_body_opens(
    scanner: SecretScanner, encoding: str
) -> None:
    with scanner.stream("body", encoding=encoding, policy=STOP) as scan:
        assert scan.stopped
        assert scan.unscannable
        step = scan.feed(b"anything")
        assert (step.data, step.unscannable) == (b"", scan.unscannable)
        assert scan.finish().unscannable


@pytest.mark.parametrize(
    ("raw", "encoding", "words"),
    [
        (b"not gzip at all, but long enough to see", "gzip", "damaged"),
        (b"not zlib at all, but long enough to see", "deflate", "damaged"),
        (b"\x78\x01\x02\x00\xfd\xffab\x03\x00", "deflate", "damaged"),  # zlib too, and raw
        (b"not Brotli at all, but long enough to see", "br", "damaged"),
        (b"not Zstandard at all, but long enough", "zstd", "damaged"),
        (brotli.compress(FILLER) + b"hidden", "br", "damaged"),
        (brotli.compress(FILLER * 99)[:-3], "br", "ends early"),
        (zstandard.compress(FILLER * 99)[:-3], "zstd", "ends early"),
        (brotli.compress(bytes(50_000_000), quality=1), "br", "too much for its size"),
        (zstandard.compress(bytes(50_000_000)), "zstd", "too much for its size"),
        (gzip.compress(gzip.compress(bytes(5_000_000))), "gzip, gzip", "too much for its size"),
        (gzip.compress(FILLER * 99, mtime=0), "br, gzip", "damaged"),
        (gzip.compress(FILLER * 99, mtime=0)[:-9], "gzip", "ends early"),
        (gzip.compress(FILLER * 99, mtime=0)[:5], "gzip", "ends early"),
        (gzip.compress(FILLER * 99, mtime=0)[:-8] + bytes(8), "gzip", "damaged"),
        (gzip.compress(FILLER, mtime=0) + b"hidden behind the end", "gzip", "damaged"),
        (zlib.compress(FILLER) + b"hidden", "deflate", "after the end"),
        (
            gzip.compress(bytes(50_000_000), compresslevel=9, mtime=0),
            "gzip",
            "too much for its size",
        ),
    ],
)
@pytest.mark.parametrize("size", [1_000, 1 << 20])
def test_a_body_that_is_not_what_it_says_is_unscannable(
    scanner: SecretScanner, raw: bytes, encoding: str, words: str, size: int
) -> None:
    released, found, reason = _run(scanner, raw, size, encoding)
    assert words in reason
    assert found == []
    assert len(released) < len(raw)


def test_a_body_that_inflates_to_more_than_the_cap_is_unscannable(scanner: SecretScanner) -> None:
    policy = StreamPolicy(inflated_bytes_max=100_000)
    raw = gzip.compress(FILLER * 3_000)
    assert "more than may be scanned" in _run(scanner, raw, 100_000, policy=policy)[2]


def test_a_bomb_costs_no_memory(scanner: SecretScanner) -> None:
    raw = gzip.compress(bytes(100_000_000), compresslevel=9)
    policy = StreamPolicy(inflate_ratio_max=2_000)
    tracemalloc.start()
    try:
        released, found, reason = _run(scanner, raw, len(raw), policy=policy)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (released, found, reason) == (raw, [], "")
    assert peak_bytes < 1 << 20


CODED = {
    "br": brotli.compress,
    "zstd": zstandard.compress,
    "deflate": lambda data: zlib.compress(data, wbits=-15),
    "gzip, br": lambda data: brotli.compress(gzip.compress(data)),
    "zstd, gzip, br": lambda data: brotli.compress(gzip.compress(zstandard.compress(data))),
}


@pytest.mark.parametrize("size", [1, 100, 1 << 20])
@pytest.mark.parametrize("encoding", CODED)
def test_every_coding_and_several_are_undone(
    scanner: SecretScanner, secret: bytes, encoding: str, size: int
) -> None:
    noise = b"".join(b"%d " % (number * number) for number in range(3_000))
    raw = CODED[encoding](noise + secret + FILLER * 3)
    released, found, reason = _run(scanner, raw, size, encoding)
    assert (found, reason) == (["github-pat"], "")
    assert raw.startswith(released)
    assert len(released) < len(raw) * 0.97
    clean = CODED[encoding](noise + FILLER)
    assert _run(scanner, clean, size, encoding) == (clean, [], "")


def test_members_of_gzip_are_one_body(scanner: SecretScanner, secret: bytes) -> None:
    raw = gzip.compress(FILLER + secret[:20]) + gzip.compress(secret[20:] + FILLER)
    released, found, _ = _run(scanner, raw, 50)
    assert (released, found) == (b"", ["github-pat"])


def test_a_secret_in_the_name_of_a_gzip_header_is_found(
    scanner: SecretScanner, secret: bytes
) -> None:
    plain = gzip.compress(FILLER, mtime=0)
    raw = plain[:3] + b"\x08" + plain[4:10] + secret + b"\0" + plain[10:]
    assert gzip.decompress(raw) == FILLER
    released, found, _ = _run(scanner, raw, 16)
    assert (released, found) == (b"", ["github-pat"])


def test_raw_bytes_that_never_become_content_are_not_piled_up(scanner: SecretScanner) -> None:
    empty_stored_block = b"\x00\x00\x00\xff\xff"
    raw = gzip.compress(b"")[:10] + empty_stored_block * 50_000
    released, _, reason = _run(scanner, raw, 4_096)
    assert "too little content" in reason
    assert len(released) + RAW_HELD_BYTES_MAX < len(raw)


def test_an_empty_compressed_body_is_clean(scanner: SecretScanner) -> None:
    assert _run(scanner, b"", 10) == (b"", [], "")
    raw = gzip.compress(b"")
    assert _run(scanner, raw, 10) == (raw, [], "")


def test_a_head_begins_as_deflate_where_its_decoder_says_so():
    chance = random.Random(5)
    said = set()
    for _ in range(1_000):
        packed = zlib.compress(chance.randbytes(9) * 9, wbits=-15)
        head = chance.choice(
            (chance.randbytes(64), packed[:64], packed[:3], packed[:9] + b"\xff" * 9)
        )
        try:
            want = next(DECODERS["raw deflate"]().pieces(head), b"") is not None
        except DamagedError:
            want = False
        assert begins_as("raw deflate", head) is want, head
        said.add(want)
    assert said == {True, False}
