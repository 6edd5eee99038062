"""cel-python's grammar as a parser, without the rest of cel-python.

The package's own ``CELParser`` is the same grammar with positions kept for every node and
debugging on, which costs twice the time an expression, and importing it costs 0.35 s. Here
the grammar alone is loaded, as a module's code would be, and positions are those of tokens.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from aesp_proxy.errors import ConfigError

if TYPE_CHECKING:
    from lark import Lark, Token

_PACKAGE = "celpy"
_FILE = "cel.lark"


@lru_cache(maxsize=1)
def parser() -> Lark:
    """Return the parser; raises ``ConfigError`` where cel-python is not installed whole."""
    from lark import Lark, Token  # noqa: PLC0415 - a policy without rules starts without it

    def words(token: Token) -> Token:
        """Tell the words true and false from names, which the grammar cannot."""
        if token.value in ("true", "false"):
            return Token.new_borrow_pos("BOOL_LIT", token.value, token)
        return token

    return Lark(
        _grammar(),
        parser="lalr",
        start="expr",
        lexer_callbacks={"IDENT": words},
        maybe_placeholders=False,
        priority="invert",
    )


def _grammar() -> str:
    spec = find_spec(_PACKAGE)
    if spec is None or spec.loader is None or not spec.submodule_search_locations:
        raise _missing()
    loader = cast("Any", spec.loader)
    try:
        data: bytes = loader.get_data(f"{spec.submodule_search_locations[0]}/{_FILE}")
    except (OSError, AttributeError):
        raise _missing() from None
    return data.decode("utf-8")


def _missing() -> ConfigError:
    return ConfigError(
        "the grammar of conditions is missing", remedy="reinstall the package: cel-python"
    )
