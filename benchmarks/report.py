"""The report of a run of all benchmarks: Markdown, and a plot where matplotlib is there.

It repeats what the benchmarks say and adds nothing: budgets first, met or
missed, then the figures of every benchmark beside its peers.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PLOT_BUDGETS_MAX = 40
HOW = (
    "Variants of one figure were measured in one run, interleaved in random order, and the "
    "median of the rounds stands here. Ratios travel between machines; absolute figures do "
    "not, least of all where client, origin and proxy share the cores."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One benchmark in the report: its JSON object, or why there is none."""

    name: str
    result: Mapping[str, object] | None
    reason: str = ""

    def rows(self, key: str) -> list[Mapping[str, object]]:
        """Return a list of the result, empty when there is none."""
        value = (self.result or {}).get(key)
        return list(value) if isinstance(value, list) else []

    def mapping(self, key: str) -> Mapping[str, object]:
        """Return a mapping of the result, empty when there is none."""
        value = (self.result or {}).get(key)
        return value if isinstance(value, Mapping) else {}


def write(folder: Path, parts: Sequence[Part], facts: Mapping[str, object]) -> Path:
    """Write ``report.md`` and, where it can be drawn, ``report.png``; return the former."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["# Benchmark report", "", *_machine(facts), ""]
    lines += [_draw(folder / "report.png", parts), "", "## Budgets", "", *_budgets(parts), ""]
    for part in parts:
        lines += [f"## {part.name}", "", *_part(part), ""]
    path = folder / "report.md"
    path.write_text("\n".join(lines))
    return path


def _machine(facts: Mapping[str, object]) -> list[str]:
    listed = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items())
    return [f"Machine: {listed}.", "", HOW]


def _budgets(parts: Sequence[Part]) -> Iterator[str]:
    yield "| benchmark | budget | value | limit | |"
    yield "|---|---|---|---|---|"
    for part in parts:
        if part.result is None:
            yield f"| {part.name} | | | | {part.reason} |"
        for row in part.rows("budgets"):
            word = "met" if row.get("ok") else "**missed**"
            limit = f"{row.get('sense', '')} {row.get('limit')}".strip()
            yield f"| {part.name} | {row.get('name')} | {_value(row)} | {limit} | {word} |"


def _value(row: Mapping[str, object]) -> str:
    value = row.get("value")
    return "not measured" if value is None else str(value)


def _part(part: Part) -> Iterator[str]:
    if part.result is None:
        yield part.reason
        return
    yield from _table(part.mapping("figures"))
    ratios = list(_flat("", part.mapping("ratios")))
    if ratios:
        yield from ("", "Ratios:", "")
        yield from (f"- {name}: {value}" for name, value in ratios)
    notes = [str(note) for note in part.rows("notes")]
    if notes:
        yield ""
        yield from (f"- Note: {' '.join(note.split())}" for note in notes)


def _table(figures: Mapping[str, object]) -> Iterator[str]:
    """Variants as columns where every figure is one of a variant, else a list."""
    columns = {
        name: dict(_flat("", value))
        for name, value in figures.items()
        if isinstance(value, Mapping)
    }
    plain = {name: value for name, value in figures.items() if not isinstance(value, Mapping)}
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    if columns:
        yield "| | " + " | ".join(columns) + " |"
        yield "|---" * (len(columns) + 1) + "|"
        for name in names:
            cells = (str(column.get(name, "")) for column in columns.values())
            yield f"| {name} | " + " | ".join(cells) + " |"
    if plain:
        yield ""
        yield from (f"- {name}: {value}" for name, value in plain.items())


def _flat(prefix: str, value: object) -> Iterator[tuple[str, object]]:
    if not isinstance(value, Mapping):
        yield prefix, value
        return
    for key, item in value.items():
        yield from _flat(f"{prefix}.{key}" if prefix else str(key), item)


def _draw(path: Path, parts: Sequence[Part]) -> str:
    """Draw the budgets and the cost of a request; return the line that shows the picture."""
    rows = [
        (f"{part.name}: {row['name']}", share, bool(row.get("ok")))
        for part in parts
        for row in part.rows("budgets")
        if (share := _share(row)) is not None
    ][:PLOT_BUDGETS_MAX]
    if not rows:
        return "There is no plot: no budget was measured."
    try:
        importlib.import_module("matplotlib").use("Agg")
        plt = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        return "There is no plot: matplotlib (dependency group `bench`) is not installed."
    costs = _request_costs(parts)
    heights = [1 + 0.3 * len(rows), *([1 + 0.3 * len(costs)] if costs else [])]
    figure, panels = plt.subplots(
        len(heights),
        figsize=(9, sum(heights)),
        height_ratios=heights,
        layout="constrained",
        squeeze=False,
    )
    _draw_budgets(panels[0][0], rows)
    if costs:
        _draw_costs(panels[1][0], costs)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return f"![Every budget as a part of its limit, and the cost of a request]({path.name})"


def _draw_budgets(axes: Any, rows: Sequence[tuple[str, float, bool]]) -> None:  # noqa: ANN401 -- matplotlib's
    labels, shares, met = zip(*reversed(rows), strict=True)
    axes.barh(labels, shares, color=["#2a9d8f" if ok else "#d1495b" for ok in met])
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.tick_params(axis="x", which="minor", labelbottom=False)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel("part of the budget used (left of 1 is within it)")
    axes.tick_params(axis="y", labelsize=8)


def _draw_costs(axes: Any, costs: Mapping[str, float]) -> None:  # noqa: ANN401 -- matplotlib's
    bars = axes.barh(list(costs), list(costs.values()), color="#457b9d")
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.margins(x=0.1)
    axes.set_xlabel("egress: CPU of the proxy a request, µs (keep-alive, 16 connections, 1 KiB)")
    axes.tick_params(axis="y", labelsize=8)


def _request_costs(parts: Sequence[Part]) -> dict[str, float]:
    return {
        variant: float(value)
        for part in parts
        for variant, figures in part.mapping("figures").items()
        if isinstance(figures, Mapping)
        and isinstance(value := figures.get("cpu_us_per_request_c16"), int | float)
    }


def _share(row: Mapping[str, object]) -> float | None:
    """Return value over limit, turned round where more is better."""
    value, limit = row.get("value"), row.get("limit")
    if not isinstance(value, int | float) or not isinstance(limit, int | float):
        return None
    if value <= 0 or limit <= 0:
        return None
    more_is_better = row.get("sense") == ">=" or (bool(row.get("ok")) == (value > limit))
    return limit / value if more_is_better else value / limit
