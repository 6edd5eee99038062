"""What CEL rules cost: the whole decision with 1 to 10,000 of them, beside other engines.

Ours is ``decide``: facts taken out of the event, guards, rules, the answer with reason and
line. The secret scan is off; it has a benchmark of its own. The peers tell only which rules
match. All must name the same rules before they are timed.

Times of a call are wall time; a batch of calls in which the kernel took the thread off its
core is dropped, because it measures the neighbours. Ratios are of CPU time a call.
"""

from __future__ import annotations

import gc
import random
import resource
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice

from aesp_proxy.decide.engine import decide
from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.decide.snapshot import Snapshot, build_snapshot
from benchmarks.harness import (
    Budget,
    Figures,
    Options,
    Result,
    options,
    quantile,
    ratio,
    rounds_of,
    show,
)
from benchmarks.rule_peers import ENGINES, Engine
from benchmarks.rule_set import Asked, events_of, policy_text, rules_of

SIZES = (1, 10, 100, 1_000, 10_000)
PEER_RULES_MAX = {"cel_python": 1_000, "cel_expr_python": 10_000, "cedarpy": 10_000}
QUICK_PEER_RULES_MAX = 1_000
COLD_RULES = 1_000
EVENTS = 400
_CALLS_MIN = 2
_BATCH_CALLS = 16
_LONG_CALL_NS = 1_000_000


def load(size: int, seed: int) -> tuple[Snapshot, float]:
    """Load a policy with ``size`` rules from text; the snapshot and the CPU seconds it took."""
    text = policy_text(rules_of(size, seed))
    start = time.process_time()
    policy = load_policy(text, "bench.yaml")
    snapshot = build_snapshot(policy, (), fingerprint_key=b"k" * 32, serial=1)
    return snapshot, time.process_time() - start


def ours(snapshot: Snapshot) -> Callable[[Asked], object]:
    """Return the whole decision as a call of one argument."""

    def ask(asked: Asked) -> object:
        event, context = asked
        return decide(event, snapshot, context)

    return ask


def timed(call: Callable[[Asked], object], events: Sequence[Asked], seconds: float) -> Figures:
    """Call over and over for a while; microseconds of a call: p50 and p99 wall, mean CPU."""
    clock, used, asked = time.perf_counter_ns, resource.getrusage, cycle(events)
    call(next(asked))
    start = clock()
    call(next(asked))
    batch = 1 if clock() - start > _LONG_CALL_NS else _BATCH_CALLS
    kept: list[int] = []
    calls, end, cpu = 0, clock() + int(seconds * 1e9), time.thread_time_ns()
    while clock() < end or calls < _CALLS_MIN:
        taken: list[int] = []
        preempted = used(resource.RUSAGE_THREAD).ru_nivcsw
        for each in islice(asked, batch):
            start = clock()
            call(each)
            taken.append(clock() - start)
        calls += batch
        if used(resource.RUSAGE_THREAD).ru_nivcsw == preempted:
            kept += taken
    cpu_us = (time.thread_time_ns() - cpu) / calls / 1e3
    if not kept:  # a call longer than a turn on the core is never undisturbed
        return {"cpu_us": cpu_us}
    return {
        "p50_us": quantile(kept, 0.5) / 1e3,
        "p99_us": quantile(kept, 0.99) / 1e3,
        "cpu_us": cpu_us,
    }


def variants_of(
    size: int, snapshot: Snapshot, asked: Options, result: Result
) -> dict[str, Callable[[], Figures]]:
    """Return ours and the engines for one size; they must agree before they are timed."""
    events = events_of(EVENTS, asked.seed)
    variants = {"ours": partial(timed, ours(snapshot), events, asked.seconds)}
    for name, make in ENGINES.items():
        limit = PEER_RULES_MAX[name]
        if size > (min(limit, QUICK_PEER_RULES_MAX) if asked.quick else limit):
            continue
        rules = rules_of(size, asked.seed)
        start = time.process_time()
        engine = make(rules)
        taken = time.process_time() - start
        if engine is None:
            note = f"{name}: not installed (uv sync --group bench)"
            result.notes += [note] if note not in result.notes else []
            continue
        result.figures.setdefault(name, {})[f"rules_{size}_load_ms"] = taken * 1e3
        agree(name, engine, snapshot, events[: 2 if size >= COLD_RULES else 20])
        variants[name] = partial(timed, engine, events, asked.seconds)
    return variants


def agree(name: str, engine: Engine, snapshot: Snapshot, events: Sequence[Asked]) -> None:
    """Raise ``RuntimeError`` where an engine names other rules than ours does."""
    for event, context in events:
        expected = decide(event, snapshot, context)
        if expected.rule_errors or engine((event, context)) != frozenset(expected.rules):
            message = f"{name} and ours disagree about {event.method} {event.host}{event.path}"
            raise RuntimeError(message)


def measure(asked: Options) -> Result:
    """Run everything and weigh it against the budgets."""
    result = Result(name="policy", run={"rounds": asked.rounds, "seed": asked.seed})
    order = random.Random(asked.seed)
    # First of all, so that the grammar is read within it.
    _, cold = load(COLD_RULES, asked.seed)
    for size in SIZES:
        snapshot, taken = load(size, asked.seed)
        variants = variants_of(size, snapshot, asked, result)
        gc.collect()
        gc.freeze()  # as the proxy does when it has loaded
        rows = rounds_of(variants, rounds=asked.rounds, order=order)
        gc.unfreeze()
        rows["ours"]["load_ms"] = taken * 1e3
        for name, figures in rows.items():
            row = result.figures.setdefault(name, {})
            row |= {f"rules_{size}_{figure}": value for figure, value in figures.items()}
            value = ratio(rows, "cpu_us", name, "ours")
            if name != "ours" and value is not None:
                result.ratios[f"rules_{size}_{name}_to_ours_cpu"] = value
    result.figures["ours"][f"rules_{COLD_RULES}_load_cold_ms"] = cold * 1e3
    result.budgets = budgets(result)
    result.notes += [
        "cel-python and cel-expr-python evaluate every rule; Cedar says which policies decide",
        f"cel-python: at most {PEER_RULES_MAX['cel_python']:,} rules; the time does not allow more",
        "records replayed a minute: benchmarks.replay",
    ]
    return result


def budgets(result: Result) -> list[Budget]:
    """Weigh the figures; the absolute ones are for a machine that does nothing else."""
    figures, ratios = result.figures["ours"], result.ratios
    rows = [
        ("decide p50, 1,000 rules (us)", figures.get("rules_1000_p50_us"), 15.0),
        ("decide p99, 1,000 rules (us)", figures.get("rules_1000_p99_us"), 50.0),
        ("decide p99, 10,000 rules (us)", figures.get("rules_10000_p99_us"), 250.0),
        ("load of 1,000 rules, cold (ms)", figures.get("rules_1000_load_cold_ms"), 1_000.0),
    ]
    peers = (("cel-python", "cel_python", 100.0), ("cel-expr-python", "cel_expr_python", 5.0))
    made = [Budget(name=name, value=value, limit=limit) for name, value, limit in rows]
    for told, name, limit in peers:
        value = ratios.get(f"rules_1000_{name}_to_ours_cpu")
        made.append(Budget(name=f"{told} to ours, 1,000 rules", value=value, limit=limit,
                           at_least=True))  # fmt: skip
    return made


def main(arguments: Sequence[str]) -> int:
    """Measure and show; return the exit code."""
    asked = options("policy", rounds=3, seconds=0.5, arguments=arguments)
    return show(measure(asked), as_json=asked.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
