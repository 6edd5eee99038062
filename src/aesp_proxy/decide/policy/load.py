"""Policy text to a checked ``Policy``, whole or not at all, with the parents it extends.

Parents are read by a callback: this module opens nothing. Lists are checked here, so that
a bad entry is an error of the file and not of an event.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from aesp_proxy.decide.policy.built_in import BUILT_IN_PATHS
from aesp_proxy.decide.policy.document import Mapping
from aesp_proxy.decide.policy.effective import policy_of
from aesp_proxy.decide.policy.merge import joined
from aesp_proxy.decide.policy.policy import Policy
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.decide.policy.stated import Stated, read_stated
from aesp_proxy.errors import ConfigError

__all__ = [
    "BUILT_IN_PATHS",
    "Parent",
    "joined_chain",
    "load_policy",
    "read_chain",
]

CHAIN_FILES_MAX: Final = 32
_LEVEL: Final = "policy"

Parent = Callable[[Sourced[str], str], tuple[str, str]]
"""What ``extends`` says and the file that says it, to the parent's ``where`` and text.

Raises ``ConfigError`` where there is no such file.
"""


def load_policy(text: str, where: str, parent: Parent | None = None) -> Policy:
    """Read a policy and what it extends. ``where`` names the file in errors and sources.

    Raises ``ConfigError``, also for ``extends`` without a reader of parents.
    """
    files = read_chain(text, where, parent)
    tree, warnings = joined_chain(files)
    policy = policy_of(tree, where, warnings)
    return replace(policy, layers=tuple(file.layer(_LEVEL) for file in files))


def read_chain(text: str, where: str, parent: Parent | None = None) -> tuple[Stated, ...]:
    """Read a file and its parents, the topmost first; ``ConfigError`` for a cycle."""
    files = [read_stated(text, where)]
    while (named := files[-1].extends) is not None:
        if parent is None:
            raise ConfigError(
                "extends needs the files beside this one, and only its text is here",
                where=named.where,
                remedy="give the policy as a file: --policy FILE",
            )
        found, parent_text = parent(named, files[-1].where)
        names = [file.where for file in files]
        if found in names:
            told = " -> ".join([*names[names.index(found) :], found])
            raise ConfigError(f"extends goes in a circle: {told}", where=named.where)
        if len(files) == CHAIN_FILES_MAX:
            told = " -> ".join([*names[:3], "...", found])
            raise ConfigError(
                f"extends goes over more than {CHAIN_FILES_MAX} files: {told}", where=named.where
            )
        files.append(read_stated(parent_text, found))
    return tuple(reversed(files))


def joined_chain(files: tuple[Stated, ...]) -> tuple[Mapping, tuple[str, ...]]:
    """Join files that extend each other, the topmost first; the tree and all warnings."""
    tree, warnings = joined(None, files[0])
    for file in files[1:]:
        tree, more = joined(tree, file)
        warnings += more
    return tree, warnings
