"""How values are written for ClickHouse, and what its errors mean here. Pure.

Source: https://clickhouse.com/docs/interfaces/http#cli-queries-with-parameters (a value
of a parameter is in the escaped form of TabSeparated), and ``ErrorCodes.cpp``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aesp_proxy.errors import ConfigError, RecordError, UnavailableError

if TYPE_CHECKING:
    from aesp_proxy.errors import AespError

_ESCAPES: Final = str.maketrans(
    {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0", "\b": "\\b", "\f": "\\f"}
)
_TOO_SLOW: Final = frozenset({159, 160, 394})
_LATER: Final = {
    202: "has too many queries at once",
    216: "is still at work on the insert before",
    241: "has no memory for it now",
    252: "has too many parts and merges them",
    209: "does not answer in time",
    210: "cannot be reached",
}
_OPERATOR: Final = {
    60: "has no such table",
    81: "has no such database",
    192: "does not know the user",
    193: "refuses the password",
    194: "wants a password",
    497: "does not let the user do that",
    516: "refuses user or password",
}


def escaped(text: str) -> str:
    """Write a value of a parameter."""
    return text.translate(_ESCAPES)


def failure(message: str, *, where: str) -> AespError:
    """Return what an error of ClickHouse (``Code: N. ...``) means; its text is not told."""
    number = message.removeprefix("Code: ").partition(".")[0]
    code = int(number) if number.isascii() and number.isdigit() and len(number) < 6 else 0
    if code in _TOO_SLOW:
        return UnavailableError(
            "the question took too long", remedy="narrow it in time or agent", where=where
        )
    if code in _LATER:
        return UnavailableError(f"ClickHouse {_LATER[code]} (code {code})", where=where)
    if code in _OPERATOR:
        return ConfigError(f"ClickHouse {_OPERATOR[code]} (code {code})", where=where)
    return RecordError(f"ClickHouse refuses the statement (code {code})", where=where)
