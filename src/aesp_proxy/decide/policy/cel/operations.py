"""Every operation of the language: its types, its Python, its cost.

One table, ``OPERATIONS``: for a name, the ways it may be called. ``code`` is Python with
``{0}``, ``{1}`` for the arguments; what it calls stands in ``runtime``. A place in ``params``
that is a ``Kind`` takes any list or map. ``pure``: cannot fail. ``each`` names the arguments
whose size is the cost, ``grows`` those whose sizes add up to that of the result; ``method``
is called on its first argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aesp_proxy.decide.policy.cel.types import (
    ADDRESS,
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    LEVEL,
    STRING,
    TIMESTAMP,
    UINT,
    Kind,
    Type,
    list_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One way to call a name. ``op`` is its own name among the terms."""

    op: str
    params: tuple[Type | Kind, ...]
    result: Type
    code: str
    pure: bool = True
    each: tuple[int, ...] = ()
    grows: tuple[int, ...] = ()
    method: bool = False


def _make(
    op: str,
    params: tuple[Type | Kind, ...],
    result: Type,
    code: str,
    *,
    fails: bool = False,
    each: tuple[int, ...] = (),
    grows: tuple[int, ...] = (),
    method: bool = False,
) -> Operation:
    return Operation(
        op=op, params=params, result=result, code=code, pure=not fails, each=each,
        grows=grows, method=method,
    )  # fmt: skip


_ORDERED = (INT, UINT, DOUBLE, STRING, BYTES, BOOL, TIMESTAMP, DURATION, LEVEL)
_NUMBERS = (INT, UINT, DOUBLE)


def _compared(sign: str) -> tuple[Operation, ...]:
    """Two of one kind, two numbers of different kinds, or values known when evaluated."""
    pairs = [(kind, kind) for kind in _ORDERED]
    pairs += [(a, b) for a in _NUMBERS for b in _NUMBERS if a is not b]
    known = tuple(_make(sign, pair, BOOL, f"({{0}} {sign} {{1}})", each=(0,)) for pair in pairs)
    return (*known, _make(f"dyn{sign}", (DYN, DYN), BOOL, f"dyn_order('{sign}', {{0}}, {{1}})",
                          fails=True, each=(0,)))  # fmt: skip


def _arithmetic(sign: str, name: str, *, doubles: bool = True) -> tuple[Operation, ...]:
    made = [
        _make(f"{name}_int", (INT, INT), INT, f"{name}_int({{0}}, {{1}})", fails=True),
        _make(f"{name}_uint", (UINT, UINT), UINT, f"{name}_uint({{0}}, {{1}})", fails=True),
    ]
    if doubles:
        code = "divide_double({0}, {1})" if sign == "/" else f"({{0}} {sign} {{1}})"
        made.append(_make(f"{name}_double", (DOUBLE, DOUBLE), DOUBLE, code))
    return tuple(made)


def _text_method(name: str, code: str) -> tuple[Operation, ...]:
    return (_make(name, (STRING, STRING), BOOL, code, each=(0,), method=True),)


def _time_part(name: str, part: str, *, of_duration: str = "") -> tuple[Operation, ...]:
    made = [
        _make(part, (TIMESTAMP,), INT, f"{part}({{0}})", method=True),
        _make(f"{part}_in", (TIMESTAMP, STRING), INT, f"{part}({{1}}.to_wall({{0}}))",
              fails=True, method=True),
    ]  # fmt: skip
    if of_duration:
        made.append(_make(f"{name}_of", (DURATION,), INT, of_duration, method=True))
    return tuple(made)


def _conversion(name: str, *ways: tuple[Type, str, bool]) -> tuple[Operation, ...]:
    result = _RESULTS[name]
    return tuple(
        _make(
            f"{name}_{source.kind.name.lower()}",
            (source,),
            result,
            code,
            fails=fails,
            each=(0,),
            grows=(0,),
        )
        for source, code, fails in ways
    )


_RESULTS: Final = {"int": INT, "uint": UINT, "double": DOUBLE, "string": STRING, "bytes": BYTES,
                   "bool": BOOL, "timestamp": TIMESTAMP, "duration": DURATION}  # fmt: skip
_LIST, _MAP = Kind.LIST, Kind.MAP
_SIZED = (STRING, BYTES, _LIST, _MAP)

OPERATIONS: Final[Mapping[str, tuple[Operation, ...]]] = {
    "_<_": _compared("<"),
    "_<=_": _compared("<="),
    "_>_": _compared(">"),
    "_>=_": _compared(">="),
    "_+_": (
        *_arithmetic("+", "add"),
        _make("concat", (STRING, STRING), STRING, "concat({0}, {1})", fails=True, each=(0, 1),
              grows=(0, 1)),
        _make("concat_bytes", (BYTES, BYTES), BYTES, "concat({0}, {1})", fails=True, each=(0, 1),
              grows=(0, 1)),
        _make("after", (TIMESTAMP, DURATION), TIMESTAMP, "moment({0} + {1})", fails=True),
        _make("after", (DURATION, TIMESTAMP), TIMESTAMP, "moment({0} + {1})", fails=True),
        _make("longer", (DURATION, DURATION), DURATION, "span({0} + {1})", fails=True),
    ),
    "_-_": (
        *_arithmetic("-", "subtract"),
        _make("between", (TIMESTAMP, TIMESTAMP), DURATION, "span({0} - {1})", fails=True),
        _make("before", (TIMESTAMP, DURATION), TIMESTAMP, "moment({0} - {1})", fails=True),
        _make("shorter", (DURATION, DURATION), DURATION, "span({0} - {1})", fails=True),
    ),
    "_*_": _arithmetic("*", "multiply"),
    "_/_": _arithmetic("/", "divide"),
    "_%_": _arithmetic("%", "remainder", doubles=False),
    "-_": (
        _make("negate_int", (INT,), INT, "negate_int({0})", fails=True),
        _make("negate_double", (DOUBLE,), DOUBLE, "(-{0})"),
    ),
    "size": (
        *(_make("size", (kind,), INT, "len({0})") for kind in _SIZED),
        *(_make("size", (kind,), INT, "len({0})", method=True) for kind in _SIZED),
        _make("dyn_size", (DYN,), INT, "dyn_size({0})", fails=True),
        _make("dyn_size", (DYN,), INT, "dyn_size({0})", fails=True, method=True),
    ),
    "startsWith": _text_method("startsWith", "{0}.startswith({1})"),
    "endsWith": _text_method("endsWith", "{0}.endswith({1})"),
    "contains": _text_method("contains", "({1} in {0})"),
    "matches": (
        _make("matches", (STRING, STRING), BOOL, "found({1}, {0})", fails=True, each=(0,),
              method=True),
        _make("matches", (STRING, STRING), BOOL, "found({1}, {0})", fails=True, each=(0,)),
    ),
    "lowerAscii": (_make("lowerAscii", (STRING,), STRING, "lower_ascii({0})", each=(0,),
                         grows=(0,), method=True),),
    "upperAscii": (_make("upperAscii", (STRING,), STRING, "upper_ascii({0})", each=(0,),
                         grows=(0,), method=True),),
    "getFullYear": _time_part("getFullYear", "year"),
    "getMonth": _time_part("getMonth", "month"),
    "getDate": _time_part("getDate", "date"),
    "getDayOfMonth": _time_part("getDayOfMonth", "day_of_month"),
    "getDayOfWeek": _time_part("getDayOfWeek", "day_of_week"),
    "getDayOfYear": _time_part("getDayOfYear", "day_of_year"),
    "getHours": _time_part("getHours", "hours", of_duration="whole({0}, 3600000000000)"),
    "getMinutes": _time_part("getMinutes", "minutes", of_duration="whole({0}, 60000000000)"),
    "getSeconds": _time_part("getSeconds", "seconds", of_duration="whole({0}, 1000000000)"),
    "getMilliseconds": _time_part("getMilliseconds", "milliseconds",
                                  of_duration="(whole({0}, 1000000) % 1000)"),
    "int": _conversion(
        "int", (INT, "{0}", False), (UINT, "to_int({0})", True),
        (DOUBLE, "int_of_double({0})", True), (STRING, "int_of_text({0})", True),
        (TIMESTAMP, "({0} // 1000000000)", False), (DYN, "dyn_int({0})", True),
    ),
    "uint": _conversion(
        "uint", (UINT, "{0}", False), (INT, "to_uint({0})", True),
        (DOUBLE, "uint_of_double({0})", True), (STRING, "uint_of_text({0})", True),
    ),
    "double": _conversion(
        "double", (DOUBLE, "{0}", False), (INT, "float({0})", False), (UINT, "float({0})", False),
        (STRING, "double_of_text({0})", True), (DYN, "dyn_double({0})", True),
    ),
    "string": _conversion(
        "string", (STRING, "{0}", False), (INT, "str({0})", False), (UINT, "str({0})", False),
        (DOUBLE, "text_of_double({0})", False), (BOOL, "('true' if {0} else 'false')", False),
        (BYTES, "text_of_bytes({0})", True), (TIMESTAMP, "text_of_moment({0})", False),
        (DURATION, "text_of_span({0})", False), (ADDRESS, "str({0})", False),
        (DYN, "dyn_string({0})", True),
    ),
    "bytes": _conversion("bytes", (BYTES, "{0}", False), (STRING, "bytes_of_text({0})", True)),
    "bool": _conversion("bool", (BOOL, "{0}", False), (STRING, "bool_of_text({0})", True)),
    "timestamp": _conversion(
        "timestamp", (TIMESTAMP, "{0}", False), (INT, "moment({0} * 1000000000)", True),
        (STRING, "moment_of_text({0})", True),
    ),
    "duration": _conversion(
        "duration", (DURATION, "{0}", False), (STRING, "span_of_text({0})", True)
    ),
    "dyn": (_make("dyn", (DYN,), DYN, "{0}"),),
    "cidr_contains": (
        _make("cidr_contains", (STRING, ADDRESS), BOOL, "{0}.holds({1})"),
        _make("cidr_contains_text", (STRING, STRING), BOOL, "{0}.holds(address({1}))", fails=True),
    ),
    "glob": (_make("glob", (STRING, STRING), BOOL, "glob_found({0}, {1})", fails=True, each=(1,)),),
    "host_matches": (
        _make("host_matches", (STRING, STRING), BOOL, "host_found({0}, {1})", each=(1,)),
    ),
    "has_label": (_make("has_label", (list_of(STRING), STRING), BOOL, "({1} in {0})", each=(0,)),),
    "luhn": (_make("luhn", (STRING,), BOOL, "luhn({0})", each=(0,)),),
}  # fmt: skip

PREPARED: Final = {"matches": 1, "cidr_contains": 0, "cidr_contains_text": 0, "glob": 0,
                   "host_matches": 0}  # fmt: skip
"""Operations with an argument that must be constant, because it is prepared at load."""

ZONED: Final = frozenset(
    f"{part}_in"
    for part in ("year", "month", "date", "day_of_month", "day_of_week", "day_of_year", "hours",
                 "minutes", "seconds", "milliseconds")
)  # fmt: skip
"""Operations whose second argument is a time zone, constant too."""
