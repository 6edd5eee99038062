"""Inflate a body piece by piece, under caps, or say why it cannot be scanned.

Rules:

- Only what a receiver would certainly read the same way is inflated: gzip, deflate,
  Brotli and Zstandard, up to ``CODINGS_MAX`` of them over each other. Preset
  dictionaries and bytes after the end are refused.
- Output is capped in bytes and as a ratio to the input; memory is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from aesp_proxy.decide.secrets.codings import (
    DECODERS,
    HTTP_CODINGS,
    SEVERAL,
    DamagedError,
    Decoder,
    LostError,
)
from aesp_proxy.decide.secrets.git_pack import GitPack
from aesp_proxy.decide.secrets.listings import dumped, uuencoded

CODINGS_MAX = 3
RATIO_FREE_BYTES = 1 << 20
"""The ratio is not asked for before this much has come out."""
_DECODERS: dict[str, Callable[[], Decoder]] = DECODERS | {
    "git pack": GitPack,
    "uuencode": uuencoded,
    "dump": dumped,
}


def codings_of(encoding: str) -> list[str]:
    """Return the content codings that a Content-Encoding names, in the order of their use."""
    codings = [coding.strip().lower() for coding in encoding.split(",")]
    return [coding for coding in codings if coding not in ("", "identity")]


def coding_problem(codings: Sequence[str]) -> str:
    """Say why a body of these content codings (lower case) is not undone, empty when it is."""
    if len(codings) > CODINGS_MAX:
        return f"the body is encoded more than {CODINGS_MAX} times"
    unknown = next((coding for coding in codings if coding not in HTTP_CODINGS), None)
    return f"the content encoding {unknown[:20]!r} cannot be scanned" if unknown else ""


class Inflater:
    """One compressed stream. ``problem`` is empty, or why the stream cannot be scanned.

    ``ended`` is true at the end of the stream where another one may not follow.
    """

    __slots__ = ("_bytes_max", "_coding", "_decoder", "_ratio_max", "problem", "taken", "yielded")

    def __init__(self, coding: str, *, bytes_max: int, ratio_max: int) -> None:
        self._coding = coding
        self._bytes_max = bytes_max
        self._ratio_max = ratio_max
        self._decoder = _DECODERS[coding]()
        self.problem = ""
        self.taken = 0
        self.yielded = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` inflates to; stops early when ``problem`` is set."""
        self.taken += len(data)
        while data and not self.problem:
            if self._decoder.ended:
                if self._coding not in SEVERAL:
                    self.problem = "there are bytes after the end of the compressed body"
                    return
                self._decoder = _DECODERS[self._coding]()
            try:
                for piece in self._decoder.pieces(data):
                    if not self._counts(piece):
                        return
                    yield piece
            except LostError:
                self.problem = "the compressed body inflates to what is damaged far inside"
                return
            except DamagedError:
                self.problem = "the compressed body is damaged"
                return
            data = self._decoder.unused if self._decoder.ended else b""

    def finish(self) -> None:
        """Set ``problem`` when the stream ends in the middle."""
        if self.taken and not self._decoder.ended and not self.problem:
            self.problem = "the compressed body ends early"

    @property
    def ended(self) -> bool:
        """Whether the stream that was begun has come to its end."""
        return self._decoder.ended

    @property
    def unused(self) -> bytes:
        """What was fed behind the end."""
        return self._decoder.unused

    def _counts(self, piece: bytes) -> bool:
        self.yielded += len(piece)
        if self.yielded > self._bytes_max:
            self.problem = "the compressed body inflates to more than may be scanned"
        elif self.yielded > max(RATIO_FREE_BYTES, self.taken * self._ratio_max):
            self.problem = "the compressed body inflates too much for its size"
        return not self.problem


class Chain:
    """Codings over each other, as one stream; ``codings`` in the order they were applied."""

    __slots__ = ("_bytes_max", "_links", "_ratio_max")

    def __init__(self, codings: Sequence[str], *, bytes_max: int, ratio_max: int) -> None:
        self._bytes_max = bytes_max
        self._ratio_max = ratio_max
        self._links = [
            Inflater(coding, bytes_max=bytes_max, ratio_max=ratio_max)
            for coding in reversed(codings)
        ]

    @property
    def problem(self) -> str:
        """Why the stream cannot be scanned, empty while it can."""
        for link in self._links:
            if link.problem:
                return link.problem
        if self.yielded > max(RATIO_FREE_BYTES, self.taken * self._ratio_max):
            return "the compressed body inflates too much for its size"
        return ""

    @property
    def taken(self) -> int:
        """How many bytes have gone in."""
        return self._links[0].taken

    @property
    def yielded(self) -> int:
        """How many bytes have come out."""
        return self._links[-1].yielded

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` inflates to; stops early when there is a problem."""
        yield from self._through(0, data)

    def _through(self, number: int, data: bytes) -> Iterator[bytes]:
        last = number == len(self._links) - 1
        for piece in self._links[number].feed(data):
            if last:
                yield piece
            else:
                yield from self._through(number + 1, piece)
            if self.problem:
                return

    def finish(self) -> None:
        """Note a stream that ends in the middle."""
        for link in self._links:
            link.finish()
