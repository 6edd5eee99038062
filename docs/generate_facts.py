"""The page of facts and functions, from the tables that the checker and the compiler read.

``FUNCTIONS``, ``OPERATORS`` and ``MACROS`` say in a sentence what each does; an operation
without a sentence, or a sentence without an operation, is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from aesp_proxy.decide.policy.cel import check
from aesp_proxy.decide.policy.cel.condition import COST_MAX
from aesp_proxy.decide.policy.cel.lexical import CHARS_MAX, DEPTH_MAX, TOKENS_MAX
from aesp_proxy.decide.policy.cel.operations import OPERATIONS, PREPARED, ZONED, Operation
from aesp_proxy.decide.policy.cel.prepared import PATTERN_CHARS_MAX
from aesp_proxy.decide.policy.cel.runtime import STEPS_MAX, TEXT_MAX
from aesp_proxy.decide.policy.cel.types import DOUBLE, INT, UINT, Kind, Type
from aesp_proxy.decide.policy.facts import (
    EVENTS,
    FACTS,
    FINDINGS_MAX,
    JSON_ITEMS_MAX,
    KINDS_OF_ACTION,
    LIST_ITEMS_MAX,
    STRING_CHARS_MAX,
    Fact,
)
from aesp_proxy.model.context import Level

KINDS = {
    "request": "an HTTP request",
    "connect": "a tunnel that is asked for",
    "dns": "a name that is asked for",
    "network": "a connection of a program",
    "file": "a file that is touched",
    "patch": "a patch that is applied",
    "tool": "a tool that is called",
    "custom": "what a client declares by a name of its own",
}

OPERATORS = {
    "_<_": "Less; of texts by code point, of bools false before true, of levels by rank.",
    "_<=_": "Less or equal.",
    "_>_": "Greater.",
    "_>=_": "Greater or equal.",
    "_+_": "Sum; of texts, bytes and lists one after the other; a time and a duration.",
    "_-_": "Difference; of two times a duration.",
    "_*_": "Product.",
    "_/_": "Quotient; of whole numbers truncated towards zero, by zero an error.",
    "_%_": "Remainder, with the sign of the first.",
    "-_": "The negative.",
}

FUNCTIONS = {
    "size": "Characters of a text, bytes, items of a list, keys of a map.",
    "startsWith": "Whether the text begins with the other.",
    "endsWith": "Whether the text ends with the other.",
    "contains": "Whether the other stands anywhere in the text.",
    "matches": "Whether the RE2 pattern is found anywhere in the text; anchor it with ^ and $.",
    "lowerAscii": "The text with A to Z in lower case, other characters as they are.",
    "upperAscii": "The text with a to z in upper case, other characters as they are.",
    "getFullYear": "The year.",
    "getMonth": "The month, from 0.",
    "getDate": "The day of the month, from 1.",
    "getDayOfMonth": "The day of the month, from 0.",
    "getDayOfWeek": "The day of the week, from 0, which is Sunday.",
    "getDayOfYear": "The day of the year, from 0.",
    "getHours": "The hour of the day; of a duration, all its hours.",
    "getMinutes": "The minute of the hour; of a duration, all its minutes.",
    "getSeconds": "The second of the minute; of a duration, all its seconds.",
    "getMilliseconds": "The millisecond of the second.",
    "int": "A whole number of 64 bits; of a time, seconds since 1970; a fraction is cut off.",
    "uint": "A whole number from 0 of 64 bits.",
    "double": "A number with a fraction.",
    "string": "The value as text; of a time in RFC 3339.",
    "bytes": "The UTF-8 of a text.",
    "bool": "True or false, of the words that CEL reads as such.",
    "timestamp": "A time, of RFC 3339 with a zone, or of seconds since 1970.",
    "duration": "A duration, of a text such as 1h30m.",
    "dyn": "The value with its type left open until it is asked.",
    "cidr_contains": "Whether the address lies in the network.",
    "glob": "Whether the absolute path matches the pattern, as in lists of paths, with case.",
    "host_matches": "Whether the host is named by the entry, as in lists of hosts.",
    "has_label": "Whether the label is among those of the list.",
    "luhn": "Whether the digits of the text pass the Luhn check of card numbers.",
}

BUILT_IN = (
    ("`==`, `!=`", "Equal, of one type; an address equals a network that it lies in."),
    ("`in`", "In a list, a key of a map; of an address, in one of the networks written out."),
    ("`&&`", "And: false wins over an error, whichever side it stands on."),
    ("`&#124;&#124;`", "Or: true wins over an error, whichever side it stands on."),
    ("`!`", "Not."),
    ("`c ? a : b`", "One of two values of the same type."),
    ("`list[i]`, `map[key]`, `map.key`", "An item; an error where there is none."),
)

MACRO_TEXTS = {
    "all": "Whether the expression holds for every item.",
    "exists": "Whether it holds for at least one.",
    "exists_one": "Whether it holds for exactly one.",
    "filter": "The items for which it holds.",
    "map": "What the expression makes of each item, with three arguments of those chosen first.",
}


class UntoldError(Exception):
    """An operation has no sentence here, or a sentence has no operation."""


def page(note: str) -> str:
    """Return the page; raises ``UntoldError``."""
    _hold(OPERATIONS, {**OPERATORS, **FUNCTIONS})
    _hold(check._MACROS, MACRO_TEXTS)  # noqa: SLF001 - nobody else needs its name
    _hold(EVENTS, KINDS)
    parts = [
        "# Facts and functions of rules\n",
        note,
        INTRO,
        "## Facts\n",
        _table(("fact", "type", "known", "what it is"), map(_fact_row, _readable())),
        "The kinds of event above, and the actions that they come as:\n",
        _table(("kind", "is", "actions"), map(_kind_row, EVENTS)),
        _levels(),
        "### Not yet\n",
        "These are of the specification; a rule that reads one is refused when it is loaded.\n",
        _table(("fact", "what it is", "why not"), map(_missing_row, _missing())),
        "## Operators\n",
        _table(("operator", "over", "what it does"), map(_operator_row, OPERATORS)),
        _table(("operator", "what it does"), iter(BUILT_IN)),
        "## Functions\n",
        "A function shown after a point is called on its first argument.\n",
        _table(("function", "what it does"), map(_function_row, FUNCTIONS)),
        "## Macros\n",
        "The variable is named by the rule and may not be the first word of a fact.\n",
        _table(("macro", "what it does"), _macro_rows()),
        DIFFERENT,
        "## Limits\n",
        _table(("limit", "value"), iter(LIMITS)),
    ]
    return "\n".join(parts)


INTRO = """\
A condition is an expression of [CEL](https://github.com/google/cel-spec), the Common Expression
Language, over the facts below. It is read, typed and bounded when the policy is loaded: a name that
is no fact, two types that never compare, or too much work is an error with file, line and column.

A fact is *always* known for a kind of event, *sometimes* (then ask `has(...)` first), or never.
To read what is not known is an error, and a rule that errs never lets anything pass: one that
denies or asks counts as matched, one that allows does not.
"""

DIFFERENT = """\
## What differs from CEL

Of ours:

- levels, such as `request.user.security_clearance`, are compared with their words and ordered:
  `request.resource.classification >= 'confidential'`;
- addresses are compared with addresses and networks: `request.source_ip in ['10.0.0.0/8']`;
- `cidr_contains`, `glob`, `host_matches`, `has_label` and `luhn`.

Stricter than CEL, when the policy is loaded:

- every name is a fact with a type, or the variable of a macro; `null` is no value of a fact: ask
  `has(...)`;
- patterns, networks, globs, entries of hosts and time zones are constants, because they are made
  ready once; a pattern is RE2's, so there are no backreferences and no look-around;
- values of different types that never compare are an error, not false: `request.port == '443'`. A
  whole number and a number with a fraction are compared by `<` and its like, not by `==`;
- a list holds one type; types that JSON has may be mixed, and are then asked when it is evaluated;
- there is no `type()`, no message, no list or map with optional items, no string in three quotes;
- a condition is true or false; anything else is an error when it is loaded.

As in CEL: whole numbers have 64 bits and overflow is an error, a text is counted in code points,
and a time has a zone.
"""

LIMITS = (
    ("characters of a condition", f"{CHARS_MAX:,}"),
    ("words and signs of a condition", f"{TOKENS_MAX:,}"),
    ("brackets in brackets", f"{DEPTH_MAX}"),
    ("characters of a pattern", f"{PATTERN_CHARS_MAX:,}"),
    ("steps in the worst case, reckoned when it is loaded", f"{COST_MAX:,}"),
    ("steps that the loops of one evaluation take", f"{STEPS_MAX:,}"),
    ("characters of a text that is made", f"{TEXT_MAX:,}"),
    ("characters of a text that is read, where the fact says no less", f"{STRING_CHARS_MAX:,}"),
    ("items of a list or map that is read", f"{LIST_ITEMS_MAX:,}"),
    ("findings, the gravest first", f"{FINDINGS_MAX:,}"),
    ("values in the JSON of a tool's arguments", f"{JSON_ITEMS_MAX:,}"),
)


def _hold(known: Mapping[str, object], told: Mapping[str, object]) -> None:
    if untold := set(known) ^ set(told):
        raise UntoldError(f"say what these do, and of no others: {', '.join(sorted(untold))}")


def _readable() -> Iterator[Fact]:
    return (fact for fact in FACTS.values() if not fact.missing)


def _missing() -> Iterator[Fact]:
    return (fact for fact in FACTS.values() if fact.missing)


def _fact_row(fact: Fact) -> tuple[str, ...]:
    return f"`{fact.name}`", f"`{fact.type}`", _known(fact), fact.doc


def _known(fact: Fact) -> str:
    told = []
    for word, kinds in (("always", fact.always), ("sometimes", fact.sometimes)):
        if kinds:
            told.append(word if set(kinds) == set(EVENTS) else f"{word}: {', '.join(kinds)}")
    return "; ".join(told)


def _missing_row(fact: Fact) -> tuple[str, ...]:
    return f"`{fact.name}`", fact.doc, fact.missing


def _kind_row(kind: str) -> tuple[str, ...]:
    words = (f"`{word}`" for word, kinds in KINDS_OF_ACTION.items() if kind in kinds)
    return kind, KINDS[kind], ", ".join(words)


def _levels() -> str:
    words = " < ".join(f"`{level.word}`" for level in Level)
    return f"Levels are ordered: {words}.\n"


def _operator_row(name: str) -> tuple[str, ...]:
    sign = name.replace("_", " ").strip()
    return f"`{sign}`", ", ".join(dict.fromkeys(map(_over, OPERATIONS[name]))), OPERATORS[name]


def _over(way: Operation) -> str:
    """Name what an operator stands between; numbers of two types are one case."""
    if len(set(way.params)) > 1 and set(way.params) <= {INT, UINT, DOUBLE}:
        return "numbers of two types"
    return " and ".join(dict.fromkeys(map(_told, way.params)))


def _function_row(name: str) -> tuple[str, ...]:
    ways = dict.fromkeys(_call(name, way) for way in OPERATIONS[name])
    return "<br>".join(ways), FUNCTIONS[name]


def _call(name: str, way: Operation) -> str:
    constant = PREPARED.get(way.op, 1 if way.op in ZONED else -1)
    args = [
        f"constant {_told(param)}" if at == constant else _told(param)
        for at, param in enumerate(way.params)
    ]
    if way.method:
        return f"`{args[0]}.{name}({', '.join(args[1:])})`: {way.result}"
    return f"`{name}({', '.join(args)})`: {way.result}"


def _told(param: Type | Kind) -> str:
    return str(param) if isinstance(param, Type) else param.value


def _macro_rows() -> Iterator[tuple[str, str]]:
    yield "`has(fact)`", "Whether a fact is known, or a key is there; never an error for a fact."
    for name, text in MACRO_TEXTS.items():
        args = "x, expression" if name != "map" else "x, [condition,] expression"
        yield f"`list.{name}({args})`", text


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
