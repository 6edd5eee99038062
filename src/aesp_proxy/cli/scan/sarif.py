"""Leaks as SARIF 2.1.0, for code scanning.

Rules:

- What GitHub's code scanning demands beside the standard is there: texts of every rule, of
  at most 1,024 characters, and at most 20 tags.
- No hash of a line: it would be one of the secret, which anybody could try values against.
  What uploads a report has the files, and adds the hash by which alerts are told apart.

Sources: OASIS, Static Analysis Results Interchange Format 2.1.0; GitHub, "SARIF support for
code scanning".
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

_TEXT_CHARS_MAX: Final = 1_024
_TAGS: Final = ("security", "secret")
_TAGS_MAX: Final = 20
_HELP: Final = (
    "Take the secret back where it was issued and give out a new one: what was written to a file"
    " or a commit may have been copied. Then take it out of the file."
)


def as_sarif(
    leaks: Sequence[Leak], rules: Sequence[Rule], unread: Sequence[tuple[str, str]]
) -> str:
    """Return the leaks as a SARIF log of one run; ``unread`` are files and why."""
    ids = [*(rule.id for rule in rules), TOO_MANY]
    index = {name: number for number, name in enumerate(ids)}
    return sarif_log(
        rules=[*map(_rule, rules), _too_many_rule()],
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


def _rule(rule: Rule) -> dict[str, object]:
    told = _described(rule.id, rule.description, rule.severity, rule.tags)
    if rule.issuer.startswith("https://"):
        told["helpUri"] = rule.issuer
    return told


def _too_many_rule() -> dict[str, object]:
    return _described(TOO_MANY, "Too much in one place to look at", Severity.CRITICAL, ())


def _described(
    name: str, description: str, severity: Severity, tags: Sequence[str]
) -> dict[str, object]:
    text = (description or name)[:_TEXT_CHARS_MAX]
    return {
        "id": name,
        "name": "".join(word.capitalize() for word in name.split("-")),
        "shortDescription": {"text": text},
        "fullDescription": {"text": text},
        "help": {"text": _HELP},
        "defaultConfiguration": {"level": _LEVELS[severity]},
        "properties": {
            "tags": list(dict.fromkeys((*_TAGS, *tags)))[:_TAGS_MAX],
            "security-severity": _SCORES[severity],
        },
    }


def _result(leak: Leak, index: int) -> dict[str, object]:
    source = leak.source
    result: dict[str, object] = {
        "ruleId": leak.rule,
        "ruleIndex": index,
        "level": _LEVELS[leak.severity],
        "message": {"text": "".join(_words(leak))},
        "locations": [{
            "physicalLocation": {"artifactLocation": {"uri": _uri(source.file)}, **_region(leak)},
        }],
        "partialFingerprints": {"gitleaksFingerprint/v1": leak.fingerprint},
    }  # fmt: skip
    if source.commit:
        result["properties"] = {
            "commit": source.commit, "author": source.author, "date": source.date,
        }  # fmt: skip
    return result


def _words(leak: Leak) -> Iterator[str]:
    """Yield what a person reads of one leak."""
    if leak.of_name:
        yield f"{leak.rule}: the name of the file says so"
    else:
        yield f"{leak.rule}: {leak.masked or 'too much to tell'}"
    if leak.via:
        yield f", in {leak.via}"
    if leak.source.commit:
        yield f" (commit {leak.source.commit}, {leak.source.date})"


def _region(leak: Leak) -> dict[str, object]:
    """Return where in the file, for what stands in it: lines and columns count from 1."""
    if leak.of_name:
        return {}
    return {
        "region": {
            "startLine": leak.start_line,
            "startColumn": leak.chars[0],
            "endLine": leak.end_line,
            "endColumn": leak.chars[1],
        },
    }


def _uri(file: str) -> str:
    """Return a relative reference: of what lies outside the working folder, by way of ``..``."""
    return quote(os.path.relpath(file) if Path(file).is_absolute() else file)
