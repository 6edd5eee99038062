"""Regular expressions with doubled backslashes, as policies in the field write them."""

from __future__ import annotations

from aesp_proxy.decide.policy.sourced import Sourced

_CLASS_LETTERS = frozenset("sSdDwWbB.")


def undoubled(pattern: Sourced[str], warnings: list[str]) -> Sourced[str]:
    r"""Read ``'\\s'`` as ``\s``: policies are written as if single quotes had escapes.

    Only where every backslash is doubled and one stands before a class letter; in double
    quotes YAML has done it already. A line is added to ``warnings`` where it was done.
    """
    text = pattern.value
    if pattern.style == "double" or "\\\\" not in text or "\\" in text.replace("\\\\", ""):
        return pattern
    after = text.split("\\\\")[1:]
    if not any(part[:1] in _CLASS_LETTERS for part in after if part):
        return pattern
    warnings.append(f"{pattern.where}: doubled backslashes in single quotes are read as single")
    return pattern.of(text.replace("\\\\", "\\"))
