"""How much a name may say: bounds on the labels that an agent chooses freely.

Where a policy allows a name as a whole, asking for it says nothing. Where it allows what
stands before a suffix, every label there is a message to whoever serves the suffix (row 14
of the threats): it is bounded in length and in information, here, and in number, by the
session's budget.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import log2

from aesp_proxy.decide.snapshot import Snapshot
from aesp_proxy.model.host import Host

_DEFAULT_FIXED_LABELS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class NameLimits:
    """Bounds of the free labels of one name.

    ``bits_max`` is of the information in them, estimated by how often each character
    stands there: a random hexadecimal UUID has about 130, an ordinary host name 60.
    """

    label_chars_max: int = 48
    name_chars_max: int = 128
    bits_max: int = 224


def fixed_part(host: Host, snapshot: Snapshot) -> str:
    """Return the last labels of a name that the policy fixes, the whole name if it names it.

    Where only the default or a rule lets it pass, the last two labels stand for the owner.
    """
    name = host.name
    if snapshot.rules is not None and name in snapshot.rules.exact_names:
        return name
    if snapshot.grants is not None and name in snapshot.grants.exact_names:
        return name
    if snapshot.egress is not None:
        for rule in snapshot.egress.allow.naming(host):
            if rule.fixed:
                return rule.fixed
            break
    return ".".join(name.split(".")[-_DEFAULT_FIXED_LABELS:])


def over_limit(name: str, fixed: str, limits: NameLimits) -> str:
    """Return why the free labels of a name may not be asked for; empty where they may."""
    free = name.removesuffix(fixed).removesuffix(".")
    longest = max(map(len, free.split(".")))
    if longest > limits.label_chars_max:
        return f"a label of {longest} characters (limit {limits.label_chars_max})"
    if len(free) > limits.name_chars_max:
        return f"{len(free)} characters before {fixed} (limit {limits.name_chars_max})"
    bits = _bits(free)
    if bits > limits.bits_max:
        return f"about {bits} bits before {fixed} (limit {limits.bits_max})"
    return ""


def _bits(text: str) -> int:
    """Estimate the information of a text: its length times the entropy of its characters."""
    counts = Counter(text)
    return round(sum(count * log2(len(text) / count) for count in counts.values()))
