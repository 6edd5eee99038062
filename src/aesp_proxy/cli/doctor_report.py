"""What ``doctor`` tells: for people, grouped, with colours on a terminal only; and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from aesp_proxy.cli.output import printable
from aesp_proxy.launch.attack.judge import Outcome, Told
from aesp_proxy.launch.probe.finding import Finding, Level, worst

_COLOURS: Final = {
    Level.OK: "32", Level.WEAKER: "33", Level.MISSING: "31", Level.UNUSED: "2",
    Outcome.STOPPED: "32", Outcome.PASSED: "32",
    Outcome.GOT_OUT: "31", Outcome.NOT_TRIED: "33",
}  # fmt: skip


def _mark(word: Level | Outcome, width: int, *, colours: bool) -> str:
    text = f"{word:<{width}}"
    return f"\x1b[{_COLOURS[word]}m{text}\x1b[0m" if colours else text


def readable(findings: Sequence[Finding], *, colours: bool) -> Iterator[str]:
    """Yield lines: a group, its findings, what each means and how to get what is not there."""
    told: dict[str, str] = {}
    for group, members in groupby(findings, key=lambda finding: finding.group):
        yield str(group)
        for each in members:
            mark = _mark(each.level, 8, colours=colours)
            yield f"  {mark}{printable(f'{each.name}: {each.found}')}"
            if each.level is not Level.UNUSED:
                yield f"          {printable(each.meaning)}"
            if each.remedy:
                # One cause, such as a container, takes many layers: it is told once.
                first = told.setdefault(each.remedy, each.name)
                how = each.remedy if first == each.name else f"as for {first}"
                yield f"          to get it: {printable(how)}"
        yield ""
    counts = Counter(each.level for each in findings)
    yield ", ".join(f"{counts[level]} {level}" for level in (Level.OK, Level.WEAKER, Level.MISSING))


def as_json(findings: Sequence[Finding]) -> str:
    """Return the findings as one JSON object."""
    told = {
        "result": worst(findings).value,
        "findings": [
            {
                "group": each.group.value,
                "name": each.name,
                "level": each.level.value,
                "found": each.found,
                "meaning": each.meaning,
                "remedy": each.remedy,
            }
            for each in findings
        ],
    }
    return json.dumps(told, indent=2)


def readable_attacks(told: Sequence[Told], *, colours: bool) -> Iterator[str]:
    """Yield lines: an attack, its techniques and how each ended, and the counts."""
    for (row, name), members in groupby(told, key=lambda each: (each.attack.row, each.attack.name)):
        yield f"{row:>2}  {name}"
        for each in members:
            mark = _mark(each.outcome, 22, colours=colours)
            yield f"    {mark}{each.attack.technique}"
            if each.detail:
                yield f"    {'':22}{printable(each.detail)}"
    counts = Counter(each.outcome for each in told)
    yield ""
    yield ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome)


def attacks_as_json(told: Sequence[Told]) -> str:
    """Return the attacks as one JSON object."""
    counts = Counter(each.outcome for each in told)
    document = {
        "counts": {outcome.value: counts[outcome] for outcome in Outcome},
        "attacks": [
            {
                "id": each.attack.id,
                "row": each.attack.row,
                "attack": each.attack.name,
                "technique": each.attack.technique,
                "outcome": each.outcome.value,
                "detail": each.detail,
            }
            for each in told
        ],
    }
    return json.dumps(document, indent=2)
