"""Facts out of an event: one generated function a kind of event, only for what is asked.

What may be unknown comes out as None. ``FACTS`` says how each fact is taken.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from aesp_proxy.decide.policy.cel.emit import compiled
from aesp_proxy.decide.policy.cel.errors import EvaluationError
from aesp_proxy.decide.policy.cel.prepared import Address, address
from aesp_proxy.decide.policy.facts import FACTS, FINDINGS_MAX, JSON_ITEMS_MAX, LIST_ITEMS_MAX
from aesp_proxy.decide.url_path import url_path
from aesp_proxy.model.context import Context
from aesp_proxy.model.decision import Finding
from aesp_proxy.model.event import Event

Extractor = Callable[[Event, Context, Sequence[Finding]], tuple[object, ...]]
"""Takes event, context and findings to the values of the facts it was made for, in order."""

_JSON_BYTES_MAX: Final = 1_048_576
_JSON_DEPTH_MAX: Final = 64


def extractor(facts: Sequence[str], kind: str) -> Extractor:
    """Make the function that takes these facts out of events of one kind."""
    codes = [FACTS[name].code_for(kind) if _can(name, kind) else "None" for name in facts]
    body = "".join(f"{code}, " for code in codes)
    names = {"address_of": address_of, "header_of": header_of, "headers_of": headers_of,
             "json_of": json_of, "url_path": url_path, "findings_of": findings_of}  # fmt: skip
    made: Extractor = compiled(f"lambda e, c, f: ({body})", "<facts>", names)
    return made


def _can(name: str, kind: str) -> bool:
    fact = FACTS[name]
    return kind in fact.always or kind in fact.sometimes


def address_of(text: str) -> Address | None:
    """Return the address of a peer, None where there is none."""
    if not text:
        return None
    try:
        return address(text)
    except EvaluationError:
        return None


def header_of(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> str:
    """Return the first value of a header in lower case, without parameters; empty for none."""
    for given, value in headers:
        if given == name:
            return value.decode("latin-1").partition(";")[0].strip().lower()
    return ""


def headers_of(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str] | None:
    """Return header fields by name; None, which is unknown, where there are too many."""
    if len(headers) > LIST_ITEMS_MAX:
        return None
    found: dict[str, str] = {}
    for given, value in headers:
        name, text = given.decode("latin-1"), value.decode("latin-1")
        found[name] = f"{found[name]}, {text}" if name in found else text
    return found


def json_of(data: bytes) -> object:
    """Return JSON as values; None, which is unknown, for what is no JSON or has no one reading.

    So is what holds more than ``JSON_ITEMS_MAX`` values, or is nested deeper than 64.
    """
    if not data or len(data) > _JSON_BYTES_MAX:
        return None
    try:
        value: object = json.loads(data, parse_constant=_refuse, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None
    return value if _is_bounded(value) else None


def _is_bounded(value: object) -> bool:
    """Hold a value to the items and the depth that the cost of conditions reckons with."""
    count, layer = 0, [value]
    for _ in range(_JSON_DEPTH_MAX):
        inner: list[object] = []
        for each in layer:
            if isinstance(each, dict):
                inner.extend(each.values())
            elif isinstance(each, list):
                inner.extend(each)
        count += len(inner)
        if count > JSON_ITEMS_MAX:
            return False
        if not inner:
            return True
        layer = inner
    return False


def _refuse(_word: str) -> NoReturn:
    raise ValueError("not a number")


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice")
    return made


def findings_of(findings: Sequence[Finding]) -> tuple[dict[str, str], ...]:
    """Return findings as objects of the facts; the gravest first, as many as are bounded."""
    kept = sorted(findings, key=lambda each: -each.severity)[:FINDINGS_MAX]
    return tuple(
        {"rule": each.rule, "severity": each.severity.word, "location": each.location}
        for each in kept
    )
