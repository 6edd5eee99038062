"""Types of values and terms.

Beside CEL's own there are two ordered kinds of ours: ``LEVEL`` (clearance and
classification, compared by rank) and ``ADDRESS`` (an IP address, compared by value and
asked for containment). How a value is held: bool, int, float, str, bytes, None as they are;
uint as int; timestamps and durations as int nanoseconds; levels as int ranks; addresses as
``ipaddress`` objects; lists as tuples or lists; maps and objects as mappings by field.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """The kind of a type; the value is its name in CEL and in messages."""

    BOOL = "bool"
    INT = "int"
    UINT = "uint"
    DOUBLE = "double"
    STRING = "string"
    BYTES = "bytes"
    NULL = "null_type"
    TIMESTAMP = "google.protobuf.Timestamp"
    DURATION = "google.protobuf.Duration"
    LEVEL = "level"
    ADDRESS = "address"
    DYN = "dyn"
    LIST = "list"
    MAP = "map"
    OBJECT = "object"


@dataclass(frozen=True, slots=True)
class Type:
    """A type. ``item`` is what a list or map holds, ``key`` what a map is asked by.

    ``fields`` are those of an object, sorted by name.
    """

    kind: Kind
    item: Type | None = None
    key: Type | None = None
    fields: tuple[tuple[str, Type], ...] = ()

    def __str__(self) -> str:
        match self.kind:
            case Kind.LIST:
                return f"list({self.item})"
            case Kind.MAP:
                return f"map({self.key}, {self.item})"
            case Kind.OBJECT:
                return "object{" + ", ".join(name for name, _ in self.fields) + "}"
            case Kind.TIMESTAMP | Kind.DURATION:
                return str(self.kind.value).rpartition(".")[2].lower()
            case _:
                return str(self.kind.value)


BOOL = Type(Kind.BOOL)
INT = Type(Kind.INT)
UINT = Type(Kind.UINT)
DOUBLE = Type(Kind.DOUBLE)
STRING = Type(Kind.STRING)
BYTES = Type(Kind.BYTES)
NULL = Type(Kind.NULL)
TIMESTAMP = Type(Kind.TIMESTAMP)
DURATION = Type(Kind.DURATION)
LEVEL = Type(Kind.LEVEL)
ADDRESS = Type(Kind.ADDRESS)
DYN = Type(Kind.DYN)

LITERALS = {
    "int": INT,
    "uint": UINT,
    "double": DOUBLE,
    "string": STRING,
    "bytes": BYTES,
    "bool": BOOL,
    "null": NULL,
}
# What JSON can hold, and so what a dyn may be.
JSON_KINDS = frozenset(
    {Kind.BOOL, Kind.INT, Kind.DOUBLE, Kind.STRING, Kind.NULL, Kind.DYN, Kind.LIST, Kind.MAP}
)


def list_of(item: Type) -> Type:
    """Return the type of a list."""
    return Type(Kind.LIST, item)


def map_of(key: Type, item: Type) -> Type:
    """Return the type of a map."""
    return Type(Kind.MAP, item, key)


def object_of(**fields: Type) -> Type:
    """Return the type of an object with these fields."""
    return Type(Kind.OBJECT, fields=tuple(sorted(fields.items())))
