"""Guards that a lower level switches on or off.

Access guards let pass what they do not refuse, so one that begins may let pass what
nobody answered for; content guards and a second file guard only restrict. A guard that
ends takes its refusals away; where no other guard answers for the kind of event, and no
rule allows, everything is refused then, which is the stricter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from aesp_proxy.decide.policy import schema
from aesp_proxy.decide.policy.cover_names import paths_of
from aesp_proxy.decide.policy.document import Mapping, Scalar, at, source_of
from aesp_proxy.decide.policy.entries import said
from aesp_proxy.decide.policy.globs import PathGlobs
from aesp_proxy.decide.policy.level_entries import forbidden_by
from aesp_proxy.decide.policy.weakening import Weakening

_OFF: Final = "false"
_FILE_GUARDS: Final = {
    "forbidden_path": "path_allowlist",
    "path_allowlist": "forbidden_path",
}
_LISTS: Final = {
    "forbidden_path": "patterns",
    "egress_allowlist": "block",
    "mcp_tool": "block",
    "patch_integrity": "forbidden_patterns",
}
_SAMPLES: Final = ("/witness", "/witness/file", "/srv/witness.txt", "/home/witness/w")


def is_active(name: str, guards: Mapping | None) -> bool:
    """Tell whether a guard is on; ``secret_leak`` is when nothing is said about it."""
    section = guards.table(name) if guards is not None else None
    if section is None:
        return name == "secret_leak"
    return section.word("enabled").lower() != _OFF


def ends(name: str, stated: Mapping) -> bool:
    """Tell whether a file switches a guard off."""
    return name in schema.GUARDS and stated.word("enabled").lower() == _OFF


def allows_by_rule(tree: Mapping) -> bool:
    """Tell whether a rule with effect ALLOW is on."""
    for item in tree.items("rules"):
        body = item.table("rule") if isinstance(item, Mapping) else None
        if body is not None and body.word("effect") == "ALLOW":
            return True
    return False


def begins(
    name: str, guards: Mapping | None, stated: Mapping, key: Scalar, place: str
) -> Iterator[Weakening]:
    """Find a guard of forbidden paths that would let pass what no file guard allowed.

    The other access guards begin with lists and defaults that are compared with nothing.
    """
    if name != "forbidden_path" or is_active(name, guards) or is_active("path_allowlist", guards):
        return
    patterns = [
        said(item)
        for list_name in ("patterns", "additional_patterns")
        for item in stated.texts(list_name)
    ]
    globs = PathGlobs(patterns, fold=True)
    path = next((sample for sample in _SAMPLES if globs.find(sample) is None), _SAMPLES[0])
    yield Weakening(
        key="guards.forbidden_path",
        what="no guard answers for files above, and this one allows what it does not forbid",
        above=place,
        below=at(key),
        witness=f"access to {path!a}",
        remedy="state path_allowlist above, or take it out",
    )


def off_with(
    above: Mapping | None, result: Mapping, stated: Mapping, *, allows: bool
) -> Iterator[tuple[str, Weakening]]:
    """Find guards that end and whose end lets something pass, each with its name.

    ``allows`` tells that a rule may allow what no guard answers for.
    """
    for name in schema.GUARDS:
        if not is_active(name, above) or is_active(name, result):
            continue
        other = _FILE_GUARDS.get(name)
        answered = other is not None and is_active(other, result)
        content = name in ("secret_leak", "patch_integrity")
        if not (content or answered or allows):
            continue
        section = stated.table(name)
        switch = section.get("enabled") if section is not None else None
        held = above.table(name) if above is not None else None
        key = above.key(name) if above is not None else None
        yield (
            name,
            Weakening(
                key=f"guards.{name}.enabled",
                what="the guard is on",
                above=source_of(key or above or stated),
                below=at(switch or stated),
                witness=_refused_by(name, held),
            ),
        )


def _refused_by(name: str, section: Mapping | None) -> str:
    """Return something that a guard refuses while it is on."""
    if name == "secret_leak":
        return "a secret in a request"
    if name == "path_allowlist":
        return f"access to {_SAMPLES[0]!a}"
    list_name = _LISTS[name]
    items = section.items(list_name) if section is not None else ()
    if items:
        return forbidden_by(items[0], schema.GUARDS[name].keys[list_name])
    if name == "forbidden_path":
        return f"access to {next(paths_of('**/.ssh/**'))!a}"
    return "what it refuses"
