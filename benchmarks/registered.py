"""Values to register for the benchmark of scans: tokens, hex keys and passwords by a seed."""

from __future__ import annotations

import random
import string

from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.decide.secrets.registered import Entry, Hasher, entry

KEY = b"a key for the benchmark of registered values"
_LETTERS = string.ascii_letters + string.digits


def values(count: int, *, seed: int = 20_261_122) -> list[bytes]:
    """Return ``count`` values of the lengths that tokens have; one in fifty is a password."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        if number % 50 == 49:
            made.append(f"{''.join(chance.choices(_LETTERS, k=11))}7!".encode())
        elif number % 3 == 0:
            made.append(chance.randbytes(16).hex().encode())
        else:
            made.append("".join(chance.choices(_LETTERS, k=chance.choice((32, 40, 64)))).encode())
    return made


def entries(count: int) -> list[Entry]:
    """Return what is kept of so many values."""
    hasher = Hasher(KEY)
    return [
        entry(f"VALUE_{number}", "benchmark", value, hasher=hasher, fingerprint_key=KEY)
        for number, value in enumerate(values(count))
    ]


def index(count: int) -> ExactIndex:
    """Return an index with so many values registered."""
    made = ExactIndex(KEY)
    made.add(entries(count))
    return made
