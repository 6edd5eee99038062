"""Send every sample of every rule in every wrapping through the scanner, as a body."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aesp_proxy.decide.secrets.body import StreamPolicy
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.scanner import SecretScanner
from benchmarks.wrappings import PLAIN, WRAPPINGS, Wrapping

BODY_BYTES = 16 * 1024
SMALL_BYTES = 7
PREFIX_CHARS_MIN = 3

SMALL = f"as it is, in chunks of {SMALL_BYTES} bytes"
MESSAGES = "as it is, over two messages"
WAYS = {SMALL: True, MESSAGES: True} | {each.name: each.single for each in WRAPPINGS}
"""Every way of sending a sample, and whether it is a single wrapping."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A positive of a rule; ``prefixed`` says that its kind begins with a word of its own."""

    rule: str
    number: int
    text: bytes
    prefixed: bool

    def body(self, wrapping: Wrapping) -> bytes:
        """Return the sample in a wrapping; what is left to chance hangs on the sample alone."""
        return wrapping.wrap(self.text, random.Random(f"{self.rule} {self.number} {wrapping.name}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A sample that was sent in some way, and whether a secret was found in it."""

    sample: Sample
    way: str
    found: bool


def samples(scanner: SecretScanner, rules: Sequence[Rule]) -> Iterator[Sample]:
    """Yield the positives of every rule."""
    for rule in rules:
        for number, text in enumerate(rule.positives):
            found, _ = scanner.occurrences(text)
            values = [text[one.start : one.end].lower() for one in found if one.rule == rule.id]
            words = [word for word in rule.keywords if len(word) >= PREFIX_CHARS_MIN]
            prefixed = any(value.startswith(word) for value in values for word in words)
            yield Sample(rule=rule.id, number=number, text=text, prefixed=prefixed)


def sent(scanner: SecretScanner, taken: Sequence[Sample]) -> Iterator[Sent]:
    """Send every sample in every way."""
    for sample in taken:
        for wrapping in WRAPPINGS:
            yield Sent(sample=sample, way=wrapping.name, found=is_found(scanner, sample, wrapping))
        plain = sample.body(PLAIN)
        yield Sent(sample=sample, way=SMALL, found=_is_found(scanner, plain, "", SMALL_BYTES))
        yield Sent(sample=sample, way=MESSAGES, found=_is_found_in_messages(scanner, plain))


def is_found(scanner: SecretScanner, sample: Sample, wrapping: Wrapping) -> bool:
    """Tell whether anything is found in a sample in a wrapping."""
    return _is_found(scanner, sample.body(wrapping), wrapping.encoding, BODY_BYTES)


def _is_found(scanner: SecretScanner, body: bytes, encoding: str, chunk_bytes: int) -> bool:
    with scanner.stream("body", encoding=encoding, policy=StreamPolicy()) as scan:
        for at in range(0, len(body), chunk_bytes):
            if scan.feed(body[at : at + chunk_bytes]).findings:
                return True
        return bool(scan.finish().findings)


def _is_found_in_messages(scanner: SecretScanner, body: bytes) -> bool:
    """Send a body as WebSocket messages, cut in the middle of the sample."""
    half = len(body) // 2
    with scanner.stream("frame", policy=StreamPolicy(window_bytes=0)) as scan:
        found = scan.feed(body[:half]).findings or scan.feed(body[half:]).findings
        return bool(found or scan.finish().findings)
