"""What ``scan`` tells: lines for people, JSON and CSV with gitleaks' names.

No form holds a secret, only its mask. The message of a commit is left out: it is text of
a person and may hold one.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

from aesp_proxy.cli.output import printable
from aesp_proxy.cli.scan.leak import Leak
from aesp_proxy.model.spreadsheet import csv_cell

_CSV: Final = (
    "RuleID", "Commit", "File", "SymlinkFile", "Secret", "Match", "StartLine", "EndLine",
    "StartColumn", "EndColumn", "Author", "Message", "Date", "Email", "Fingerprint", "Tags",
)  # fmt: skip
_COMMIT_CHARS: Final = 12


def as_table(leaks: Sequence[Leak], descriptions: Mapping[str, str]) -> str:
    """Return a block a file: place, severity, rule, mask, and what it is."""
    return "".join(printable(row) + "\n" for row in _rows(leaks, descriptions))


def _rows(leaks: Sequence[Leak], descriptions: Mapping[str, str]) -> Iterator[str]:
    for (file, commit), group in groupby(leaks, key=_heading):
        found = list(group)
        yield f"{file}{commit}"
        cells = [(f"{each.start_line}:{each.start_column}", each) for each in found]
        place = max(len(text) for text, _ in cells)
        rule = max(len(each.rule) for each in found)
        mask = max(len(each.masked) for each in found)
        for text, each in cells:
            yield (
                f"  {text:<{place}}  {each.severity.word:<8}  {each.rule:<{rule}}"
                f"  {each.masked:<{mask}}  {descriptions.get(each.rule, '')}{_wrapped(each)}"
            ).rstrip()
        yield ""


def _wrapped(leak: Leak) -> str:
    return f", in {leak.via}" if leak.via else ""


def _heading(leak: Leak) -> tuple[str, str]:
    source = leak.source
    if not source.commit:
        return source.file, ""
    return source.file, f"  ({source.commit[:_COMMIT_CHARS]}, {source.author}, {source.date})"


def as_json(leaks: Sequence[Leak], descriptions: Mapping[str, str]) -> str:
    """Return a list of objects with gitleaks' names; the last three are ours."""
    return json.dumps([_object(leak, descriptions) for leak in leaks], indent=1) + "\n"


def _object(leak: Leak, descriptions: Mapping[str, str]) -> dict[str, object]:
    source = leak.source
    return {
        "RuleID": leak.rule,
        "Description": descriptions.get(leak.rule, ""),
        "StartLine": leak.start_line,
        "EndLine": leak.end_line,
        "StartColumn": leak.start_column,
        "EndColumn": leak.end_column,
        "Match": leak.masked,
        "Secret": leak.masked,
        "File": source.file,
        "SymlinkFile": "",
        "Commit": source.commit,
        "Entropy": round(leak.entropy, 4),
        "Author": source.author,
        "Email": source.email,
        "Date": source.date,
        "Message": "",
        "Tags": [leak.severity.word],
        "Fingerprint": leak.fingerprint,
        "Severity": leak.severity.word,
        "Offset": leak.offset,
        "Via": leak.via,
    }


def as_csv(leaks: Sequence[Leak]) -> str:
    """Return gitleaks' columns with a head; no cell is a formula to a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV)
    for leak in leaks:
        told = _object(leak, {}) | {"Tags": leak.severity.word}
        writer.writerow([csv_cell(str(told[name])) for name in _CSV])
    return text.getvalue()
