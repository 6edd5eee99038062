"""Each text of a policy's lists, checked by its form, wherever it stands.

So an entry that a merge takes out again, or that stands in a section that is off, is
still held to what it must be.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from collections.abc import Mapping as MappingOf
from typing import Final

from aesp_proxy.decide.policy import schema
from aesp_proxy.decide.policy.document import Mapping, Node, Scalar, Sequence, at, source_of
from aesp_proxy.decide.policy.field import Field, Form, Kind
from aesp_proxy.decide.policy.globs import check_path_glob
from aesp_proxy.decide.policy.hosts import parse_host_rule
from aesp_proxy.decide.policy.patch_patterns import check_patch_pattern
from aesp_proxy.decide.policy.selectors import expand_actions, parse_selector
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.decide.policy.tools import check_tool_rule
from aesp_proxy.errors import ConfigError

_PATHS_MAX: Final = 5_000
_ID_CHARS_MAX: Final = 200
_SHOWN_CHARS_MAX: Final = 80
_NOUNS: Final = {"name": "pattern", "policy_id": "rule"}


def check_entries(tree: Mapping, keys: MappingOf[str, Field], path: str = "") -> None:
    """Check every list of a tree whose types are checked; ``ConfigError`` with the place."""
    for key, node in tree.entries:
        spec = keys[key.text]
        place = f"{path}.{key.text}" if path else key.text
        match spec.kind:
            case Kind.TABLE if isinstance(node, Mapping):
                check_entries(node, spec.keys, place)
            case Kind.TABLES if isinstance(node, Sequence):
                _check_tables(node, spec, place)
            case Kind.TEXTS if isinstance(node, Sequence):
                _check_texts(node, spec.form)
            case _:
                continue


def said(scalar: Scalar) -> Sourced[str]:
    """Return a leaf as a text with its place."""
    return Sourced(scalar.text, source_of(scalar), scalar.column, scalar.style)


def check_ids(items: tuple[Node, ...], entry: str) -> None:
    """Refuse an entry whose id stands twice in a list of tables."""
    places: dict[str, str] = {}
    for item in items:
        node = item.get(entry) if isinstance(item, Mapping) else None
        if not isinstance(node, Scalar):
            continue
        if node.text in places:
            noun = _NOUNS.get(entry, entry)
            raise ConfigError(
                f"the {noun} {node.text[:_SHOWN_CHARS_MAX]!a} stands twice"
                f" (first at {places[node.text]})",
                where=at(node),
            )
        places[node.text] = source_of(node)


def _check_tables(node: Sequence, spec: Field, path: str) -> None:
    if spec.entry:
        check_ids(node.items, spec.entry)
    for item in node.items:
        if isinstance(item, Mapping):
            check_entries(item, spec.keys, path)
            if path == "rules":
                _check_rule(item)


def _check_texts(node: Sequence, form: Form) -> None:
    if form is Form.GLOB and len(node.items) > _PATHS_MAX:
        raise ConfigError(
            f"a list of more than {_PATHS_MAX} path patterns", where=at(node.items[0])
        )
    check = _CHECKS.get(form)
    if check is None:
        return
    for item in node.items:
        if isinstance(item, Scalar):
            check(said(item))


def _check_rule(rule: Mapping) -> None:
    name = rule.get("policy_id")
    text = rule.word("policy_id")
    bad = not text or len(text) > _ID_CHARS_MAX or not text.isprintable() or " " in text
    if bad and name is not None:
        raise ConfigError(
            f"bad policy_id {text[:_SHOWN_CHARS_MAX]!a}",
            where=at(name),
            remedy=f"1 to {_ID_CHARS_MAX} printable characters without a space",
        )
    body = rule.table("rule")
    effect = body.get("effect") if body is not None else None
    if isinstance(effect, Scalar) and effect.text == "ALLOW" and not rule.items("applies_to"):
        raise ConfigError(
            f"the rule {text[:_SHOWN_CHARS_MAX]!a} allows and does not name what",
            where=at(effect),
            remedy="add applies_to; it never means everything by being left out",
        )


def check_lock(item: Sourced[str]) -> None:
    """Refuse a locked key that the format does not know; ``ConfigError`` with the nearest."""
    fields: MappingOf[str, Field] = {
        name: schema.POLICY[name] for name in ("guards", "settings", "rules")
    }
    head, _, rest = item.value.partition(".")
    if head == "rules" and (rest or head == item.value):
        return
    for name in item.value.split("."):
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1, cutoff=0.6)
            known = f"known here: {', '.join(sorted(fields))}"
            raise ConfigError(
                f"nothing to lock by the name {item.value[:_SHOWN_CHARS_MAX]!a}",
                where=item.where,
                remedy=f"did you mean '{near[0]}'?" if near else known,
            )
        fields = fields[name].keys


def _check_action(item: Sourced[str]) -> None:
    expand_actions((item,))


_CHECKS: Final[MappingOf[Form, Callable[[Sourced[str]], object]]] = {
    Form.HOST: parse_host_rule,
    Form.GLOB: check_path_glob,
    Form.TOOL: check_tool_rule,
    Form.REGEX: check_patch_pattern,
    Form.RESOURCE: parse_selector,
    Form.ACTION: _check_action,
    Form.KEY: check_lock,
}
