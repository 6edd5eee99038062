"""Random conditions of every type, as text, from a seed or from Hypothesis' own chance.

A fact stands as ``<<name>>`` and asking for it as ``<<?name>>``, so that one expression can be
written for engines that name facts differently (``ours`` and ``flat``). ``~(1u) < 2`` marks two
numbers of different types, which not every checker compares.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

FACTS: dict[str, str] = {
    "request.host": "string",
    "request.path": "string",
    "request.user.id": "string",
    "request.port": "int",
    "request.size": "int",
    "session.egress_count": "int",
    "session.risk_score": "double",
    "session.spend": "double",
    "request.user.mfa_verified": "bool",
    "request.user.roles": "strings",
    "session.labels": "strings",
    "request.headers": "texts",
    "request.time": "time",
    "session.started_at": "time",
    "tool.arguments": "dyn",
}

INTS = ("0", "1", "-1", "2", "3", "7", "10", "443", "9223372036854775807",
        "-9223372036854775808", "4611686018427387904", "0x1F", "-0x8")  # fmt: skip
UINTS = ("0u", "1u", "2u", "7u", "443u", "18446744073709551615u", "0x10u")
DOUBLES = ("0.0", "1.0", "-1.5", "0.5", "443.0", "1e308", "-1e308", "9007199254740993.0",
           "9223372036854775808.0", "1e-7", "-0.0", "2.5", "1e19", ".5")  # fmt: skip
STRINGS = ("''", "'a'", "'ab'", "'é'", "'dev'", "'10'", "'-5'", "'1.5'", "'true'", "'x\\ny'",
           "\"q'q\"", "r'a\\b'", "'\\u00e9'", "'\\x61'", "'\\141'", "'admin'", "'api.example.com'",
           "'😀'", "'99999999999999999999'")  # fmt: skip
BYTES = ("b''", "b'a'", "b'ab'", "b'\\xff'", "b'\\377'", "b'é'", 'b"z"')
TIMES = ("timestamp('2024-02-29T12:30:45Z')", "timestamp('1969-12-31T23:59:59.5Z')",
         "timestamp('2023-11-14T22:13:20+02:00')", "timestamp('0001-01-01T00:00:00Z')",
         "timestamp('9999-12-31T23:59:59Z')")  # fmt: skip
SPANS = ("duration('0s')", "duration('90m')", "duration('-1.5s')", "duration('1h2m3s')",
         "duration('100ms')", "duration('24h')")  # fmt: skip
PATTERNS = ("'^a'", "'b$'", "'[a-z]+'", "'(a|d)e'", "'^$'", "'\\\\.example'", "'(?i)ADMIN'", "'.'")
ZONES = ("'UTC'", "'+02:00'", "'-05:30'", "'Europe/Berlin'", "'America/New_York'")
FIELDS = ("a", "b", "n", "list", "deep", "none")
PARTS = ("getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear",
         "getHours", "getMinutes", "getSeconds", "getMilliseconds")  # fmt: skip
_ORDERED = ("int", "uint", "double", "string", "bytes", "bool", "time", "span")
_EQUAL = (*_ORDERED, "ints", "strings", "dyn")
_ANY = (*_EQUAL, "texts", "counts")

_LEAVES = {
    "int": INTS, "uint": UINTS, "double": DOUBLES, "string": STRINGS, "bytes": BYTES,
    "time": TIMES, "span": SPANS,
    "texts": ("{'a': 'x', 'host': 'dev'}", "{'b': ''}"),
    "counts": ("{'a': 1, 'b': -2}", "{'n': 9223372036854775807}"),
    "dyn": ("dyn(1)", "dyn('a')", "dyn(1.0)", "dyn(true)"),
}  # fmt: skip
_FACT = re.compile(r"<<(\??)([a-z_.]+)>>")


def ours(text: str) -> str:
    """Write facts as policies do."""
    return _FACT.sub(lambda m: f"has({m[2]})" if m[1] else m[2], text.replace("~", ""))


def flat(text: str, mixed: str = "") -> str:
    """Write facts as variables without dots, and asking for one as a variable of its own.

    ``mixed`` is the function around a number that is compared with one of another type.
    """
    text = text.replace("~", mixed)
    return _FACT.sub(lambda m: ("has_" if m[1] else "") + m[2].replace(".", "_"), text)


class Expressions:
    """Draws expressions. ``plain`` ones have no dyn, no numbers of two types, no place -1."""

    def __init__(self, chance: random.Random, *, plain: bool = False) -> None:
        self._chance = chance
        self._plain = plain
        self._by_type: dict[str, list[str]] = {}
        for name, kind in FACTS.items():
            if not (plain and kind == "dyn"):
                self._by_type.setdefault(kind, []).append(f"<<{name}>>")
        self._names = sorted(name for names in self._by_type.values() for name in names)
        self._scope: list[tuple[str, str]] = []

    def condition(self, depth: int) -> str:
        """Return an expression that is true, false or an error."""
        return self.of("bool", depth)

    def of(self, kind: str, depth: int) -> str:
        """Return an expression of a kind, at most ``depth`` operations deep or so."""
        variables = [name for name, of_kind in self._scope if of_kind == kind]
        if variables and self._chance.random() < 0.4:
            return self._pick(variables)
        if depth <= 0 or self._chance.random() < 0.12:
            return self._leaf(kind)
        if self._chance.random() < 0.05:
            condition = self.of("bool", depth - 1)
            return f"({condition} ? {self.of(kind, depth - 1)} : {self.of(kind, depth - 1)})"
        make: Callable[[int], str] = getattr(self, f"_{kind}")
        return make(depth - 1)

    def _pick[T](self, options: Sequence[T]) -> T:
        return options[self._chance.randrange(len(options))]

    def _leaf(self, kind: str) -> str:
        facts = self._by_type.get(kind, [])
        if facts and self._chance.random() < 0.6:
            return self._pick(facts)
        if kind == "bool":
            return self._pick(("true", "false", self._pick(self._names).replace("<<", "<<?")))
        if kind in ("ints", "strings"):
            return "[" + ", ".join(self._some(_LEAVES[kind[:-1]])) + "]"
        return self._pick(_LEAVES[kind])

    def _some(self, options: Sequence[str]) -> list[str]:
        return [self._pick(options) for _ in range(self._chance.randrange(1, 4))]

    # a kind each --------------------------------------------------------------------------

    def _bool(self, depth: int) -> str:
        roll = self._chance.randrange(20)
        if roll < 5:
            sign = self._pick(("&&", "||"))
            parts = [self.of("bool", depth) for _ in range(self._chance.randrange(2, 4))]
            return "(" + f" {sign} ".join(parts) + ")"
        if roll < 6:
            return f"!{self.of('bool', depth)}"
        if roll < 10:
            kind = self._pick(_ORDERED)
            other = kind
            mixed = not self._plain and self._chance.random() < 0.3
            if mixed and kind in ("int", "uint", "double"):
                other = self._pick(("int", "uint", "double"))
            sign = self._pick(("<", "<=", ">", ">="))
            left = self.of(kind, depth)
            left = left if kind == other else f"~({left})"
            return f"({left} {sign} {self.of(other, depth)})"
        if roll < 13:
            kind = self._pick(_ORDERED if self._plain else _EQUAL)
            sign = self._pick(("==", "!="))
            return f"({self.of(kind, depth)} {sign} {self.of(kind, depth)})"
        if roll < 15:
            return self._of_text(depth)
        if roll < 17:
            return self._member(depth)
        if roll < 19:
            return self._quantified(depth)
        return self.of("bool", depth) if self._plain else self._of_dyn(depth)

    def _of_text(self, depth: int) -> str:
        text = self.of("string", depth)
        if self._chance.random() < 0.3:
            return f"{text}.matches({self._pick(PATTERNS)})"
        method = self._pick(("startsWith", "endsWith", "contains"))
        return f"{text}.{method}({self.of('string', depth)})"

    def _member(self, depth: int) -> str:
        kind = self._pick(("int", "string", "key", "field", "dyn")[: 4 if self._plain else 5])
        if kind == "int":
            return f"({self.of('int', depth)} in {self.of('ints', depth)})"
        if kind == "string":
            return f"({self.of('string', depth)} in {self.of('strings', depth)})"
        if kind == "key":
            return f"({self.of('string', depth)} in {self.of('texts', depth)})"
        if kind == "field":
            of = "<<request.headers>>" if self._plain else self._pick(
                ("<<request.headers>>", "<<tool.arguments>>"))  # fmt: skip
            return f"has({of}.{self._pick(('host', 'accept', 'a', 'n'))})"
        return f"({self.of('string', depth)} in {self.of('dyn', depth)})"

    def _quantified(self, depth: int) -> str:
        macro = self._pick(("all", "exists", "exists_one"))
        items, item = self._items(depth)
        name = f"v{len(self._scope)}"
        self._scope.append((name, item))
        body = self.of("bool", depth)
        self._scope.pop()
        return f"{items}.{macro}({name}, {body})"

    def _items(self, depth: int) -> tuple[str, str]:
        if len(self._scope) >= 3:
            return "[1]", "int"
        kind, item = self._pick((("ints", "int"), ("strings", "string"), ("texts", "string"),
                                 ("dyn", "dyn"))[: 3 if self._plain else 4])  # fmt: skip
        return self.of(kind, depth), item

    def _of_dyn(self, depth: int) -> str:
        value = self.of("dyn", depth)
        other = self._pick(("int", "string", "double", "bool"))
        if self._chance.random() < 0.5:
            return f"({value} {self._pick(('==', '!='))} {self.of(other, depth)})"
        if self._chance.random() < 0.5:
            return f"({value} < dyn({self.of(self._pick(('int', 'double', 'string')), depth)}))"
        return f"({value} == null)"

    def _int(self, depth: int) -> str:
        roll = self._chance.randrange(12)
        if roll < 5:
            sign = self._pick(("+", "-", "*", "/", "%"))
            return f"({self.of('int', depth)} {sign} {self.of('int', depth)})"
        if roll < 6:
            return f"-({self.of('int', depth)})"
        if roll < 8:
            kinds = ("string", "bytes", "ints", "strings", "texts", "dyn")
            kind = self._pick(kinds[: 5 if self._plain else 6])
            value = self.of(kind, depth)
            return f"size({value})" if self._chance.random() < 0.5 else f"{value}.size()"
        if roll < 9:
            kinds = ("uint", "double", "string", "int", "time")
            kind = self._pick(kinds[: 4 if self._plain else 5])
            return f"int({self.of(kind, depth)})"
        if roll < 11:
            if self._chance.random() < 0.3:
                return f"{self.of('span', depth)}.{self._pick(('getHours', 'getMinutes'))}()"
            zone = self._pick(ZONES) if self._chance.random() < 0.4 else ""
            return f"{self.of('time', depth)}.{self._pick(PARTS)}({zone})"
        if self._chance.random() < 0.5:
            place = self._pick(("0", "1", "2")) if self._plain else self.of("int", 0)
            return f"{self.of('ints', depth)}[{place}]"
        return f"{self.of('counts', depth)}[{self.of('string', 0)}]"

    def _uint(self, depth: int) -> str:
        if self._chance.random() < 0.4:
            return f"uint({self.of(self._pick(('int', 'double', 'string')), depth)})"
        sign = self._pick(("+", "-", "*", "/", "%"))
        return f"({self.of('uint', depth)} {sign} {self.of('uint', depth)})"

    def _double(self, depth: int) -> str:
        if self._chance.random() < 0.4:
            return f"double({self.of(self._pick(('int', 'uint', 'string')), depth)})"
        if self._chance.random() < 0.2:
            return f"-({self.of('double', depth)})"
        sign = self._pick(("+", "-", "*", "/")[: 3 if self._plain else 4])
        return f"({self.of('double', depth)} {sign} {self.of('double', depth)})"

    def _string(self, depth: int) -> str:
        roll = self._chance.randrange(8)
        if roll < 4:
            return f"({self.of('string', depth)} + {self.of('string', depth)})"
        if roll < 6:
            kinds = ("int", "uint", "bytes", "string", "time", "span", "bool", "double")
            kind = self._pick(kinds[: 4 if self._plain else 8])
            return f"string({self.of(kind, depth)})"
        if roll < 7:
            return f"{self.of('texts', depth)}[{self.of('string', 0)}]"
        places = ("0", "1", "-1")[: 2 if self._plain else 3]
        return f"{self.of('strings', depth)}[{self._pick(places)}]"

    def _bytes(self, depth: int) -> str:
        if self._chance.random() < 0.5:
            return f"bytes({self.of('string', depth)})"
        return f"({self.of('bytes', depth)} + {self.of('bytes', depth)})"

    def _time(self, depth: int) -> str:
        if self._chance.random() < 0.3:
            return f"timestamp({self.of('time', depth)})"
        sign = self._pick(("+", "-"))
        return f"({self.of('time', depth)} {sign} {self.of('span', depth)})"

    def _span(self, depth: int) -> str:
        if self._chance.random() < 0.5:
            return f"({self.of('time', depth)} - {self.of('time', depth)})"
        sign = self._pick(("+", "-"))
        return f"({self.of('span', depth)} {sign} {self.of('span', depth)})"

    def _ints(self, depth: int) -> str:
        roll = self._chance.randrange(4)
        if roll == 0:
            return f"({self.of('ints', depth)} + {self.of('ints', depth)})"
        if roll == 1:
            return "[" + ", ".join(self.of("int", depth) for _ in range(2)) + "]"
        return self._made("int", depth)

    def _strings(self, depth: int) -> str:
        roll = self._chance.randrange(4)
        if roll == 0:
            return f"({self.of('strings', depth)} + {self.of('strings', depth)})"
        if roll == 1:
            return "[" + ", ".join(self.of("string", depth) for _ in range(2)) + "]"
        return self._made("string", depth)

    def _made(self, kind: str, depth: int) -> str:
        if len(self._scope) >= 3:
            return self._leaf(f"{kind}s")
        name = f"v{len(self._scope)}"
        items = self.of(f"{kind}s", depth)
        self._scope.append((name, kind))
        wanted, made = self.of("bool", depth), self.of(kind, depth)
        self._scope.pop()
        made_of = (f"{items}.filter({name}, {wanted})", f"{items}.map({name}, {made})",
                   f"{items}.map({name}, {wanted}, {made})")  # fmt: skip
        return self._pick(made_of[: 2 if self._plain else 3])

    def _texts(self, depth: int) -> str:
        key, value = self.of("string", depth), self.of("string", depth)
        return f"{{{key}: {value}, 'a': {self.of('string', 0)}}}"

    def _counts(self, depth: int) -> str:
        return f"{{'a': {self.of('int', depth)}, {self.of('string', 0)}: {self.of('int', 0)}}}"

    def _dyn(self, depth: int) -> str:
        roll = self._chance.randrange(5)
        if roll == 0:
            return f"dyn({self.of(self._pick(('int', 'double', 'string', 'bool')), depth)})"
        if self._chance.random() < 0.7:
            return f"<<tool.arguments>>.{self._pick(FIELDS)}"
        return f"<<tool.arguments>>[{self._pick(('0', '1', chr(39) + 'a' + chr(39)))}]"


HOSTS = ("a", "api.example.com", "dev", "é.example", "")
_ARGUMENTS = (
    {"a": 1, "b": "x", "n": 1.5, "list": [1, "a", 2.0], "deep": {"a": True}, "none": None},
    {"a": "a", "list": [], "deep": {}},
    {"a": True, "n": 1.0, "b": [1, 2], "deep": {"a": {"b": 1}}},
    [1, 2, 3],
    "text",
    7,
    True,
)


def values(chance: random.Random, unknown: float = 0.15) -> dict[str, object]:
    """Draw a value for every fact, None for unknown; moments in nanoseconds, whole µs."""
    made: dict[str, object] = {}
    for name, kind in FACTS.items():
        made[name] = None if chance.random() < unknown else _value(chance, kind)
    return made


def _value(chance: random.Random, kind: str) -> object:
    match kind:
        case "string":
            return chance.choice(HOSTS)
        case "int":
            return chance.choice((0, 1, 443, -7, 2**63 - 1, -(2**63), 12))
        case "double":
            return chance.choice((0.0, 0.5, 1.0, -2.25, 1e308, float("inf"), 443.0))
        case "bool":
            return chance.random() < 0.5
        case "strings":
            return [chance.choice(("dev", "admin", "a", "é", "10"))
                    for _ in range(chance.randrange(4))]  # fmt: skip
        case "texts":
            names = ("host", "accept", "a", "b")
            return {name: chance.choice(HOSTS) for name in names if chance.random() < 0.5}
        case "time":
            return chance.choice((0, -1, 1_700_000_000, 951_782_400, 253_402_300_799,
                                  -62_135_596_800)) * 10**9 + 1_500_000  # fmt: skip
        case _:
            return chance.choice(_ARGUMENTS)
