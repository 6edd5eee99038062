"""What is to be captured and where it leads to, as it goes to the process that keeps the rules."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from aesp_proxy.errors import ConfigError
from aesp_proxy.intercept.capture.ruleset import (
    UID_MAX,
    Selection,
    Ways,
    capturing,
    everybody_but,
)
from aesp_proxy.intercept.capture.tables import Table
from aesp_proxy.intercept.capture.who import Named, found

_NOBODY: Final = Named()
_WAYS: Final = Ways()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Whom to capture: who is named, or all but ``spared``; and the ways that are open.

    ``proxy_uid`` is the proxy's own user. ``release``: at an orderly end the rules go.
    """

    named: Named = _NOBODY
    spared: int | None = None
    ways: Ways = _WAYS
    proxy_uid: int = 0
    release: bool = False

    def selection(self) -> Selection:
        """Find out who is meant now; ConfigError where that is nobody."""
        if self.spared is not None:
            return everybody_but(self.spared)
        if not self.named:
            raise ConfigError(
                "nobody is named",
                where="capture",
                remedy="set capture.users, capture.groups or capture.cgroups",
            )
        return found(self.named, proxy_uid=self.proxy_uid)

    def table(self) -> Table:
        """Return the rules that fulfil it now; ConfigError as ``selection``."""
        return capturing(self.selection(), self.ways)

    def told(self) -> str:
        """Say whom it is about, in a few words."""
        if self.spared is not None:
            return f"everybody but user id {self.spared}"
        parts = (
            ("users", self.named.users),
            ("groups", self.named.groups),
            ("cgroups", self.named.cgroups),
        )
        return "; ".join(f"{name} {', '.join(names)}" for name, names in parts if names)

    def word(self) -> str:
        """Return it as one word of a command line."""
        named = self.named
        return json.dumps(
            {
                "users": named.users,
                "groups": named.groups,
                "cgroups": named.cgroups,
                "spared": self.spared,
                "ways": self.ways._asdict(),
                "proxy_uid": self.proxy_uid,
                "release": self.release,
            }
        )


def read_wish(word: str) -> Wish:
    """Read what ``Wish.word`` made; ValueError for what it does not make."""
    try:
        raw = json.loads(word)
        named = Named(**{name: tuple(raw[name]) for name in ("users", "groups", "cgroups")})
        wish = Wish(
            named=named,
            spared=raw["spared"],
            ways=Ways(**raw["ways"]),
            proxy_uid=raw["proxy_uid"],
            release=raw["release"],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a wish: {error}") from error
    if wish.spared is not None and not 0 <= wish.spared <= UID_MAX:
        raise ValueError("not a user id")
    return wish
