"""Take from what an agent sends the units in which a secret could be cut to pieces.

A request gives one for its target, one for each field that is not the same in every request,
one for all such fields together, one for a short body; a name gives one of its labels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final

from aesp_proxy.decide.secrets.pieces import Unit
from aesp_proxy.decide.secrets.slots import UNIT_BYTES_MAX, target_slots, text_slots

FIELDS_MAX: Final = 256
NAMES_MAX: Final = 1_024
_STANDARD: Final = frozenset(
    (
        b"accept", b"accept-encoding", b"accept-language", b"connection", b"content-length",
        b"content-type", b"date", b"host", b"transfer-encoding",
    )
)  # fmt: skip
_USUAL: Final = frozenset(
    (
        b"anthropic-version", b"authorization", b"cache-control", b"cookie", b"origin", b"pragma",
        b"referer", b"traceparent", b"user-agent", b"x-api-key", b"x-request-id",
    )
)  # fmt: skip
"""Fields that many requests have: a piece in one of them stands there each time."""
_SUFFIX_LABELS: Final = 2
_FIELD: Final = "field:"


class Familiar:
    """What a session has said before, so that what never changes costs nothing.

    The last value of each field, and the names of hosts.
    """

    __slots__ = ("_moving", "_names", "_values")

    def __init__(self) -> None:
        self._names: OrderedDict[str, None] = OrderedDict()
        self._values: OrderedDict[bytes, bytes] = OrderedDict()
        self._moving: set[bytes] = set()

    def is_new(self, name: str) -> bool:
        """Tell whether a name was not said before."""
        return name not in self._names

    def changed(self, headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return the fields that are new or have ever changed."""
        return [
            (name, value)
            for name, value in headers
            if name not in _STANDARD and (self._values.get(name) != value or name in self._moving)
        ]

    def hear(self, unit: Unit) -> None:
        """Take in a unit that left by another way: what it says is known, what it has moves."""
        if unit.kind == "name":
            self.keep(b".".join(unit.slots).decode("ascii", "replace"), ())
        elif unit.kind.startswith(_FIELD):
            name = unit.kind.removeprefix(_FIELD).encode("latin-1")
            if name in self._values:
                self._moving.add(name)
            else:
                self._values[name] = b""

    def keep(self, name: str, fields: Sequence[tuple[bytes, bytes]]) -> None:
        """Remember a name, and fields that have changed, once they may leave."""
        self._names[name] = None
        self._names.move_to_end(name)
        if len(self._names) > NAMES_MAX:
            self._names.popitem(last=False)
        for field, value in fields:
            if field in self._values:
                self._moving.add(field)
            self._values[field] = value
        while len(self._values) > FIELDS_MAX:
            self._moving.discard(self._values.popitem(last=False)[0])


def head_units(host: str, target: bytes, fields: Sequence[tuple[bytes, bytes]]) -> Iterator[Unit]:
    """Yield the units of a request's head: its target, percent-decoded, and what changes."""
    yield Unit(kind="target", host=host, slots=target_slots(target))
    for name, value in fields:
        yield Unit(kind=_FIELD + name.decode("latin-1"), host=host, slots=text_slots(value))
    values = tuple(v for name, v in fields if name not in _USUAL and len(v) <= UNIT_BYTES_MAX)
    if values:
        yield Unit(kind="fields", host=host, slots=values)


def text_units(kind: str, host: str, text: bytes) -> Iterator[Unit]:
    """Yield the unit of a body or a message; none when it is too long to be a piece."""
    if 0 < len(text) <= UNIT_BYTES_MAX:
        yield Unit(kind=kind, host=host, slots=text_slots(text))


def name_units(name: str) -> Iterator[Unit]:
    """Yield the unit of a host's name: its labels."""
    labels = name.encode("ascii", "replace").split(b".")
    suffix = b".".join(labels[-_SUFFIX_LABELS:]).decode("ascii")
    yield Unit(kind="name", host=suffix, slots=tuple(labels))
