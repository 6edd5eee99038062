"""Words, prose, source, chats and identifiers that depend on a seed alone."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable


class Traffic:
    """Honest bytes that depend on the seed alone."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        parts = [
            "ba",
            "ce",
            "di",
            "fo",
            "gu",
            "ha",
            "ki",
            "lo",
            "mu",
            "ne",
            "po",
            "qui",
            "ra",
            "se",
            "ti",
            "vo",
            "we",
            "xy",
            "za",
            "str",
            "ing",
            "tion",
            "er",
        ]
        self.words = [
            "".join(self.chance.choices(parts, k=self.chance.randint(1, 4))) for _ in range(3_000)
        ]

    def prose(self, count: int) -> str:
        """Return sentences."""
        words = self.chance.choices(self.words, k=count)
        marks = self.chance.choices(["", "", "", "", ",", ".", ".\n"], k=count)
        return " ".join(word + mark for word, mark in zip(words, marks, strict=True))

    def source(self, count: int) -> str:
        """Return functions with names, numbers, strings, hashes and identifiers."""
        lines = []
        for number in range(count):
            one, two, three = self.chance.choices(self.words, k=3)
            lines += [
                f"def {one}_{two}(self, {three}: str = 'key-{one}') -> None:",
                f'    """{self.prose(8)}"""',
                f"    self.{three}_token = os.environ['{two.upper()}_API_KEY']",
                f"    # {self.chance.randbytes(20).hex()} https://docs.{one}.example/{two}#{three}",
                f"    return {{'{one}': {number}, 'id': '{identifier(self.chance)}'}}",
                "",
            ]
        return "\n".join(lines)

    def chat(self, size: int) -> bytes:
        """Return conversations as an API takes them: prose and code inside JSON strings."""

        def one() -> bytes:
            messages = [
                {"role": role, "content": self.prose(180) + "\n```\n" + self.source(6) + "```"}
                for role in ("system", "user", "assistant", "user")
            ]
            body = {"model": "example-1", "stream": True, "id": identifier(self.chance)}
            return json.dumps(body | {"messages": messages}).encode() + b"\n"

        return fill(size, one)

    def code(self, size: int) -> bytes:
        """Return source text."""
        return fill(size, lambda: self.source(40).encode())

    def script(self, size: int) -> bytes:
        """Return minified script."""

        def one() -> bytes:
            a, b, c = self.chance.choices(self.words, k=3)
            return (
                f"var {a[0]}={{{b}:function(e,t){{return e.{c}(t)||!0}}}},n=[{len(a)},.5];".encode()
            )

        return fill(size, one)

    def image(self, size: int) -> bytes:
        """Return an image as a data URL in JSON."""
        data = base64.b64encode(self.chance.randbytes(size * 3 // 4))
        return b'{"image_url": "data:image/png;base64,' + data + b'"}'


def identifier(chance: random.Random) -> str:
    """Return a UUID, of no version."""
    raw = chance.randbytes(16).hex()
    return f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"


def fill(size: int, make: Callable[[], bytes]) -> bytes:
    """Return what ``make`` makes until there is ``size`` of it."""
    parts: list[bytes] = []
    while size > 0:
        parts.append(make())
        size -= len(parts[-1])
    return b"".join(parts)
