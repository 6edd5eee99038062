"""Fuzz the stream: what leaves is a prefix, nothing of a secret leaves, and matchers agree.

The first bytes of the input choose encoding, window and chunks; the rest is the
body, with a token put in where it holds a marker. Run alone under atheris, or from
pytest with random bytes.
"""

from __future__ import annotations

import gzip
import sys
import zlib
from functools import cache

import brotli
import zstandard

from aesp_proxy.decide.secrets.body import StreamPolicy
from aesp_proxy.decide.secrets.reference import Confirmer
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.rules import rule_from_policy
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.model.decision import Severity, Verdict

MARKER = b"\xff"
TOKENS = (b"tok-" + b"ab12" * 5, b"id 4711-0815", b"aaacdd", b"Key=00ff00ff00ff")
ENCODINGS = ("", "identity", "gzip", "deflate", "br", "gzip, gzip", "zstd")
WINDOWS = (0, 64, 1_100)


@cache
def _rules() -> tuple[Rule, ...]:
    return (
        rule_from_policy("token", "tok-[a-z0-9]{20}", Severity.CRITICAL),
        rule_from_policy("bounded", r"\bid \d{4}-\d{4}\b", Severity.CRITICAL),
        rule_from_policy("pairs", "[ac]{3,6}[cd]{2}", Severity.CRITICAL),
        rule_from_policy("open", "(?i)key=[0-9a-f]{8,}", Severity.CRITICAL),
    )


@cache
def _scanner() -> tuple[SecretScanner, Confirmer]:
    return SecretScanner(_rules(), b"a key that is used by no one"), Confirmer(_rules())


def fuzz_one(data: bytes) -> None:
    """Send ``data`` through a scan and hold the result against the reference."""
    head, body = data[:8].ljust(8, b"\0"), data[8:4_000]
    token = TOKENS[head[0] % len(TOKENS)]
    content = body.replace(MARKER, token)
    encoding = ENCODINGS[head[1] % len(ENCODINGS)]
    raw = _encoded(content, encoding, damaged=head[2] == 1)
    window_bytes = WINDOWS[head[3] % len(WINDOWS)]
    sizes = [1 + size % 97 for size in head[4:8]]
    scanner, confirmer = _scanner()
    policy = StreamPolicy(threshold=Severity.CRITICAL, window_bytes=window_bytes)
    released, found, reason = b"", [], ""
    with scanner.stream("body", encoding=encoding, policy=policy) as scan:
        at = step = 0
        while at < len(raw):
            size = sizes[step % len(sizes)]
            release = scan.feed(raw[at : at + size])
            released += release.data
            found += release.findings
            at, step = at + size, step + 1
        release = scan.finish()
        released += release.data
        found += release.findings
        reason = scan.unscannable
    expected = confirmer.find(content)
    if encoding not in ("", "identity"):
        _unpacked(raw, encoding, content, sizes)
    _check(raw.startswith(released), "what left is no prefix")
    if reason:
        return
    _check(bool(found) or not expected, "the stream misses what the reference finds")
    # Messages are scanned alone too: there a boundary may stand that the whole has not.
    # The raw bytes of what is compressed are scanned too, and cut words at other places.
    seen = bool(expected) or bool(confirmer.find(raw))
    # And what a view shows is there, though not in clear: ``tok-key=``, a line end, the rest.
    clear = [one for one in found if not one.via]
    _check(not clear or seen or not window_bytes, "the stream finds what is not there")
    if not found:
        _check(released == raw, "clean bytes were kept")
    elif expected and encoding in ("", "identity") and window_bytes:
        _check(len(released) <= expected[0].start, "bytes of a secret left")


def _unpacked(raw: bytes, encoding: str, content: bytes, sizes: list[int]) -> None:
    """Send a compressed body on as what it inflates to: masked, of its length, or stopped."""
    scanner, confirmer = _scanner()
    policy = StreamPolicy(verdict=lambda *_: Verdict.REDACT, redacts=True, unpacks=True)
    out = b""
    with scanner.stream("body", encoding=encoding, policy=policy) as scan:
        for at in range(0, len(raw), sizes[0]):
            out += scan.feed(raw[at : at + sizes[0]]).data
        out += scan.finish().data
        stopped = scan.unscannable
    masked = confirmer.find(content)
    # The same bytes may be no secret elsewhere, where a rule wants a border.
    whole = [out[one.start :].startswith(one.value) for one in masked]
    _check(not any(whole), "a secret leaves unpacked")
    _check(bool(stopped) or len(out) == len(content), "what leaves unpacked has another length")
    _check(bool(masked) or content.startswith(out), "what leaves unpacked is something else")


def _encoded(content: bytes, encoding: str, *, damaged: bool) -> bytes:
    raw = content
    if encoding == "gzip":
        raw = gzip.compress(content, mtime=0)
    elif encoding == "deflate":
        raw = zlib.compress(content)
    elif encoding == "br":
        raw = brotli.compress(content, quality=1)
    elif encoding == "zstd":
        raw = zstandard.ZstdCompressor().compress(content)
    elif encoding == "gzip, gzip":
        raw = gzip.compress(gzip.compress(content, mtime=0), mtime=0)
    return raw[: len(raw) // 2] if damaged and raw is not content else raw


def _check(holds: bool, what: str) -> None:  # noqa: FBT001
    if not holds:
        raise AssertionError(what)


if __name__ == "__main__":
    import atheris  # type: ignore[import-not-found]

    atheris.instrument_all()
    atheris.Setup(sys.argv, fuzz_one)
    atheris.Fuzz()
