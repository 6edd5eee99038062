"""What 100, 1,000 and 10,000 registered values cost a scan: in the benchmark of scans, and alone.

Alone (``python -m benchmarks.registered``) every 256 KiB of chats go to a scanner drawn anew, all
of one set of databases; of each of these slices the least time of each scanner counts.
"""

from __future__ import annotations

import random
import string
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from aesp_proxy.decide.secrets.body import StreamPolicy
from aesp_proxy.decide.secrets.compiled import MARKS
from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.decide.secrets.hyperscan import Locator, compile_locator
from aesp_proxy.decide.secrets.registered import Entry, Hasher, entry
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.decide.secrets.views.forms import gates_of_rules
from aesp_proxy.model.decision import Severity
from benchmarks import harness
from benchmarks.harness import Budget, Figures, Measure, Result
from benchmarks.traffic import Traffic

KEY = b"a key for the benchmark of registered values"
COUNTS = (0, 100, 1_000, 10_000)
SLICE_BYTES = 256 * 1024
SLICES = 16
ROUNDS = 60
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


def _indices() -> dict[str, ExactIndex | None]:
    every = entries(values(max(COUNTS)))
    passwords = entries(values(50, passwords=50))
    made = {str(count): _index_of(every[:count]) if count else None for count in COUNTS}
    return made | {"1,000 and 50 passwords": _index_of([*passwords, *every[:950]])}


def measures(
    rules: Sequence[Rule],
    locator: Locator,
    data: bytes,
    head: Callable[[SecretScanner], object],
    rate: Callable[[SecretScanner, bytes, int], Figures],
) -> dict[str, Measure]:
    """Return the variants: a stream and a head for each number of values, and one more value."""
    indices = _indices()
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
    for name in ("100", "1000", "10000", "1,000 and 50 passwords"):
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


def least(scanners: dict[str, SecretScanner], data: bytes) -> dict[str, float]:
    """Return the seconds that each scanner takes for ``data``, the least of each slice."""
    slices = [data[at : at + SLICE_BYTES] for at in range(0, len(data), SLICE_BYTES)]
    took = {name: [float("inf")] * len(slices) for name in scanners}
    policy = StreamPolicy(threshold=Severity.CRITICAL)
    with ExitStack() as stack:
        opened = {
            name: stack.enter_context(one.stream("body", policy=policy))
            for name, one in scanners.items()
        }
        for turn in range(ROUNDS):
            for number, some in enumerate(slices):
                # Each of them once in as many turns, in another order in every slice.
                order = sorted(opened)
                random.Random(number + turn // len(order) * len(slices)).shuffle(order)
                name = order[turn % len(order)]
                pieces = [some[at : at + CHUNK_BYTES] for at in range(0, len(some), CHUNK_BYTES)]
                began = time.process_time()
                for piece in pieces:
                    opened[name].feed(piece)
                took[name][number] = min(took[name][number], time.process_time() - began)
        if any(one.stopped for one in opened.values()):
            raise harness.BenchError("honest traffic was stopped")
    return {name: sum(each) for name, each in took.items()}


def main() -> int:
    """Print the ratio of the rates with values registered to that without; 1 if one is missed."""
    from benchmarks.scan import pack

    rules = pack()
    locator = compile_locator([rule.expression for rule in rules], gates_of_rules(rules))
    data = Traffic(20_261_121).chat(SLICES * SLICE_BYTES)[: SLICES * SLICE_BYTES]
    scanners = {name: SecretScanner(rules, KEY, locator, one) for name, one in _indices().items()}
    took = least(scanners, data)
    print(f"the search is {'numpy' if MARKS is None else 'compiled'}; chat JSON, 64 KiB pieces")
    for name, seconds in took.items():
        ratio = took["0"] / seconds
        print(f"{name:>24} registered: {len(data) / seconds / 1e6:6.0f} MB/s, {ratio:.2f} of none")
    return int(any(took["0"] / took[str(count)] < 0.95 for count in (1_000, 10_000)))


def _micros(call: Callable[[], object], count: int) -> Figures:
    began = time.process_time()
    for _ in range(count):
        call()
    return {"us": (time.process_time() - began) / count * 1e6}


if __name__ == "__main__":
    sys.exit(main())
