"""What every benchmark here shares: results, budgets, fair rounds, and how they are shown.

Rules it keeps: variants of one figure are measured in the same run, in a new
random order every round, and the median of the rounds is the figure; the seed of
the order is part of the result; a peer that is not there is named with the
reason, never left out in silence.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

type Figures = dict[str, float]


class BenchError(Exception):
    """A measurement that did not come off; the message says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A limit of ``design.md`` and what was measured.

    ``at_least`` turns the sense round; ``value`` is None when it could not be
    measured, which meets no budget.
    """

    name: str
    value: float | None
    limit: float
    at_least: bool = False

    @property
    def ok(self) -> bool:
        """Whether the budget is met."""
        if self.value is None:
            return False
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def as_json(self) -> dict[str, object]:
        """Return the row as it stands in the JSON object."""
        return {
            "name": self.name,
            "value": self.value,
            "limit": self.limit,
            "sense": ">=" if self.at_least else "<=",
            "ok": self.ok,
        }


@dataclass(slots=True, kw_only=True)
class Result:
    """What one benchmark says. ``figures`` is variant -> figure -> value, units in the names."""

    name: str
    figures: dict[str, Figures] = field(default_factory=dict)
    ratios: Figures = field(default_factory=dict)
    budgets: list[Budget] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    run: dict[str, object] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """Return the one JSON object of the benchmark."""
        return {
            "name": self.name,
            "figures": rounded(self.figures),
            "ratios": rounded(self.ratios),
            "budgets": [rounded(budget.as_json()) for budget in self.budgets],
            "notes": self.notes,
            "run": self.run,
        }


class Measure(Protocol):
    """One measurement of one variant: figure name to value."""

    def __call__(self) -> Figures:
        """Measure once."""
        ...


def rounds_of(
    variants: Mapping[str, Measure],
    *,
    rounds: int,
    order: random.Random,
    progress: Callable[[str], None] = lambda _: None,
    summary: Callable[[Sequence[Figures]], Figures] | None = None,
) -> dict[str, Figures]:
    """Measure every variant ``rounds`` times, interleaved in random order.

    Return the median of each figure, or what ``summary`` makes of the rounds.
    """
    samples: dict[str, list[Figures]] = {name: [] for name in variants}
    for number in range(1, rounds + 1):
        names = list(variants)
        order.shuffle(names)
        for name in names:
            progress(f"{name}, round {number} of {rounds}")
            samples[name].append(variants[name]())
    return {name: (summary or median_of)(taken) for name, taken in samples.items()}


def median_of(samples: Sequence[Figures]) -> Figures:
    """Return the median of each figure over the rounds that have it."""
    return _each(statistics.median, samples)


def least_of(samples: Sequence[Figures]) -> Figures:
    """Return the least of each figure: for times on which other load can only add."""
    return _each(min, samples)


def _each(make: Callable[[list[float]], float], samples: Sequence[Figures]) -> Figures:
    names = dict.fromkeys(name for sample in samples for name in sample)
    return {name: make([sample[name] for sample in samples if name in sample]) for name in names}


def quantile(values: Sequence[float], part: float) -> float:
    """Return the value below which ``part`` (0..1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def ratio(figures: Mapping[str, Figures], figure: str, ours: str, peer: str) -> float | None:
    """Return ours divided by the peer's, None where either was not measured."""
    mine = figures.get(ours, {}).get(figure)
    theirs = figures.get(peer, {}).get(figure)
    return mine / theirs if mine is not None and theirs else None


def rounded(value: object) -> object:
    """Return the value with every float at four significant digits, for reading."""
    match value:
        case float():
            return float(f"{value:.4g}")
        case dict():
            return {key: rounded(item) for key, item in value.items()}
        case list() | tuple():
            return [rounded(item) for item in value]
        case _:
            return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a benchmark was asked to run. ``seconds`` is the time of one measurement."""

    json: bool
    quick: bool
    rounds: int
    seconds: float
    seed: int
    install: bool


def options(
    name: str, *, rounds: int, seconds: float, arguments: Sequence[str], epilog: str = ""
) -> Options:
    """Read the command line that all benchmarks share; ``epilog`` ends its help."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", epilog=epilog)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--rounds", type=int, help=f"rounds a figure ({rounds})")
    parser.add_argument("--seconds", type=float, help=f"seconds a measurement ({seconds})")
    parser.add_argument("--seed", type=int, default=1, help="seed of the order of variants (1)")
    parser.add_argument(
        "--no-install",
        action="store_true",
        help="do not fetch peers that are missing (they go to .cache/, nothing is installed)",
    )
    given = parser.parse_args(arguments)
    return Options(
        json=given.json,
        quick=given.quick,
        rounds=given.rounds or (1 if given.quick else rounds),
        seconds=given.seconds or (min(seconds, 1.0) if given.quick else seconds),
        seed=given.seed,
        install=not given.no_install,
    )


def show(result: Result, *, as_json: bool) -> int:
    """Print the result and return the exit code: 1 when a budget is missed."""
    if as_json:
        sys.stdout.write(json.dumps(result.as_json()) + "\n")
    else:
        sys.stdout.write("\n".join(as_text(result.as_json())) + "\n")
    return 0 if all(budget.ok for budget in result.budgets) else 1


def as_text(result: Mapping[str, object]) -> list[str]:
    """Return a result (as JSON) as lines of plain text."""
    lines = [f"== {result['name']} =="]
    lines += _pairs("", result.get("figures") or {})
    lines += ["ratios:", *_pairs("  ", result.get("ratios") or {})]
    for budget in result.get("budgets") or []:  # type: ignore[attr-defined]
        lines.append("  " + budget_line(budget))
    lines += [f"note: {note}" for note in result.get("notes") or []]  # type: ignore[attr-defined]
    return lines


def budget_line(budget: Mapping[str, object]) -> str:
    """Return one budget as a line: met or missed, name, value, limit."""
    word = "met   " if budget.get("ok") else "MISSED"
    sense = budget.get("sense", "<=")
    value = "not measured" if budget.get("value") is None else budget["value"]
    return f"{word} {budget.get('name')}: {value} ({sense} {budget.get('limit')})"


def _pairs(indent: str, value: object) -> list[str]:
    if not isinstance(value, Mapping):
        return [f"{indent}{value}"]
    lines = []
    for key, item in value.items():
        if isinstance(item, Mapping):
            lines += [f"{indent}{key}:", *_pairs(indent + "  ", item)]
        else:
            lines.append(f"{indent}{key:<44} {item}")
    return lines
