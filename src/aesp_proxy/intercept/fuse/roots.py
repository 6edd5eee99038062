"""Which directories are views of their own: those that lie in no other one. Pure."""

from __future__ import annotations

from collections.abc import Iterable


def outermost(trees: Iterable[str]) -> tuple[str, ...]:
    """Return the directories that lie in none of the others, in their order.

    Paths are absolute and normalised. What lies in another one is seen through that.
    """
    found = tuple(dict.fromkeys(trees))
    return tuple(
        each
        for each in found
        if not any(other != each and each.startswith(f"{other.rstrip('/')}/") for other in found)
    )
