"""Leaks as SARIF 2.1.0, for code scanning.

Source: OASIS, Static Analysis Results Interchange Format 2.1.0.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from aesp_proxy.cli.sarif import sarif_log
from aesp_proxy.cli.scan.leak import Leak
from aesp_proxy.decide.secrets.rule import TOO_MANY, Rule
from aesp_proxy.model.decision import Severity

_LEVELS: Final = {
    Severity.INFO: "note",
    Severity.WARNING: "warning",
    Severity.ERROR: "error",
    Severity.CRITICAL: "error",
}
_SCORES: Final = {
    Severity.INFO: "2.0",
    Severity.WARNING: "5.0",
    Severity.ERROR: "8.0",
    Severity.CRITICAL: "9.5",
}
"""``security-severity`` of GitHub's code scanning: low, medium, high, critical."""


def as_sarif(
    leaks: Sequence[Leak], rules: Sequence[Rule], unread: Sequence[tuple[str, str]]
) -> str:
    """Return the leaks as a SARIF log of one run; ``unread`` are files and why."""
    ids = [*(rule.id for rule in rules), TOO_MANY]
    index = {name: number for number, name in enumerate(ids)}
    return sarif_log(
        rules=list(_rules(rules)),
        results=[_result(leak, index[leak.rule]) for leak in leaks],
        notifications=[
            {
                "level": "error",
                "message": {"text": f"{file}: {reason}"},
                "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(file)}}}],
            }
            for file, reason in unread
        ],
    )


def _rules(rules: Sequence[Rule]) -> Iterator[dict[str, object]]:
    for rule in rules:
        yield _rule(rule.id, rule.description, rule.severity, rule.issuer)
    yield _rule(TOO_MANY, "Too much in one place to look at", Severity.CRITICAL, "")


def _rule(name: str, description: str, severity: Severity, issuer: str) -> dict[str, object]:
    told: dict[str, object] = {
        "id": name,
        "name": "".join(word.capitalize() for word in name.split("-")),
        "shortDescription": {"text": description},
        "defaultConfiguration": {"level": _LEVELS[severity]},
        "properties": {
            "tags": ["security", "secret"],
            "security-severity": _SCORES[severity],
        },
    }
    if issuer.startswith("https://"):
        told["helpUri"] = issuer
    return told


def _result(leak: Leak, index: int) -> dict[str, object]:
    source = leak.source
    text = f"{leak.rule}: {leak.masked or 'too much to tell'}"
    if leak.via:
        text += f", in {leak.via}"
    if source.commit:
        text += f" (commit {source.commit}, {source.date})"
    result: dict[str, object] = {
        "ruleId": leak.rule,
        "ruleIndex": index,
        "level": _LEVELS[leak.severity],
        "message": {"text": text},
        "locations": [{
            "physicalLocation": {
                "artifactLocation": {"uri": _uri(source.file)},
                "region": {
                    "startLine": leak.start_line,
                    "startColumn": leak.chars[0],
                    "endLine": leak.end_line,
                    "endColumn": leak.chars[1],
                },
            },
        }],
        "partialFingerprints": {"gitleaksFingerprint/v1": leak.fingerprint},
    }  # fmt: skip
    if source.commit:
        result["properties"] = {
            "commit": source.commit, "author": source.author, "date": source.date,
        }  # fmt: skip
    return result


def _uri(file: str) -> str:
    """Return a relative reference: of what lies outside the working folder, by way of ``..``."""
    return quote(os.path.relpath(file) if Path(file).is_absolute() else file)
