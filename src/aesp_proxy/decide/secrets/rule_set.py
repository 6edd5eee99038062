"""Make a set of rules fit for what runs it: the engine, files, or bytes that flow.

What does not fit is left out, and told in one line: where, which rule, why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from aesp_proxy.decide.secrets.boundary import behind_escapes
from aesp_proxy.decide.secrets.hyperscan import refusals
from aesp_proxy.decide.secrets.rule import RuleSet
from aesp_proxy.errors import ConfigError


def left_out(where: str, name: str, why: str) -> str:
    """Return the line that tells of a rule (or of a file, without a name)."""
    what = f"rule {name[:100]!r}: {why}" if name else why
    return f"{where}: {what}"


def with_neighbours(rules: RuleSet, *, strict: bool = False) -> RuleSet:
    """Return the set without rules that require one that is not in it.

    With ``strict``, ConfigError for the first.
    """
    names = {rule.id for rule in rules.rules if not rule.path_only}
    told = {}
    for rule in rules.rules:
        missing = [one.id for one in rule.required if one.id not in names]
        if missing:
            told[rule.id] = left_out(
                rule.where, rule.id, f"it requires the rule {missing[0][:100]!r}, which is not here"
            )
    return _without(rules, told, strict=strict)


def without_refused(rules: RuleSet, *, strict: bool = False) -> RuleSet:
    """Return the set without the rules that Hyperscan does not take.

    Takes a millisecond a rule: ask it when the set does not compile. With
    ``strict``, ConfigError for the first.
    """
    looking = [rule for rule in rules.rules if not rule.path_only]
    refused = refusals([rule.expression for rule in looking])
    told = {
        looking[index].id: left_out(
            looking[index].where, looking[index].id, f"Hyperscan refuses it: {reason}"
        )
        for index, reason in refused.items()
    }
    return with_neighbours(_without(rules, told, strict=strict), strict=strict)


def for_the_wire(rules: RuleSet, *, strict: bool = False) -> RuleSet:
    """Return the rules as they hold for bytes that flow.

    Names of files are not asked, keywords neither (they may come later), allowlists
    only for the exact secret (``allow``). A border at the beginning stands behind escapes
    too (``boundary``). A rule for names alone, or that requires
    others near by, is left out: what must stand there may leave another way. With
    ``strict``, ConfigError for the first such rule.
    """
    told = {}
    for rule in rules.rules:
        if rule.path_only:
            told[rule.id] = left_out(rule.where, rule.id, "it looks at names of files alone")
        elif rule.required:
            why = "what it requires may leave in another request"
            told[rule.id] = left_out(rule.where, rule.id, why)
    kept = _without(rules, told, strict=strict)
    return replace(
        kept,
        rules=tuple(
            behind_escapes(replace(rule, path=b"", keywords=(), allow=rules.allow + rule.allow))
            for rule in kept.rules
            if rule.report
        ),
        allow=(),
    )


def _without(rules: RuleSet, told: Mapping[str, str], *, strict: bool) -> RuleSet:
    if not told:
        return rules
    if strict:
        raise ConfigError(next(iter(told.values())))
    return replace(
        rules,
        rules=tuple(rule for rule in rules.rules if rule.id not in told),
        warnings=rules.warnings + tuple(told.values()),
    )
