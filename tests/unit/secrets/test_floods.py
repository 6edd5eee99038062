"""Much of what opens a view, or almost is a secret: it ends, and what stands behind it is not lost.

A few seconds of CPU for a megabyte are the most that a flood costs; ``-m long`` measures that.
"""

from __future__ import annotations

import base64
import random
import time
from functools import reduce

import pytest
from scan_lab import token

from aesp_proxy.decide.secrets.body import StreamPolicy
from aesp_proxy.decide.secrets.rule import TOO_MANY, UNSCANNABLE
from aesp_proxy.decide.secrets.scanner import SecretScanner

SHORT_BYTES = 20_000
LONG_BYTES = 1_000_000
CPU_S_MAX = 90.0
CHUNK_BYTES = 16 * 1024
NOISE = random.Random(7).randbytes(LONG_BYTES)

UNITS: dict[str, bytes] = {
    "A": b"A", "zero": b"\0", "ff": b"\xff", "half a character": b"\xe2\x80", "lines": b"\r\n",
    "token heads": b"ghp_", "key ids": b"AKIA", "pem heads": b"-----BEGIN RSA PRIVATE KEY-----\n",
    "jwt heads": b"eyJ", "jwt parts": b"eyJhbGciOi.", "passwords": b"password=",
    "urls": b"a://b:c@", "mnemonics": b"abandon ", "cards": b"4111111111111111 ",
    "percent": b"%25", "percent u": b"%u0041", "u": b"\\u", "u escapes": b"\\u0041",
    "x escapes": b"\\x41", "octal": b"\\101", "backslashes": b"\\", "entities": b"&#x41;",
    "amp": b"&amp;", "encoded words": b"=?utf-8?q?", "quoted": b"=41", "numbers": b"[103,104,112,",
    "hex numbers": b"0x41,", "opened": b"[", "objects": b'{"a":', "quotes": b'"',
    "concatenations": b'"gh"+', "unseen": "\u200b".encode(), "braille": "\u2841".encode(),
    "tags": "\U000e0041".encode(), "utf-16": "gh".encode("utf-16-le"), "pdf": b"%PDF-1.7 stream\n",
    "gzip": b"\x1f\x8b\x08\x00", "gzip in base64": b"H4sI", "zlib": b"\x78\x9c",
    "zstd": b"\x28\xb5\x2f\xfd", "xz": b"\xfd7zXZ\x00", "bzip2": b"BZh9", "zip": b"PK\x03\x04",
}  # fmt: skip
WHOLE: dict[str, bytes] = {
    "noise": NOISE,
    "noise in hex": NOISE.hex().encode(),
    "noise in base64 of base64": reduce(lambda data, _: base64.b64encode(data), range(6), NOISE),
}
FLOODS = {name: unit * (LONG_BYTES // len(unit)) for name, unit in UNITS.items()} | WHOLE


def _told(scanner: SecretScanner, data: bytes, *, records: bool) -> tuple[set[str], str, bytes]:
    """Return the rules of what is told, why it was stopped, and what left."""
    policy = StreamPolicy(records_unscannable=records)
    with scanner.stream("body", policy=policy) as scan:
        steps = [scan.feed(data[at : at + CHUNK_BYTES]) for at in range(0, len(data), CHUNK_BYTES)]
        steps.append(scan.finish())
        left = b"".join(step.data for step in steps)
        return {one.rule for step in steps for one in step.findings}, scan.unscannable, left


@pytest.mark.parametrize("records", [False, True], ids=["block", "record"])
@pytest.mark.parametrize("name", FLOODS)
def test_a_secret_behind_a_flood_is_found_or_the_flood_is_told(
    scanner: SecretScanner, name: str, *, records: bool
) -> None:
    flood = FLOODS[name][:SHORT_BYTES]
    rules, why, left = _told(scanner, flood + f"\n {token(1)} ".encode(), records=records)
    assert rules & {"github-pat", TOO_MANY, UNSCANNABLE} or why
    if why:
        assert not records
        assert len(left) < len(flood)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_costs_a_bounded_time(scanner: SecretScanner, name: str) -> None:
    flood = FLOODS[name][:LONG_BYTES]
    begun = time.process_time()
    _told(scanner, flood, records=True)
    assert time.process_time() - begun < CPU_S_MAX
