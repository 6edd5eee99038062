"""The table of checks: their ids (they are API), how bad a finding is, and what it means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aesp_proxy.decide.policy.lint.finding import FindingLevel, LintFinding, Related

_NOTE, _WARNING, _ERROR = FindingLevel.NOTE, FindingLevel.WARNING, FindingLevel.ERROR


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check. ``title`` is a line, ``help`` says what to do about a finding."""

    check_id: str
    level: FindingLevel
    title: str
    help: str


def _row(check_id: str, level: FindingLevel, title: str, text: str) -> Check:
    return Check(check_id=check_id, level=level, title=title, help=text)


_ROWS: Final = (
    _row(
        "policy-invalid",
        _ERROR,
        "The policy does not load.",
        "Mend what the message says; until then nothing can be decided by it.",
    ),
    _row(
        "loader-note",
        _NOTE,
        "Something that is stated has no effect.",
        "Take it out, or read what the message says of it.",
    ),
    _row(
        "rule-shadowed",
        _WARNING,
        "A rule can never make a difference.",
        "Another rule that is at least as strict matches whenever this one does. Take this one "
        "out, or narrow the other.",
    ),
    _row(
        "rule-duplicate",
        _WARNING,
        "Two rules say the same.",
        "Take one of them out.",
    ),
    _row(
        "rule-unreachable",
        _WARNING,
        "A condition can never be true.",
        "Its parts contradict each other. If each is meant alone, join them by || and not by &&.",
    ),
    _row(
        "rule-always-true",
        _WARNING,
        "A condition can never be false.",
        "Write true if everything is meant; otherwise join the parts by && and not by ||.",
    ),
    _row(
        "rule-conflict",
        _NOTE,
        "An ALLOW and a DENY rule match the same request.",
        "DENY wins. A warning where both name the same resources: then one of them is not as it "
        "is meant. The request that is shown can be pasted into a suite of policy test.",
    ),
    _row(
        "rule-allows-anything",
        _WARNING,
        "An ALLOW rule names every resource.",
        "It lifts the refusal of everything that is on no list. Name the resources it is for.",
    ),
    _row(
        "rule-unconditional",
        _NOTE,
        "An ALLOW rule has no condition.",
        "An entry in the list of the guard says the same and is easier to see.",
    ),
    _row(
        "rule-refuses-everything",
        _WARNING,
        "A DENY or ASK rule refuses every event.",
        "Name the resources or actions it is for, or give it a condition.",
    ),
    _row(
        "rule-action-not-made",
        _WARNING,
        "A rule speaks only of actions that no event has yet.",
        "Nothing is decided as this action in this version. Cover the same traffic by http.* or "
        "tcp.connect until it is.",
    ),
    _row(
        "rule-fact-never-known",
        _WARNING,
        "A rule reads a fact that nothing sets for traffic.",
        "It is known only for announced events that state it. What reads an unknown fact has no "
        "value: a rule that restricts counts as matched, one that allows as not. Ask has() "
        "first, and decide what holds where it is unknown.",
    ),
    _row(
        "rule-not-indexed",
        _NOTE,
        "The index decides no part of a condition.",
        "The condition is evaluated for every event that the rule applies to. Add a part that "
        "compares a fact with constants, or narrow applies_to and actions.",
    ),
    _row(
        "host-too-broad",
        _WARNING,
        "An allowed host or network is very broad.",
        "Whoever can register a name there can receive what the agent sends. Name the hosts.",
    ),
    _row(
        "host-multi-tenant",
        _WARNING,
        "Anybody can get a name below an allowed suffix.",
        "Name the hosts. Only well-known suffixes are recognised, not the whole Public Suffix "
        "List.",
    ),
    _row(
        "default-allows",
        _WARNING,
        "What no entry names is allowed.",
        "Set default_action to block. A note where it is log.",
    ),
    _row(
        "allow-blocked",
        _WARNING,
        "What an entry allows is blocked by another.",
        "Block beats allow. Take one of them out.",
    ),
    _row(
        "allow-redundant",
        _NOTE,
        "An entry that allows is covered by another.",
        "Take the narrower one out, or the broader one if it is not meant.",
    ),
    _row(
        "block-redundant",
        _NOTE,
        "An entry that blocks is covered by another.",
        "Take the narrower one out.",
    ),
    _row(
        "path-redundant",
        _NOTE,
        "A path pattern is covered by another of its list.",
        "Take the narrower one out.",
    ),
    _row(
        "path-allow-forbidden",
        _WARNING,
        "What path_allowlist allows is forbidden by forbidden_path.",
        "Both must agree before a file is touched. Take one of them out, or add an exception.",
    ),
    _row(
        "path-too-broad",
        _WARNING,
        "A path pattern allows every file.",
        "Name the folders. forbidden_path still holds, and nothing else does.",
    ),
    _row(
        "exception-lifts-nothing",
        _WARNING,
        "An exception meets no forbidden pattern.",
        "It lifts nothing. Mend the pattern, or take the exception out.",
    ),
    _row(
        "exception-lifts-pattern",
        _WARNING,
        "An exception lifts all of a forbidden pattern.",
        "Nothing is left of the pattern. Narrow the exception, or take the pattern out.",
    ),
    _row(
        "entry-duplicate",
        _NOTE,
        "An entry stands twice in a list.",
        "Take one of them out.",
    ),
    _row(
        "tool-too-broad",
        _WARNING,
        "A tool rule allows every tool.",
        "Name the tools.",
    ),
    _row(
        "confirmation-dead",
        _NOTE,
        "A tool to be confirmed is blocked anyway.",
        "Block beats confirmation. Take one of them out.",
    ),
    _row(
        "secret-pattern-slow",
        _NOTE,
        "A secret pattern has no text that every match holds.",
        "It is looked for at every byte and may match what is no secret. Add a prefix that the "
        "secret has.",
    ),
    _row(
        "secret-pattern-broad",
        _WARNING,
        "A secret pattern matches ordinary text.",
        "It would refuse nearly everything that is sent.",
    ),
    _row(
        "secret-search-skipped",
        _WARNING,
        "No file is searched for secrets.",
        "Narrow skip_paths.",
    ),
    _row(
        "patch-pattern-broad",
        _WARNING,
        "A forbidden pattern matches any line.",
        "It would refuse every patch that adds one.",
    ),
    _row(
        "credential-unreachable",
        _WARNING,
        "A credential may go to a host that is not allowed.",
        "Allow the host, or take it out of the credential.",
    ),
    _row(
        "action-unreachable",
        _WARNING,
        "An action of secret_leak is for a host that is not allowed.",
        "Allow the host, or take it out of the action.",
    ),
    _row(
        "action-without-effect",
        _WARNING,
        "An action of secret_leak can never apply.",
        "What it is for is recorded anyway, or masked or recorded by another entry that is as "
        "mild. Take it out, or widen its severity.",
    ),
    _row(
        "guard-off",
        _NOTE,
        "A guard is switched off.",
        "What its section says is not asked. A warning for secret_leak and patch_integrity: "
        "what they look for passes.",
    ),
)

CHECKS: Final[Mapping[str, Check]] = {check.check_id: check for check in _ROWS}


def told(
    check_id: str,
    message: str,
    source: str,
    *related: Related,
    witness: Mapping[str, object] | None = None,
    level: FindingLevel | None = None,
) -> LintFinding:
    """Return a finding of a check, as bad as the table says unless ``level`` says otherwise."""
    return LintFinding(
        check=check_id,
        level=CHECKS[check_id].level if level is None else level,
        message=message,
        source=source,
        related=related,
        witness=witness,
    )
