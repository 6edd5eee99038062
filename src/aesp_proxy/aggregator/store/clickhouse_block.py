"""Rows of batches as one block of ClickHouse's ``Native`` format: columns, not rows.

Each distinct text of a batch is packed once, and a column is one ``join``. The format:
two numbers (columns, rows), then for each column its name, its type and its values; a
text is its length and its bytes, an array the ends of its arrays and then what is in them.
Source: https://clickhouse.com/docs/interfaces/formats/Native. Pure.
"""

from __future__ import annotations

from itertools import accumulate, chain
from operator import itemgetter
from struct import error as struct_error
from struct import pack
from typing import TYPE_CHECKING, Any, Final

from aesp_proxy.aggregator.store.clickhouse_sql import COLUMNS
from aesp_proxy.errors import RecordError
from aesp_proxy.record.canonical import POSITION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aesp_proxy.aggregator.ports import BatchPlace

_DAY_NS: Final = 86_400_000_000_000
_DAY_MAX: Final = 65_535
_FIELD_OF: Final = {
    "kind": "kind",
    "agent": "agent_id",
    "host": "target_host",
    "verdict": "verdict",
    "reason": "reason",
    "guard": "guard",
    "action": "action",
    "outcome": "outcome",
    "session": "session_id",
    "tenant": "tenant_id",
    "path": "target_path",
}
_NUMBERS: Final = itemgetter(POSITION["time_ns"], POSITION["status"])
_TEXTS: Final = itemgetter(*(POSITION[field] for field in _FIELD_OF.values()))
_FINDINGS, _APPLIED = POSITION["findings"], POSITION["applied_policies"]


class Block:
    """The columns of several batches until they are sent; ``last`` is the last position."""

    def __init__(self) -> None:
        self._parts: dict[str, list[bytes]] = {name: [] for name in COLUMNS}
        self._rule_counts: list[int] = []
        self.rows = 0
        self.bytes = 0
        self.last = 0

    def add(self, place: BatchPlace, rows: Sequence[Sequence[Any]]) -> None:
        """Add the rows (values of ``canonical.FIELDS``) of one batch, at least one.

        RecordError when they are not what was accepted; then nothing was added.
        """
        try:
            packed, rules = _columns(place, rows)
        except (struct_error, TypeError, AttributeError, IndexError, UnicodeError) as error:
            raise RecordError(f"holds a row of another form: {error}", where=place.key) from error
        self._rule_counts += map(len, rules)
        for name, data in packed.items():
            self._parts[name].append(data)
            self.bytes += len(data)
        self.rows += len(rows)
        self.last = place.position

    def encode(self) -> bytes:
        """Return all as one block."""
        made = [_number(len(COLUMNS)), _number(self.rows)]
        for name, kind in COLUMNS.items():
            made += [_text(name), _text(kind)]
            if name == "rules":
                made.append(pack(f"<{self.rows}Q", *accumulate(self._rule_counts)))
            made += self._parts[name]
        return b"".join(made)


def _columns(
    place: BatchPlace, rows: Sequence[Sequence[Any]]
) -> tuple[dict[str, bytes], list[list[str]]]:
    """Return the values of each column, and the rules of each row."""
    count = len(rows)
    day = min(place.received_ns // _DAY_NS, _DAY_MAX)
    times, statuses = zip(*map(_NUMBERS, rows), strict=True)
    packed = {
        "position": pack("<Q", place.position) * count,
        "received": pack("<H", day) * count,
        "origin": _text(place.origin) * count,
        "epoch": pack("<Q", place.epoch) * count,
        "seq": pack(f"<{count}Q", *range(place.first_seq, place.first_seq + count)),
        "time_ns": pack(f"<{count}Q", *times),
        "status": pack(f"<{count}Q", *statuses),
    }
    columns = zip(*map(_TEXTS, rows), strict=True)
    packed |= {name: _texts(column) for name, column in zip(_FIELD_OF, columns, strict=True)}
    rules = [_rules_of(row) for row in rows]
    packed["rules"] = _texts(list(chain.from_iterable(rules)))
    return packed, rules


def _rules_of(row: Sequence[Any]) -> list[str]:
    """Return the rules that found something or applied, each once."""
    findings, applied = row[_FINDINGS], row[_APPLIED]
    if not findings and not applied:
        return []
    return sorted({finding[0] for finding in findings or ()} | set(applied or ()))


def _texts(column: Sequence[str]) -> bytes:
    if not column:
        return b""
    packed = {text: _text(text) for text in set(column)}
    if len(packed) == 1:
        return packed[column[0]] * len(column)
    return b"".join(map(packed.__getitem__, column))


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return _number(len(data)) + data


def _number(value: int) -> bytes:
    """Pack a number seven bits at a time, the least first (LEB128)."""
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
