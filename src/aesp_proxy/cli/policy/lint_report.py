"""What ``policy lint`` tells: for people, as JSON, and as SARIF 2.1.0 for code scanning.

Source of the last: OASIS, Static Analysis Results Interchange Format 2.1.0.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final
from urllib.parse import quote

from aesp_proxy.cli.sarif import sarif_log
from aesp_proxy.decide.policy.lint.checks import CHECKS
from aesp_proxy.decide.policy.lint.finding import FindingLevel, LintFinding, Related, split_place

_BUILT_IN: Final = "built-in:"


def readable(findings: Sequence[LintFinding]) -> Iterator[str]:
    """Yield lines: a file, its findings, and at the end how many of each kind there are."""
    for file, group in groupby(findings, key=lambda each: each.place[0]):
        yield file
        for finding in group:
            _, line, column = finding.place
            yield f"  {line}:{column}  {finding.level.value}  {finding.message}  [{finding.check}]"
            for related in finding.related:
                yield f"      {related.source}: {related.text}"
            if finding.witness is not None:
                yield from (f"      {row}" for row in witness_lines(finding.witness))
        yield ""
    yield _summary(findings)


def _summary(findings: Sequence[LintFinding]) -> str:
    counts = Counter(finding.level for finding in findings)
    if not counts:
        return "nothing found"
    told = [
        f"{counts[level]} {level.value}{'' if counts[level] == 1 else 's'}"
        for level in reversed(FindingLevel)
        if counts[level]
    ]
    return ", ".join(told)


def witness_lines(facts: Mapping[str, object]) -> Iterator[str]:
    """Yield facts as a case of a suite states them: YAML, a root a line, in flow form."""
    for name, value in facts.items():
        yield f"{name}: {_flow(value)}"


def _flow(value: object) -> str:
    match value:
        case Mapping():
            return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(_flow, value)) + "]"
        case _:
            return json.dumps(value)


def as_json(findings: Sequence[LintFinding]) -> str:
    """Return the findings as one JSON object."""
    counts = Counter(finding.level.value for finding in findings)
    told = {
        "findings": [_json_finding(each) for each in findings],
        "counts": {level.value: counts[level.value] for level in FindingLevel},
    }
    return json.dumps(told, indent=2)


def _json_finding(finding: LintFinding) -> dict[str, object]:
    file, line, column = finding.place
    return {
        "check": finding.check,
        "level": finding.level.value,
        "message": finding.message,
        "file": file,
        "line": line,
        "column": column,
        "related": [{"source": each.source, "text": each.text} for each in finding.related],
        "witness": finding.witness,
    }


def as_sarif(findings: Sequence[LintFinding], *, loads: bool = True) -> str:
    """Return the findings as a SARIF log of one run."""
    ids = list(CHECKS)
    return sarif_log(
        rules=list(_sarif_rules()),
        results=[_result(each, ids) for each in findings],
        successful=loads,
    )


def _sarif_rules() -> Iterator[dict[str, object]]:
    for check in CHECKS.values():
        name = "".join(word.capitalize() for word in check.check_id.split("-"))
        yield {
            "id": check.check_id,
            "name": name,
            "shortDescription": {"text": check.title},
            "fullDescription": {"text": f"{check.title} {check.help}"},
            "help": {"text": check.help},
            "defaultConfiguration": {"level": check.level.value},
        }


def _result(finding: LintFinding, ids: Sequence[str]) -> dict[str, object]:
    text = finding.message
    if finding.witness is not None:
        text += "\n\n" + "\n".join(witness_lines(finding.witness))
    result: dict[str, object] = {
        "ruleId": finding.check,
        "ruleIndex": ids.index(finding.check),
        "level": finding.level.value,
        "message": {"text": text},
        "locations": [_location(finding.source)],
    }
    if finding.related:
        result["relatedLocations"] = [
            _related(number, each) for number, each in enumerate(finding.related)
        ]
    return result


def _related(number: int, related: Related) -> dict[str, object]:
    return {"id": number, "message": {"text": related.text}, **_location(related.source)}


def _location(source: str) -> dict[str, object]:
    file, line, column = split_place(source)
    region = {"startLine": line, "startColumn": column}
    return {"physicalLocation": {"artifactLocation": {"uri": _uri(file)}, "region": region}}


def _uri(file: str) -> str:
    """Return a relative reference: of what lies outside the working folder, by way of ``..``."""
    if file.startswith(_BUILT_IN):
        return quote(file.removeprefix(_BUILT_IN))
    return quote(Path(os.path.relpath(file)).as_posix())
