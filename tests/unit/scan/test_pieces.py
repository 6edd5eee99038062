"""What is found does not depend on how bytes come, and every place is told by line and column."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator

import pytest
from scan_lab import token

from aesp_proxy.cli.scan import pieces
from aesp_proxy.cli.scan.leak import Leak, Source
from aesp_proxy.cli.scan.pieces import leaks_in
from aesp_proxy.cli.scan.rules import Spot
from aesp_proxy.daemon.pack_files import read_packs
from aesp_proxy.decide.secrets.scanner import SecretScanner

SOURCE = Source(file="f")
KEY = b"a key for the tests of the scan."


@pytest.fixture(scope="module")
def spot() -> Spot:
    scanner = SecretScanner(read_packs(), KEY)
    return lambda data, _: scanner.occurrences(data)


def chunked(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def found(spot: Spot, data: bytes, **extra: int) -> list[Leak]:
    return list(leaks_in(spot, SOURCE, chunked(data, pieces.CHUNK_BYTES), **extra))


def test_lines_and_columns_count_from_one_and_the_last_is_within(spot: Spot):
    secret = token(1)
    (leak,) = found(spot, f"a\nkey = '{secret}' # here\n".encode())
    assert (leak.start_line, leak.start_column) == (2, 8)
    assert (leak.end_line, leak.end_column) == (2, 7 + len(secret))
    assert leak.offset == 9
    assert leak.length == len(secret)


def test_the_number_of_the_first_line_is_given(spot: Spot):
    (leak,) = found(spot, f"\n{token(1)}".encode(), first_line=40)
    assert leak.start_line == 41


def test_code_points_are_counted_beside_bytes(spot: Spot):
    (leak,) = found(spot, f"x\näöü{token(1)}".encode())
    assert leak.start_column == 7
    assert leak.chars == (4, 44)


def test_a_secret_over_several_lines_ends_in_its_last(spot: Spot):
    chance = random.Random(1)
    body = "\n".join("".join(chance.choices(string.ascii_letters, k=64)) for _ in range(8))
    key = "-----BEGIN RSA PRIV" + f"ATE KEY-----\n{body}\n-----END RSA PRIV" + "ATE KEY-----"
    (leak,) = found(spot, f"one\n  {key}\n".encode())
    assert (leak.start_line, leak.start_column) == (2, 3)
    assert leak.end_line >= leak.start_line


def test_a_secret_that_stands_twice_is_told_twice(spot: Spot):
    leaks = found(spot, f"{token(1)}\n{token(1)}\n".encode())
    assert [leak.start_line for leak in leaks] == [1, 2]
    assert leaks[0].value == leaks[1].value


@pytest.mark.parametrize("size", [40_000, 65_536, 100_001])
def test_chunks_change_nothing(spot: Spot, size: int):
    chance = random.Random(size)
    lines = [f"{'x' * chance.randint(0, 900)} {token(n)}" for n in range(400)]
    data = "\n".join(lines).encode()
    whole = found(spot, data)
    assert len(whole) == 400
    assert list(leaks_in(spot, SOURCE, chunked(data, size))) == whole


def test_one_line_longer_than_any_piece_keeps_its_columns(spot: Spot):
    data = b"\n" + b"x" * (3 * pieces.CHUNK_BYTES) + b" " + token(1).encode()
    (leak,) = found(spot, data)
    assert (leak.start_line, leak.start_column) == (2, 3 * pieces.CHUNK_BYTES + 2)
    assert leak.chars == (leak.start_column, leak.end_column + 1)


def test_dense_secrets_are_all_told(spot: Spot):
    data = " ".join(token(n) for n in range(1_300)).encode()
    leaks = found(spot, data)
    assert [leak.rule for leak in leaks] == ["github-pat"] * 1_300
    assert [leak.offset for leak in leaks] == list(range(0, 1_300 * 41, 41))


@pytest.mark.parametrize("word", ["gitleaks:allow", "aesp-proxy:allow"])
def test_a_comment_on_the_line_lets_it_be(spot: Spot, word: str):
    leaks = found(spot, f"{token(1)} # {word}\n{token(2)}\n# {word}\n".encode())
    assert [leak.allowed for leak in leaks] == [True, False]


def test_a_comment_far_away_on_a_long_line_lets_nothing_be(spot: Spot):
    (leak,) = found(spot, f"{token(1)}{' ' * 2_000}# gitleaks:allow".encode())
    assert not leak.allowed


def test_nothing_told_holds_the_secret(spot: Spot):
    (leak,) = found(spot, token(1).encode())
    assert token(1)[8:] not in repr(leak)
