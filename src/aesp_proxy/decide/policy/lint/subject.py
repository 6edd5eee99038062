"""What is looked at: a policy, the tree it was made of, and the files that were joined."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, field

from aesp_proxy.decide.policy.document import Mapping, Node, Scalar, Sequence, source_of
from aesp_proxy.decide.policy.policy import Policy
from aesp_proxy.decide.policy.stated import Stated
from aesp_proxy.decide.rules import Rules
from aesp_proxy.model.context import Context
from aesp_proxy.model.event import Event

Describe = Callable[[MappingOf[str, object]], tuple[Event, Context] | None]
"""Facts as a suite states them to an event and its context; None where they are no attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A policy that has loaded, with its rules compiled.

    ``tree`` is what its files say joined and ``files`` are those files; a policy that comes
    compiled has neither.
    """

    policy: Policy
    rules: Rules
    tree: Mapping | None = None
    files: tuple[Stated, ...] = ()
    columns: MappingOf[tuple[str, str], int] = field(default_factory=dict)

    def at(self, source: str, text: str) -> str:
        """Return FILE:LINE:COL of a text that stands at FILE:LINE, as far as it is known."""
        column = self.columns.get((source, text))
        return source if column is None else f"{source}:{column}"

    def key(self, *path: str) -> str | None:
        """Return FILE:LINE:COL of a key that is stated; None where it is not."""
        node: Node | None = self.tree
        found: Scalar | None = None
        for name in path:
            if not isinstance(node, Mapping):
                return None
            found, node = node.key(name), node.get(name)
        return None if found is None else f"{source_of(found)}:{found.column}"


def subject_of(policy: Policy, tree: Mapping | None, files: tuple[Stated, ...]) -> Subject:
    """Return what is looked at; raises ``ConfigError`` for a rule that cannot be one."""
    columns: dict[tuple[str, str], int] = {}
    for scalar in _scalars(tree):
        columns.setdefault((source_of(scalar), scalar.text), scalar.column)
    return Subject(
        policy=policy, rules=Rules(policy.rules), tree=tree, files=files, columns=columns
    )


def _scalars(node: Node | None) -> Iterator[Scalar]:
    match node:
        case Scalar():
            yield node
        case Sequence():
            for item in node.items:
                yield from _scalars(item)
        case Mapping():
            for key, value in node.entries:
                yield key
                yield from _scalars(value)
        case None:
            return
