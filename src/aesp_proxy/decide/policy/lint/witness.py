"""A request that two rules match: made from what both ask, and confirmed by asking them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice, product
from typing import Final

from aesp_proxy.decide.policy.cel.terms import Term, asked_of
from aesp_proxy.decide.policy.cel.types import Type
from aesp_proxy.decide.policy.facts import FACTS, KINDS_OF_ACTION
from aesp_proxy.decide.policy.lint.places import places
from aesp_proxy.decide.policy.lint.reach import Pair, Reach, is_empty, resources_of
from aesp_proxy.decide.policy.lint.subject import Describe, Subject
from aesp_proxy.decide.policy.lint.values import as_stated, solved

_ATTEMPTS_MAX: Final = 48
_RESOURCES_MAX: Final = 4
_ACTIONS_MAX: Final = 3
_ROWS_MAX: Final = 4
_METHOD_FACTS: Final = frozenset({"request.action", "request.method"})
_PATH: Final = "request.resource.path"


def witness_of(
    subject: Subject, one: Reach, other: Reach, describe: Describe
) -> Mapping[str, object] | None:
    """Return facts of a request that both rules match, None where none was found."""
    wanted = {one.rule.policy_id, other.rule.policy_id}
    for facts in islice(_attempts(one, other), _ATTEMPTS_MAX):
        made = describe(facts)
        if made is None:
            continue
        matches = subject.rules.matches(*made, ())
        if wanted <= set(matches.rules) - set(matches.errors):
            return facts
    return None


def _attempts(one: Reach, other: Reach) -> Iterator[dict[str, object]]:
    actions = _actions(one, other)
    resources = resources_of(one.rule, other.rule)[:_RESOURCES_MAX]
    rows = [
        (*mine, *theirs)
        for mine, theirs in product(one.rows, other.rows)
        if not is_empty((*mine, *theirs))
    ][:_ROWS_MAX]
    for row, action, resource in product(rows, actions, resources):
        parts = [part for part in row if asked_of(part)]
        for values in solved(parts, _types(parts)):
            yield from _facts(action, resource, values)


def _types(parts: list[Term]) -> dict[str, Type]:
    names = {name for part in parts for name in asked_of(part)} - _METHOD_FACTS
    return {name: FACTS[name].type for name in names}


def _actions(one: Reach, other: Reach) -> list[str]:
    words = [
        word
        for word in KINDS_OF_ACTION
        if word in one.actions and word in other.actions and word != "http.*"
    ]
    http = [word for word in words if word.startswith("http.")]
    rest = [word for word in words if not word.startswith("http.")]
    return [*http[:6], *rest[:_ACTIONS_MAX]]


def _facts(
    action: str, resource: Pair, values: Mapping[str, object]
) -> Iterator[dict[str, object]]:
    facts: dict[str, object] = {"request": {"action": action}}
    for name, value in values.items():
        if name == "request.size" and not action.startswith("http."):
            continue  # it follows from what is written or called
        _put(facts, name, as_stated(value, FACTS[name].type))
    for place in places(action, resource):
        copy = _copied(facts)
        for name, value in place.items():
            if not _has(copy, name):
                _put(copy, name, value)
        yield copy
    path = values.get(_PATH)
    if isinstance(path, str) and action.startswith("file."):
        # The condition asks for an end or a middle, the resource for the beginning.
        for place in places(action, resource):
            copy = _copied(facts)
            _put(copy, _PATH, f"{place[_PATH]}/{path.lstrip('/')}")
            yield copy


def _put(facts: dict[str, object], name: str, value: object) -> None:
    *path, last = name.split(".")
    at: dict[str, object] = facts
    for part in path:
        inner = at.setdefault(part, {})
        if not isinstance(inner, dict):
            return
        at = inner
    at[last] = value


def _has(facts: Mapping[str, object], name: str) -> bool:
    at: object = facts
    for part in name.split("."):
        if not isinstance(at, Mapping) or part not in at:
            return False
        at = at[part]
    return True


def _copied(facts: Mapping[str, object]) -> dict[str, object]:
    return {
        name: _copied(value) if isinstance(value, Mapping) else value
        for name, value in facts.items()
    }
