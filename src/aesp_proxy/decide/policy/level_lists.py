"""The lists of a lower level against those above: what is kept, and what would weaken."""

from __future__ import annotations

from dataclasses import dataclass, replace

from aesp_proxy.decide.policy.document import Node, Scalar, Sequence, at
from aesp_proxy.decide.policy.field import Field, Law
from aesp_proxy.decide.policy.level_entries import Excepted, Permitted, forbidden_by
from aesp_proxy.decide.policy.lists import identity, meaning, place_of, shown, without
from aesp_proxy.decide.policy.merge import Entries, removed
from aesp_proxy.decide.policy.weakening import Weakening
from aesp_proxy.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A list to be joined. ``before`` is the list above, ``now`` with what is joined already.

    ``place`` is FILE:LINE of the list above, of its section where it is not stated.
    """

    key: str
    place: str
    before: Sequence
    now: Sequence
    spec: Field

    def weakening(self, node: Node, what: str, witness: str, above: str = "") -> Weakening:
        """Return one that an entry of the lower list makes."""
        told = above or self.place
        return Weakening(key=self.key, what=what, above=told, below=at(node), witness=witness)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The entries that hold, and what was found on the way."""

    items: tuple[Node, ...]
    found: tuple[Weakening, ...] = ()
    warnings: tuple[str, ...] = ()


def forbidden(joined: Joined, node: Sequence, frozen: str) -> Made:
    """Add to a list that forbids; the same id for another thing is a weakening.

    ``frozen`` is FILE:LINE of a rule that forbids additions.
    """
    known = {identity(item, joined.spec.entry): item for item in joined.now.items}
    items, found = list(joined.now.items), []
    for item in node.items:
        name = identity(item, joined.spec.entry)
        first = known.get(name)
        if first is None:
            known[name] = item
            items.append(item)
            if frozen:
                what = f"{shown(item, joined.spec.entry)} is added to a list that is closed"
                found.append(joined.weakening(item, what, "", frozen))
        elif meaning(first) != meaning(item):
            what = f"{shown(item, joined.spec.entry)} is another thing above"
            witness = forbidden_by(first, joined.spec)
            told = place_of(first, joined.spec.entry)
            found.append(joined.weakening(item, what, witness, told))
    return Made(items=tuple(items), found=tuple(found))


def permitted(joined: Joined, node: Sequence, *, default_passes: bool, adds: bool) -> Made:
    """Cut a list that allows to what is allowed above; ``adds`` keeps what is joined already."""
    items: list[Node] = list(joined.now.items) if adds else []
    names = {identity(item, "") for item in items}
    found = []
    above = Permitted(joined.before.items, joined.spec.form, default_passes=default_passes)
    for item in node.items:
        beyond = above.beyond(item)
        if beyond:
            what = f"{shown(item)} is allowed by nothing above"
            found.append(joined.weakening(item, what, beyond))
        elif identity(item, "") not in names:
            names.add(identity(item, ""))
            items.append(item)
    return Made(items=tuple(items), found=tuple(found))


def excepted(joined: Joined, node: Sequence, patterns: tuple[Node, ...]) -> Made:
    """Cut a list of exceptions to what is excepted above."""
    items: list[Node] = []
    found: list[Weakening] = []
    above = Excepted(joined.before.items, patterns)
    for item in node.items:
        beyond = above.beyond(item)
        if beyond:
            what = f"{shown(item, joined.spec.entry)} is excepted by nothing above"
            found.append(joined.weakening(item, what, beyond))
        else:
            items.append(item)
    return Made(items=tuple(items), found=tuple(found))


def taken_out(joined: Joined, node: Sequence, entries: Entries, path: str) -> Made:
    """Take out of a list; of one that forbids nothing that stands above may go."""
    items = joined.now
    found: list[Weakening] = []
    warnings: list[str] = []
    for item in node.items:
        if not isinstance(item, Scalar):
            continue
        _, lost = without(joined.before.items, item, joined.spec)
        if joined.spec.law is Law.FORBIDS:
            found.extend(
                joined.weakening(
                    item,
                    f"{shown(gone, joined.spec.entry)} is forbidden above",
                    forbidden_by(gone, joined.spec),
                    place_of(gone, joined.spec.entry),
                )
                for gone in lost
            )
            if lost:
                continue
        try:
            items = removed(items, item, joined.spec, entries, f"{path}.{_last(joined)}", warnings)
        except ConfigError as error:
            found.append(
                Weakening(
                    key=joined.key,
                    what=error.message,
                    above=joined.place,
                    below=error.where,
                    remedy=error.remedy,
                )
            )
    return Made(items=items.items, found=tuple(found), warnings=tuple(warnings))


def _last(joined: Joined) -> str:
    return joined.key.rpartition(".")[2]


def cut_by(joined: Joined, made: Made, below: str, frozen: str) -> Made:
    """Find entries of a closed list that the level does not keep.

    ``frozen`` is FILE:LINE of the rule that forbids removals.
    """
    kept = {identity(item, "") for item in made.items}
    lost = [item for item in joined.before.items if identity(item, "") not in kept]
    found = tuple(
        Weakening(
            key=joined.key,
            what=f"{shown(item)} is taken out of a list that is closed",
            above=frozen,
            below=below,
        )
        for item in lost
    )
    return replace(made, found=made.found + found)
