"""Registered values in the benchmark of scans: what 0, 1,000 and 10,000 of them cost."""

from __future__ import annotations

import random
import string
import time
from collections.abc import Callable, Sequence

from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.decide.secrets.hyperscan import Locator
from aesp_proxy.decide.secrets.registered import Entry, Hasher, entry
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.scanner import SecretScanner
from benchmarks import harness
from benchmarks.harness import Budget, Figures, Measure, Result

KEY = b"a key for the benchmark of registered values"
COUNTS = (0, 1_000, 10_000)
CHUNK_BYTES = 64 * 1024
_LETTERS = string.ascii_letters + string.digits


def values(count: int, *, passwords: int = 0, seed: int = 20_261_122) -> list[bytes]:
    """Return tokens and hex keys of usual lengths, and some passwords of 13 characters."""
    chance = random.Random(seed)
    made = [f"{''.join(chance.choices(_LETTERS, k=11))}7!".encode() for _ in range(passwords)]
    while len(made) < count:
        size = chance.choice((0, 32, 40, 64))
        drawn = "".join(chance.choices(_LETTERS, k=size)) if size else chance.randbytes(16).hex()
        made.append(drawn.encode())
    return made


def entries(given: Sequence[bytes]) -> list[Entry]:
    """Return what is kept of values."""
    hasher = Hasher(KEY)
    return [
        entry(f"VALUE_{number}", "benchmark", value, hasher=hasher, fingerprint_key=KEY)
        for number, value in enumerate(given)
    ]


def _index_of(given: Sequence[Entry]) -> ExactIndex:
    made = ExactIndex(KEY)
    made.add(given)
    return made


def measures(
    rules: Sequence[Rule],
    locator: Locator,
    data: bytes,
    head: Callable[[SecretScanner], object],
    rate: Callable[[SecretScanner, bytes, int], Figures],
) -> dict[str, Measure]:
    """Return the variants: a stream and a head for each number of values, and one more value."""
    # Hashing takes a millisecond a value: the fewer are the first of the many.
    every = entries(values(max(COUNTS)))
    passwords = entries(values(50, passwords=50))
    indices = {str(count): _index_of(every[:count]) if count else None for count in COUNTS}
    indices["1,000 and 50 passwords"] = _index_of([*passwords, *every[:950]])
    made: dict[str, Measure] = {}
    for name, one in indices.items():
        scanner = SecretScanner(rules, KEY, locator, one)
        made[f"stream, {name} registered"] = lambda s=scanner: rate(s, data, CHUNK_BYTES)
        made[f"head, {name} registered"] = lambda s=scanner: _micros(lambda: head(s), 3_000)
    large = indices[str(COUNTS[-1])]
    chance, hasher = random.Random(4), Hasher(KEY)

    def register() -> None:
        if large is not None:
            value = "".join(chance.choices(_LETTERS, k=40)).encode()
            large.add([entry("MORE", "b", value, hasher=hasher, fingerprint_key=KEY)])

    made["one more registered"] = lambda: _micros(register, 50)
    return made


def best_of(samples: Sequence[Figures]) -> Figures:
    """Return the highest rate and the lowest cost: other load can only worsen them."""
    return {
        key: (max if key == "mb_s" else min)(sample[key] for sample in samples)
        for key in samples[0]
    }


def judge(result: Result) -> None:
    """Add the ratios and budgets."""
    figures = result.figures
    for name in ("1000", "10000", "1,000 and 50 passwords"):
        value = harness.ratio(figures, "mb_s", f"stream, {name} registered", "stream, 0 registered")
        if value is not None:
            result.ratios[f"rate with {name} registered"] = value
    micros = figures["one more registered"]["us"]
    result.budgets += [
        Budget(
            name="rate with 10,000 registered values to none",
            value=result.ratios.get("rate with 10000 registered"),
            limit=0.95,
            at_least=True,
        ),
        Budget(name="registering one value more, us", value=micros, limit=1_000),
    ]


def _micros(call: Callable[[], object], count: int) -> Figures:
    began = time.process_time()
    for _ in range(count):
        call()
    return {"us": (time.process_time() - began) / count * 1e6}
