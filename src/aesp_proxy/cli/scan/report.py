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
from aesp_proxy.decide.secrets.rule import TOO_MANY, Rule
from aesp_proxy.model.spreadsheet import csv_cell

_CSV: Final = (
    "RuleID", "Commit", "File", "SymlinkFile", "Secret", "Match", "StartLine", "EndLine",
    "StartColumn", "EndColumn", "Author", "Message", "Date", "Email", "Fingerprint", "Tags",
    "Severity",
)  # fmt: skip
_COMMIT_CHARS: Final = 12
_TOO_MANY_SAYS: Final = "More than can be told: look at the whole"

type Kinds = Mapping[str, Rule]
"""What was looked for, by name."""


def as_table(leaks: Sequence[Leak], kinds: Kinds) -> str:
    """Return a block a file: place, severity, rule, mask, and what it is."""
    return "".join(printable(row) + "\n" for row in _rows(leaks, kinds))


def _rows(leaks: Sequence[Leak], kinds: Kinds) -> Iterator[str]:
    for (file, commit), group in groupby(leaks, key=_heading):
        found = list(group)
        yield f"{file}{commit}"
        cells = [(_spot(each), each) for each in found]
        place = max(len(text) for text, _ in cells)
        rule = max(len(each.rule) for each in found)
        mask = max(len(each.masked) for each in found)
        for text, each in cells:
            yield (
                f"  {text:<{place}}  {each.severity.word:<8}  {each.rule:<{rule}}"
                f"  {each.masked:<{mask}}  {_description(each, kinds)}{_wrapped(each)}"
            ).rstrip()
        yield ""


def _spot(leak: Leak) -> str:
    return "name" if leak.of_name else f"{leak.start_line}:{leak.start_column}"


def _description(leak: Leak, kinds: Kinds) -> str:
    if leak.rule == TOO_MANY:
        return _TOO_MANY_SAYS
    return kinds[leak.rule].description if leak.rule in kinds else ""


def _tags(leak: Leak, kinds: Kinds) -> list[str]:
    """Return the tags of the rule, and what the secret was wrapped in, as gitleaks has them."""
    tags = kinds[leak.rule].tags if leak.rule in kinds else ()
    return [*tags, *([f"decoded:{leak.via}"] if leak.via else [])]


def _wrapped(leak: Leak) -> str:
    return f", in {leak.via}" if leak.via else ""


def _heading(leak: Leak) -> tuple[str, str]:
    source = leak.source
    if not source.commit:
        return source.file, ""
    return source.file, f"  ({source.commit[:_COMMIT_CHARS]}, {source.author}, {source.date})"


def as_json(leaks: Sequence[Leak], kinds: Kinds) -> str:
    """Return a list of objects with gitleaks' names; the last three are ours."""
    return json.dumps([_object(leak, kinds) for leak in leaks], indent=1) + "\n"


def _object(leak: Leak, kinds: Kinds) -> dict[str, object]:
    source = leak.source
    return {
        "RuleID": leak.rule,
        "Description": _description(leak, kinds),
        "StartLine": leak.start_line,
        "EndLine": leak.end_line,
        "StartColumn": leak.start_column,
        "EndColumn": leak.end_column,
        "Match": f"file detected: {source.file}" if leak.of_name else leak.masked,
        "Secret": leak.masked,
        "File": source.file,
        "SymlinkFile": "",
        "Commit": source.commit,
        "Entropy": round(leak.entropy, 4),
        "Author": source.author,
        "Email": source.email,
        "Date": source.date,
        "Message": "",
        "Tags": _tags(leak, kinds),
        "Fingerprint": leak.fingerprint,
        "Severity": leak.severity.word,
        "Offset": leak.offset,
        "Via": leak.via,
    }


def as_csv(leaks: Sequence[Leak], kinds: Kinds) -> str:
    """Return gitleaks' columns and severity, with a head; no cell is a formula to a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV)
    for leak in leaks:
        told = _object(leak, kinds)
        told["Tags"] = " ".join(_tags(leak, kinds))
        writer.writerow([csv_cell(str(told[name])) for name in _CSV])
    return text.getvalue()
