r"""Locate where rules match with Hyperscan: which rule, and where a match ends.

The only module that knows the ``hyperscan`` wheel (0.9.1, Vectorscan 5.4.12).
It answers "rule i has a match that ends at byte e", for every such e; what the
match is (start, capture, entropy) is asked of RE2 in ``reference``.

Rules, each closing a trap of the wheel that was seen:

- Lengths are taken modulo 2**32: nothing longer than ``SLICE_BYTES_MAX`` is handed over.
- A stream borrows its callback, context and database: they are kept alive here.
- ``Database.stream`` leaks a reference that ``Stream.__enter__`` steals: each
  stream is entered exactly once, and never made by ``Stream()``.
- Scanning or closing a closed stream, and ``Stream.size()``, crash: a flag stands before.
- ``Stream.close`` takes the database's own scratch, whatever is passed: no scan
  uses that one, and closing is under a lock. Scans use one scratch a thread.
- An exception in a callback ends the scan as ``ScanTerminated`` and loses the
  original: any error of a scan is an UnavailableError and the stream is dead.
- A NUL ends an expression early: expressions are refused if they hold one.
- ``loadb`` leaves a database without scratch: one is given to it.
- Vectorscan 5.4.12 misses matches of some patterns that no literal leads to, when
  two bytes that it skips to stand at the end of a buffer, on both sides of a cut,
  or at certain alignments (its pull requests 368 and 402). So a block is scanned
  with newlines behind it, which ``pattern`` lets stand before ``\z``, and each cut
  of a stream again as a block of the ``CONTEXT_BYTES`` on both sides. Where a rule
  has no literal of ``LED_CHARS_MIN`` or has a ``\z``, everything is scanned twice,
  as block and as stream, which lie differently in memory: such rules cost half the
  rate. A miss is still thinkable there; random tests of 10**5 texts find none.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import cast

import hyperscan as hs

from aesp_proxy.decide.secrets.hyperscan_gates import (
    Compiling,
    GateLocator,
    gate_jobs,
    load_gates,
)
from aesp_proxy.decide.secrets.literal import LED_CHARS_MIN, literal_chars
from aesp_proxy.decide.secrets.pattern import END_PAD_BYTES
from aesp_proxy.decide.secrets.views.forms import RuleGates
from aesp_proxy.errors import ConfigError, UnavailableError

SLICE_BYTES_MAX = 1 << 20
HITS_MAX = 16_384

CONTEXT_BYTES = 1_102
"""What a stream keeps: the longest match that can be confirmed, and a byte on each side."""

Hit = tuple[int, int, bool]
"""(offset just past the match, index of the expression, seen in its whole context).

The last is false for a hit that only the second look at a cut or an end gave, or
that asks for the end of the data: RE2, which sees what is there, must agree.
"""

_PAD = b"\n" * END_PAD_BYTES

_MAGIC = b"AESPHS3\n"
_DIGEST_BYTES = 32
_VERSION = version("hyperscan")


_COMPILED_MAX = 2


def _collect(index: int, _start: int, end: int, _flags: int, hits: object) -> bool:
    """Note one match; true ends the scan, which the reader of ``hits`` must treat as a refusal."""
    noted = cast("list[Hit]", hits)
    noted.append((end, index, True))
    return len(noted) >= HITS_MAX


class Locator:
    """All expressions as two databases, one for blocks and one for streams.

    ``twice`` says that a rule needs everything to be scanned both ways. ``gates`` open
    views, where they were compiled with it.
    Immutable after construction and safe to share between threads.
    """

    __slots__ = ("_at_end", "_own", "blocks", "closing", "expressions", "gates", "streams", "twice")

    def __init__(
        self,
        expressions: Sequence[bytes],
        blocks: hs.Database,
        streams: hs.Database,
        gates: GateLocator | None = None,
    ) -> None:
        self.gates = gates
        self.expressions = tuple(expressions)
        self.blocks = blocks
        self.streams = streams
        self._at_end = frozenset(
            index for index, expression in enumerate(expressions) if rb"\z" in expression
        )
        self.twice = any(
            literal_chars(expression) < LED_CHARS_MIN for expression in expressions
        ) or bool(self._at_end)
        self._own = threading.local()
        self.closing = threading.Lock()

    def block(self, data: bytes) -> list[Hit]:
        r"""Return the hits in ``data``; HITS_MAX or more of them mean that the scan was cut.

        Start and end of ``data`` are what ``^``, ``\z`` and ``\b`` see. UnavailableError
        when the engine fails.
        """
        if len(data) > SLICE_BYTES_MAX:
            return self._streamed(data)
        hits = self.padded(data)
        if self.twice:
            hits += self._streamed(data)
        return self.ordered(hits) if hits else hits

    def padded(self, data: bytes) -> list[Hit]:
        """Return the hits in ``data``, seen with newlines behind it.

        What ends in them is a hit at the end of ``data``, for RE2 to agree.
        """
        last = len(data)
        hits = self.unpadded(data + _PAD)
        return [(min(end, last), index, end <= last) for end, index, _ in hits] if hits else hits

    def unpadded(self, data: bytes) -> list[Hit]:
        """Return the hits in ``data``; one at its very end may be missing."""
        hits: list[Hit] = []
        try:
            self.blocks.scan(data, _collect, 0, hits, self.scratches()[0])
        except hs.error as failure:
            if len(hits) < HITS_MAX:
                raise _failed(failure) from failure
        return hits

    def ordered(self, hits: list[Hit]) -> list[Hit]:
        """Return each (end, expression) once, in ascending order; the fuller sight counts."""
        best: dict[tuple[int, int], bool] = {}
        for end, index, whole in hits:
            seen = best.get((end, index), False)
            best[end, index] = seen or (whole and index not in self._at_end)
        return sorted((end, index, whole) for (end, index), whole in best.items())

    def open(self) -> LocatorStream:
        """Return a new stream at offset 0; the caller closes it."""
        return LocatorStream(self)

    def _streamed(self, data: bytes) -> list[Hit]:
        stream = self.open()
        try:
            hits: list[Hit] = []
            # A short block is cut in two, so that its halves lie otherwise than the whole.
            size = min(SLICE_BYTES_MAX, len(data) // 2 + 1)
            for offset in range(0, len(data), size):
                hits += stream.scan(data[offset : offset + size])
                if len(hits) >= HITS_MAX:
                    return hits
            return hits + stream.finish()
        finally:
            stream.close()

    def scratches(self) -> tuple[hs.Scratch, hs.Scratch]:
        """Return this thread's scratches (block, stream), never those of the databases."""
        try:
            own: tuple[hs.Scratch, hs.Scratch] = self._own.scratches
        except AttributeError:
            own = self._own.scratches = (hs.Scratch(self.blocks), hs.Scratch(self.streams))
        return own


class LocatorStream:
    """One stream of bytes: scanned piece by piece as if it were one.

    ``total`` is how many bytes were scanned, ``tail`` the last of them.
    """

    __slots__ = ("_hits", "_locator", "_open", "_scan", "_stream", "tail", "total")

    def __init__(self, locator: Locator) -> None:
        self._open = False
        self._locator = locator
        self._hits: list[Hit] = []
        self.tail = b""
        self.total = 0
        try:
            self._stream = locator.streams.stream(_collect, 0, self._hits)
            self._stream.__enter__()
        except hs.error as failure:
            raise _failed(failure) from failure
        self._open = True
        # The stub says AnyStr; the wheel takes any buffer.
        self._scan: Callable[..., None] = self._stream.scan

    def scan(self, data: bytes) -> list[Hit]:
        """Return the hits that become known with ``data``; offsets count from the stream's start.

        A hit at the end of ``data`` may come with the next piece, and may come twice.
        HITS_MAX of them mean that the scan was cut: the stream is dead then.
        UnavailableError when the engine fails or the stream is closed.
        """
        if not self._open:
            raise UnavailableError("the secret scan of this stream has ended")
        try:
            self._scan(data, 0, self._locator.scratches()[1])
        except hs.error as failure:
            self.close()
            if len(self._hits) < HITS_MAX:
                raise _failed(failure) from failure
        tail = self.tail
        near = tail + (data if self._locator.twice else data[:CONTEXT_BYTES])
        seam = self._seam(near, len(tail)) if tail or self._locator.twice else []
        self.total += len(data)
        if len(data) >= CONTEXT_BYTES:
            self.tail = data[-CONTEXT_BYTES:]
        else:
            self.tail = (tail + data)[-CONTEXT_BYTES:]
        return self._take(seam) if seam or self._hits else seam

    def finish(self) -> list[Hit]:
        r"""Close the stream and return the hits that only its end decides (``\b``, ``\z``)."""
        if not self._open:
            return []
        self.close()
        last = len(self.tail)
        base = self.total - last
        hits = self._locator.padded(self.tail)
        return self._take([(end + base, index, False) for end, index, _ in hits if end == last])

    def _seam(self, near: bytes, cut: int) -> list[Hit]:
        """Return the hits at or over a cut; what ends with ``near`` is seen at the next cut."""
        base = self.total - cut
        hits = self._locator.unpadded(near)
        last = len(near)
        return [(end + base, index, False) for end, index, _ in hits if cut <= end < last]

    def _take(self, seam: list[Hit]) -> list[Hit]:
        hits = self._locator.ordered(self._hits + seam)
        self._hits.clear()
        return hits

    def close(self) -> None:
        """Close the stream; closing again does nothing."""
        if not self._open:
            return
        self._open = False
        with self._locator.closing:
            try:
                self._stream.close()
            except hs.error as failure:
                raise _failed(failure) from failure

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            self._open = False
            self._stream.close()


def compile_locator(expressions: Sequence[bytes], gates: RuleGates | None = None) -> Locator:
    """Compile ``expressions`` (Hyperscan dialect) into a locator, with ``gates`` if there are any.

    What was compiled of late is given again: a reload mostly leaves the rules as they are.
    ConfigError when an expression is not accepted; ``refusals`` says which.
    """
    if not expressions:
        raise ConfigError("there is no rule to scan for")
    if any(b"\0" in expression for expression in expressions):
        raise ConfigError("an expression holds a NUL")
    return _locator(tuple(expressions), gates)


@functools.lru_cache(maxsize=_COMPILED_MAX)
def _locator(expressions: tuple[bytes, ...], gates: RuleGates | None) -> Locator:
    modes = (hs.HS_MODE_BLOCK, hs.HS_MODE_STREAM)
    compiling = Compiling(functools.partial(_compile, expressions, mode) for mode in modes)
    views, jobs = gate_jobs(gates.make()) if gates is not None else ([], [])
    compiling.start(jobs)
    try:
        blocks, streams, *opening = compiling.wait()
        return Locator(
            expressions, blocks, streams, GateLocator(views, opening) if opening else None
        )
    except hs.error as failure:
        raise ConfigError(f"Hyperscan refuses a rule: {_words(failure)}") from failure


def refusals(expressions: Sequence[bytes]) -> dict[int, str]:
    """Return which of ``expressions`` Hyperscan does not take, by index, with its reason."""
    refused: dict[int, str] = {}
    for index, expression in enumerate(expressions):
        try:
            _compile([expression], hs.HS_MODE_STREAM)
        except hs.error as failure:
            refused[index] = _words(failure)
    return refused


def content_key(expressions: Sequence[bytes], gates_key: bytes = b"") -> str:
    """Return the name under which a dump of these expressions may be kept (64 hex digits).

    ``gates_key`` says which gates were made for them.
    """
    digest = hashlib.sha256(_MAGIC + _VERSION.encode() + hashlib.sha256(gates_key).digest())
    for expression in expressions:
        digest.update(len(expression).to_bytes(8, "big") + expression)
    return digest.hexdigest()


def dump(locator: Locator, gates_key: bytes = b"") -> bytes:
    """Return the databases as bytes for ``load``.

    The expressions can be read from it: keep rules there, never values of secrets.
    """
    parts = [hs.dumpb(database) for database in (locator.blocks, locator.streams)]
    parts.append(locator.gates.dump() if locator.gates else b"")
    body = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    body = bytes.fromhex(content_key(locator.expressions, gates_key)) + body
    return _MAGIC + hashlib.sha256(body).digest() + body


def load(blob: bytes, expressions: Sequence[bytes], gates_key: bytes = b"") -> Locator | None:
    """Return the locator that ``dump`` wrote for ``expressions``, or None to compile anew.

    None for another version, machine, set of rules, or a damaged file. The digest
    finds damage, not malice: whoever can write the file decides what is found, so
    it lives in the daemon's own directory.
    """
    start = len(_MAGIC) + _DIGEST_BYTES
    body = blob[start:]
    if blob[:start] != _MAGIC + hashlib.sha256(body).digest():
        return None
    if body[:_DIGEST_BYTES].hex() != content_key(expressions, gates_key):
        return None
    at = _DIGEST_BYTES
    parts = []
    while at < len(body):
        length = int.from_bytes(body[at : at + 8], "big")
        parts.append(body[at + 8 : at + 8 + length])
        at += 8 + length
    try:
        return Locator(
            expressions,
            _restore(parts[0], hs.HS_MODE_BLOCK),
            _restore(parts[1], hs.HS_MODE_STREAM),
            load_gates(parts[2]) if parts[2] else None,
        )
    except hs.error:
        return None


def _compile(expressions: Sequence[bytes], mode: int) -> hs.Database:
    database = hs.Database(mode=mode)
    database.compile(
        expressions=list(expressions), ids=list(range(len(expressions))), elements=len(expressions)
    )
    return database


def _restore(blob: bytes, mode: int) -> hs.Database:
    database = hs.loadb(blob, mode)
    database.scratch = hs.Scratch(database)
    return database


def _words(failure: Exception) -> str:
    return str(failure).strip().rstrip(".") or type(failure).__name__


def _failed(failure: Exception) -> UnavailableError:
    return UnavailableError(f"the secret scan failed: {type(failure).__name__}")
