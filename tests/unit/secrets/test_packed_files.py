"""What is packed in other bytes, or listed line by line, is found; honest files leave whole."""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import lzma
import random
import subprocess
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from packed_files import change, git_pack, pdf, png
from scan_lab import token

from aesp_proxy.decide.secrets.body import StreamPolicy
from aesp_proxy.decide.secrets.git_pack import GitPack
from aesp_proxy.decide.secrets.scanner import SecretScanner

GITHUB = token(1)
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "zlib": zlib.compress,
    "zlib, fast": lambda data: zlib.compress(data, 1),
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "a git pack": lambda data: git_pack(b"honest words\n" * 9, data),
    "a git bundle in gzip": lambda data: gzip.compress(b"# v2 git bundle\n\n" + git_pack(data)),
    "a PDF": pdf,
    "a comment of a picture": png,
    "a PDF in base64": lambda data: base64.b64encode(pdf(data)),
    "a git pack in base64": lambda data: base64.b64encode(git_pack(data)),
}
LISTED = {
    "uuencode": lambda data: b"begin 644 a\n" + uuencoded(data) + b"`\nend\n",
    "uuencode of gzip": lambda data: b"begin 644 a\n" + uuencoded(gzip.compress(data)) + b"`\n",
    "uuencode in JSON": lambda data: json.dumps(
        {"d": f"begin 644 a\n{uuencoded(data).decode()}`\nend\n"}
    ).encode(),
    "xxd": lambda data: lines(data, lambda at, row: f"{at:08x}: {row.hex(' ', -2):39}  {row!r}"),
    "hexdump -C": lambda data: lines(
        data, lambda at, row: f"{at:08x}  {row[:8].hex(' ')}  {row[8:].hex(' '):23}  |{row!r}|"
    ),
    "hexdump": lambda data: lines(data, lambda at, row: f"{at:07x} {words(row, 'x', 4)}"),
    "od": lambda data: lines(data, lambda at, row: f"{at:07o} {words(row, 'o', 6)}"),
    "od -c": lambda data: lines(
        data, lambda at, row: f"{at:07o}" + "".join(f"   {chr(byte)}" for byte in row)
    ),
    "od -t x1z": lambda data: lines(data, lambda at, row: f"{at:07o} {row.hex(' ')}  >{row!r}<"),
    "od -b": lambda data: lines(
        data, lambda at, row: f"{at:07o}" + "".join(f" {byte:03o}" for byte in row)
    ),
}


def uuencoded(data: bytes) -> bytes:
    return b"".join(binascii.b2a_uu(data[at : at + 45]) for at in range(0, len(data), 45))


def lines(data: bytes, line: Callable[[int, bytes], str]) -> bytes:
    return "\n".join(line(at, data[at : at + 16]) for at in range(0, len(data), 16)).encode()


def words(row: bytes, kind: str, width: int) -> str:
    pairs = [row[at : at + 2].ljust(2, b"\0") for at in range(0, len(row), 2)]
    return " ".join(f"{int.from_bytes(pair, 'little'):0{width}{kind}}" for pair in pairs)


@pytest.mark.parametrize("kind", PACKERS, ids=str)
def test_what_is_packed_is_found_among_other_bytes(scanner: SecretScanner, kind: str) -> None:
    found = scanner.scan(b"before " + PACKERS[kind](f"key {GITHUB} end".encode()), "body")
    assert "github-pat" in {one.rule for one in found}


@pytest.mark.parametrize("size", [1, 7, 1_460, 100_000])
@pytest.mark.parametrize("kind", LISTED, ids=str)
def test_what_is_listed_line_by_line_is_found(scanner: SecretScanner, kind: str, size: int) -> None:
    listed = LISTED[kind](f"some words, key {GITHUB} and others".encode())
    body = b"see:\n" + listed + b"\nend."
    out, rules = streamed(scanner, body, size)
    assert "github-pat" in rules
    assert len(out) < len(body) - len(listed) // 2


def streamed(scanner: SecretScanner, body: bytes, size: int) -> tuple[bytes, set[str]]:
    """Return what leaves of a body in chunks of a size, and the rules of what is told."""
    with scanner.stream("body", policy=StreamPolicy()) as scan:
        steps = [scan.feed(body[at : at + size]) for at in range(0, len(body), size)]
        steps.append(scan.finish())
    return b"".join(step.data for step in steps), {
        one.rule for step in steps for one in step.findings
    }


@pytest.mark.parametrize("size", [1, 1_460, 100_000])
@pytest.mark.parametrize("kind", ["zlib", "zlib, fast", "a git pack", "a PDF"])
def test_nothing_of_what_is_packed_leaves_however_it_is_cut(
    scanner: SecretScanner, kind: str, size: int
) -> None:
    text = random.Random(4).randbytes(3_000).hex().encode() + f"\nkey {GITHUB} end\n".encode()
    body = b"words " * 500 + PACKERS[kind](text + text)
    out, rules = streamed(scanner, body, size)
    assert "github-pat" in rules
    assert len(out) < 3_000 + 4_096


BASE = b"".join(b"line %d of a file\n" % number for number in range(300)) + b"TOKEN=ghp_old\n"


def test_what_a_change_in_a_pack_puts_behind_the_prefix_of_a_token_is_found(
    scanner: SecretScanner,
) -> None:
    at = BASE.index(b"old")
    delta = change(BASE, at, at + 3, GITHUB[4:].encode())
    assert {one.rule for one in scanner.scan(git_pack(BASE, changes=(delta,)), "body")} >= {
        "github-pat"
    }


def test_of_a_change_to_what_the_receiver_has_the_inserted_is_looked_at(
    scanner: SecretScanner,
) -> None:
    delta = change(BASE, 90, 90, b"\n" * 120 + f"key {GITHUB} end".encode())
    assert {one.rule for one in scanner.scan(git_pack(thin=delta), "body")} >= {"github-pat"}


WAYS = {
    "whole": ("--no-reuse-delta", "--window=0"),
    "changes by offset": ("--delta-base-offset",),
    "changes by name": (),
    "stored": ("--compression=0",),
}


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_what_git_itself_packs_is_found(
    scanner: SecretScanner, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "agent")
        monkeypatch.setenv(f"{name}_EMAIL", "agent@lab.example")

    def git(*words: str, given: bytes = b"") -> bytes:
        command = ["git", "-C", str(tmp_path), *words]
        return subprocess.run(command, input=given, capture_output=True, check=True).stdout

    git("init", "-q")
    for text in (BASE, BASE.replace(b"line 150", GITHUB.encode() + b" line"), BASE + b"more\n"):
        (tmp_path / "file").write_bytes(text)
        git("add", "file")
        git("commit", "-q", "-m", "words")
    pack = git("pack-objects", "--stdout", "--revs", *WAYS[way], given=b"HEAD\n")
    out, rules = streamed(scanner, pack, 1_460)
    assert "github-pat" in rules
    assert len(out) < len(pack)


def test_a_pack_of_many_small_objects_is_read_in_time_by_its_size() -> None:
    def cost(count: int) -> float:
        data, pack = git_pack(*[b"a"] * count), GitPack()
        began = time.process_time()
        for at in range(0, len(data), 1_460):
            for _ in pack.pieces(data[at : at + 1_460]):
                pass
        assert pack.ended
        return time.process_time() - began

    assert cost(40_000) < 20 * max(cost(4_000), 0.01)


def test_an_honest_pack_leaves_whole_whatever_it_inflates_to(scanner: SecretScanner) -> None:
    noise = random.Random(5).randbytes
    deltas = tuple(change(BASE, 9, 9, noise(9)) for _ in range(2_000))
    body = git_pack(noise(50_000), BASE, b"a" * 3_000_000, BASE, changes=deltas)
    assert streamed(scanner, body, 1_460) == (body, set())


@pytest.mark.parametrize("kind", ["zlib", "a git pack", "a PDF", "a comment of a picture"])
def test_honest_content_that_is_packed_leaves_whole(scanner: SecretScanner, kind: str) -> None:
    body = PACKERS[kind](BASE * 40)
    assert streamed(scanner, body, 1_460) == (body, set())


def test_a_blank_page_is_no_bomb(scanner: SecretScanner) -> None:
    body = b"stream\n" + zlib.compress(bytes(30_000_000), 9) + b"\nendstream"
    assert streamed(scanner, body, 16_384) == (body, set())
