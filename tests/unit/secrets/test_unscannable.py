"""Every way in which content can be unscannable: refused, or told and let go as the policy says."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import random
import zipfile
import zlib
from functools import reduce

import pytest
import zstandard

from aesp_proxy.decide.secrets.body import StreamPolicy
from aesp_proxy.decide.secrets.inflate import CODINGS_MAX
from aesp_proxy.decide.secrets.rule import UNSCANNABLE
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.decide.secrets.views.packed import HELD_BYTES_MAX, KINDS
from aesp_proxy.decide.secrets.views.stream import PACKED_MAX

NOISE = random.Random(11).randbytes(400_000)
TOKEN = b"token " + b"ghp_" + NOISE[:40].hex().encode()
TEXT = b"words of some length, and more of them. " * 90
CAP = 1 << 20


def _zip(change: dict[int, int]) -> bytes:
    """Return an archive of one member, bytes of its head changed."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", TEXT)
    data = bytearray(file.getvalue())
    for at, value in change.items():
        data[at] = value
    return bytes(data)


def _empty_blocks(count: int) -> bytes:
    squeeze = zlib.compressobj(6, zlib.DEFLATED, 31)
    return squeeze.compress(b"x") + b"".join(
        squeeze.flush(zlib.Z_SYNC_FLUSH) + squeeze.flush(zlib.Z_FULL_FLUSH) for _ in range(2)
    ) + b"\0\0\0\xff\xff" * count  # fmt: skip


def _nested(times: int) -> bytes:
    return reduce(lambda data, _: gzip.compress(data, mtime=0), range(times), TEXT)


AMBIGUOUS = b"\x78\x01\x00\xfe\xff" + b"a" * 500
"""A stored block of raw deflate that is a header of zlib, too."""

CODED: dict[str, tuple[str, bytes]] = {
    "an unknown coding": ("compress", TEXT),
    "encrypted": ("aes128gcm", TEXT),
    "more codings than are undone": (", ".join(["gzip"] * (CODINGS_MAX + 1)), _nested(4)),
    "not in its coding": ("gzip", TEXT),
    "damaged": ("gzip", gzip.compress(NOISE)[:9_000] + b"\xff" * 500),
    "cut": ("gzip", gzip.compress(NOISE)[:-20]),
    "cut in the inner coding": ("deflate, gzip", gzip.compress(zlib.compress(NOISE)[:-20])),
    "bytes behind the end": ("deflate", zlib.compress(TEXT) + b"more"),
    "read in two ways": ("deflate", AMBIGUOUS),
    "a zlib dictionary": ("deflate", b"\x78\xbb" + b"\0" * 50),
    "over the cap of bytes": ("gzip", gzip.compress(NOISE * 3)),
    "over the ratio": ("gzip", gzip.compress(b"\0" * (8 << 20))),
    "br that is none": ("br", b"\xff" * 90),
    "zstd that is none": ("zstd", b"\xff" * 90),
    "a window of zstd over the bound": ("zstd", b"\x28\xb5\x2f\xfd\x00\xf8" + b"\0" * 30),
    "no content": ("gzip", _empty_blocks(20_000)),
}
BEHIND = {"lz4": b"\x60\x40\x82", "zstd with a dictionary": b"\x23"}
PACKED: dict[str, bytes] = {
    **{f"a file of {kind}": magic.start + BEHIND.get(kind, b"") + NOISE[:99]
       for kind, magic in KINDS.items() if not magic.opens},
    "an encrypted member of ZIP": _zip({6: 1}),
    "a ZIP method that is not read": _zip({8: 14}),
    "packed over the ratio": b"x " + bz2.compress(b"\0" * (64 << 20)),
    "packed without content": b"x " + _empty_blocks(HELD_BYTES_MAX // 4),
    "packed too deep": _nested(6),
    "packed too often at once": b"".join(
        gzip.compress(NOISE, 0)[:40] for _ in range(PACKED_MAX + 1)
    ),
    "damaged too far inside": lzma.compress(NOISE)[:-60] + b"U" * 60,
    "zstd damaged too far inside": (
        zstandard.ZstdCompressor(write_checksum=True).compress(NOISE)[:-4] + b"UUUU"
    ),
    "wrapped too deep": reduce(
        lambda data, _: base64.b64encode(data), range(6), TOKEN
    ),
}  # fmt: skip
WAYS = {name: ("", data) for name, data in PACKED.items()} | CODED


def _sent(scanner: SecretScanner, way: str, *, records: bool) -> tuple[bytes, set[str], str]:
    """Return what leaves of the content, the rules of what is told, and why it was stopped."""
    encoding, data = WAYS[way]
    policy = StreamPolicy(records_unscannable=records, inflated_bytes_max=CAP)
    with scanner.stream("body", encoding=encoding, policy=policy) as scan:
        steps = [scan.feed(data[at : at + 30_000]) for at in range(0, len(data), 30_000)]
        steps.append(scan.finish())
        out = b"".join(step.data for step in steps)
        return out, {one.rule for step in steps for one in step.findings}, scan.unscannable


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_it_is_refused_and_does_not_leave_whole(scanner: SecretScanner, way: str) -> None:
    out, _, why = _sent(scanner, way, records=False)
    assert why
    assert WAYS[way][1].startswith(out)
    assert len(out) < len(WAYS[way][1])


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_it_is_told_and_let_go_where_the_policy_says_so(scanner: SecretScanner, way: str) -> None:
    out, rules, why = _sent(scanner, way, records=True)
    assert (rules, why) == ({UNSCANNABLE}, "")
    assert out == WAYS[way][1]


@pytest.mark.parametrize("way", PACKED, ids=str)
def test_in_a_message_or_field_it_is_told(scanner: SecretScanner, way: str) -> None:
    assert UNSCANNABLE in {one.rule for one in scanner.scan(PACKED[way], "message")}
