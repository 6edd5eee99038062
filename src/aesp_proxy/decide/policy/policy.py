"""What a policy says, typed: the value between the text and the guards.

Each item keeps its line. A section that is absent is None: no guard, so nothing answers
for that kind of event and it is refused. ``canonical`` is the meaning without
positions, comments and order of keys; its SHA-256 is the policy's hash.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum

from aesp_proxy.decide.policy.hosts import HostRule
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.model.decision import Severity, Verdict
from aesp_proxy.model.grant import Grant


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressSection:
    """``default_verdict`` answers for a name no rule speaks of, on the web ports only.

    ``allow_source`` is where an entry would be added.
    """

    source: str
    allow_source: str
    allow: tuple[HostRule, ...]
    block: tuple[HostRule, ...]
    default_verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class PathSection:
    """Globs that forbid and globs that except.

    ``requires`` is whether nothing may run where accesses to files cannot be decided.
    """

    source: str
    patterns: tuple[Sourced[str], ...]
    exceptions: tuple[Sourced[str], ...]
    requires: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretPattern:
    """A kind of secret of the policy's own.

    ``limits`` are what a match must be beside its form, by the keys of ``rule_table``:
    keywords, entropy, secretGroup, validate, invalid; empty for none.
    """

    name: str
    pattern: Sourced[str]
    severity: Severity
    description: str
    limits: tuple[tuple[str, object], ...] = ()

    @property
    def shape(self) -> object:
        """What it finds, and how bad that is; two with one shape are the same."""
        return self.pattern.value, self.severity, self.limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A secret that may go home: this rule's finding, in these headers, to these hosts."""

    rule: Sourced[str]
    hosts: tuple[HostRule, ...]
    headers: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakAction:
    """What becomes of a finding of this rule, of at most this severity, to these hosts.

    ``verdict`` is redact or audit; no hosts are all.
    """

    rule: Sourced[str]
    verdict: Verdict
    severity_max: Severity
    hosts: tuple[HostRule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSection:
    """A finding of at least ``severity_threshold`` refuses; one below is recorded.

    ``redact`` has it masked instead, where it can be; so do ``actions``, or have it recorded.
    What cannot be scanned refuses, or with ``records_unscannable`` is recorded.
    """

    source: str
    enabled: bool
    severity_threshold: Severity
    patterns: tuple[SecretPattern, ...]
    skip_paths: tuple[Sourced[str], ...]
    credentials: tuple[Credential, ...]
    redact: bool = False
    records_unscannable: bool = False
    actions: tuple[LeakAction, ...] = ()
    packs: tuple[Sourced[str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSection:
    """``args_bytes_max`` is None for no limit of its own.

    ``allow_source`` is where an entry would be added.
    """

    source: str
    allow_source: str
    allow: tuple[Sourced[str], ...]
    block: tuple[Sourced[str], ...]
    require_confirmation: tuple[Sourced[str], ...]
    default_verdict: Verdict
    args_bytes_max: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PathAllowSection:
    """Globs of paths that may be read, written, patched; what no glob names is refused."""

    source: str
    access: tuple[Sourced[str], ...]
    write: tuple[Sourced[str], ...]
    patch: tuple[Sourced[str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchSection:
    """Limits of one patch, lines and ratio, and RE2 patterns that an added line must not match."""

    source: str
    additions_max: int
    deletions_max: int
    require_balance: bool
    imbalance_ratio_max: float
    forbidden_patterns: tuple[Sourced[str], ...]


class Effect(StrEnum):
    """What a rule does when its condition holds. Only ALLOW may let pass what no entry allows."""

    ALLOW = "ALLOW"
    DENY = "DENY"
    AUDIT = "AUDIT"
    ASK = "ASK"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleItem:
    """One CEL rule as the policy states it (PolicyDefinition of the AESP specification).

    ``applies_to`` are resources (``egress:HOST``, ``file:GLOB``, ``tool:TOOL``, ``*``);
    ``actions`` the actions it speaks of. Empty means all, and is refused for ALLOW.
    """

    policy_id: Sourced[str]
    version: str
    description: str
    applies_to: tuple[Sourced[str], ...]
    enabled: bool
    condition: Sourced[str]
    effect: Effect
    actions: tuple[Sourced[str], ...]
    parameters: tuple[tuple[str, str], ...]

    @property
    def source(self) -> str:
        """FILE:LINE of the rule."""
        return self.policy_id.source


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A file that a policy is made of: its level (``policy`` for a file alone) and SHA-256."""

    level: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``fail_fast`` stops at the first refusal; the others wait for their feature."""

    fail_fast: bool = False
    verbose_logging: bool = False
    session_timeout_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One policy, checked. ``warnings`` are lines of FILE:LINE:COL and what has no effect yet.

    ``version`` is that of the format. A policy compiled from a hierarchy has a ``scope``
    and a ``stamp`` (``YYYYMMDDHHMMSS:HASH8``), and ``layers`` from the top down.
    """

    where: str
    version: str
    name: str
    description: str
    egress: EgressSection | None
    paths: PathSection | None
    secrets: SecretSection
    tools: ToolSection | None
    settings: Settings
    warnings: tuple[str, ...]
    path_allow: PathAllowSection | None = None
    patch: PatchSection | None = None
    rules: tuple[RuleItem, ...] = ()
    grants: tuple[Grant, ...] = ()
    layers: tuple[Layer, ...] = ()
    scope: tuple[tuple[str, str], ...] = ()
    stamp: str = ""

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical form, in hex."""
        return hashlib.sha256(canonical(self)).hexdigest()


def canonical(policy: Policy) -> bytes:
    """Return the meaning of a policy as JSON with sorted keys, UTF-8.

    The order of rules and entries is no meaning: the strictest answer wins.
    """
    form = {
        "version": policy.version,
        "name": policy.name,
        "description": policy.description,
        "egress_allowlist": _egress(policy.egress),
        "forbidden_path": _paths(policy.paths),
        "secret_leak": _secrets(policy.secrets),
        "mcp_tool": _tools(policy.tools),
        "path_allowlist": _path_allow(policy.path_allow),
        "patch_integrity": _patch(policy.patch),
        "rules": sorted((_rule(rule) for rule in policy.rules), key=_bytes),
        "grants": sorted((_grant(grant) for grant in policy.grants), key=_bytes),
        "settings": {
            "fail_fast": policy.settings.fail_fast,
            "verbose_logging": policy.settings.verbose_logging,
            "session_timeout_secs": policy.settings.session_timeout_s,
        },
    }
    return _bytes(form)


def _bytes(form: object) -> bytes:
    return json.dumps(form, sort_keys=True, separators=(",", ":")).encode("ascii")


def _egress(section: EgressSection | None) -> object:
    return section and {
        "allow": sorted(rule.text for rule in section.allow),
        "block": sorted(rule.text for rule in section.block),
        "default": section.default_verdict.value,
    }


def _paths(section: PathSection | None) -> object:
    return section and {
        "patterns": _sorted(section.patterns),
        "exceptions": _sorted(section.exceptions),
        **({"require": "enforce"} if section.requires else {}),
    }


def _path_allow(section: PathAllowSection | None) -> object:
    return section and {
        "access": _sorted(section.access),
        "write": _sorted(section.write),
        "patch": _sorted(section.patch),
    }


def _patch(section: PatchSection | None) -> object:
    return section and {
        "max_additions": section.additions_max,
        "max_deletions": section.deletions_max,
        "require_balance": section.require_balance,
        "max_imbalance_ratio": section.imbalance_ratio_max,
        "forbidden_patterns": _sorted(section.forbidden_patterns),
    }


def _rule(rule: RuleItem) -> object:
    return {"policy_id": rule.policy_id.value, "enabled": rule.enabled, **rule_meaning(rule)}


def rule_meaning(rule: RuleItem) -> dict[str, object]:
    """Return what a rule says, without its name, its texts and whether it is on."""
    return {
        "applies_to": _sorted(rule.applies_to),
        "condition": rule.condition.value,
        "effect": rule.effect.value,
        "actions": _sorted(rule.actions),
        "parameters": [list(pair) for pair in rule.parameters],
    }


def _grant(grant: Grant) -> object:
    return [grant.grant_id, grant.kind.value, grant.pattern, grant.from_ns, grant.until_ns]


def _secrets(section: SecretSection) -> object:
    return {
        "enabled": section.enabled,
        "severity_threshold": section.severity_threshold.word,
        "patterns": sorted(
            [p.name, p.pattern.value, p.severity.word, p.description, _limits(p)]
            for p in section.patterns
        ),
        **({"packs": _sorted(section.packs)} if section.packs else {}),
        "skip_paths": _sorted(section.skip_paths),
        "credentials": sorted(
            [c.rule.value, sorted(r.text for r in c.hosts), sorted(c.headers)]
            for c in section.credentials
        ),
        **({"redact": True} if section.redact else {}),
        **({"unscannable": "record"} if section.records_unscannable else {}),
        **({"actions": sorted(map(_action, section.actions))} if section.actions else {}),
    }


def _action(action: LeakAction) -> list[object]:
    hosts = sorted(rule.text for rule in action.hosts)
    return [action.rule.value, action.verdict.value, action.severity_max.word, hosts]


def _limits(pattern: SecretPattern) -> object:
    """Return the limits, in the form that policies had when a check digit was all of them."""
    if not pattern.limits:
        return False
    if pattern.limits == (("validate", ("luhn",)),):
        return True
    return [
        [key, list(value) if isinstance(value, tuple) else value] for key, value in pattern.limits
    ]


def _tools(section: ToolSection | None) -> object:
    return section and {
        "allow": _sorted(section.allow),
        "block": _sorted(section.block),
        "require_confirmation": _sorted(section.require_confirmation),
        "default": section.default_verdict.value,
        "max_args_size": section.args_bytes_max,
    }


def _sorted(items: tuple[Sourced[str], ...]) -> list[str]:
    return sorted(item.value for item in items)
