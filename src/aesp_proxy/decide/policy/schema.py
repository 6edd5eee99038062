"""Every key a policy may hold, its type, and whether this version enforces it.

One table, read by the loader (and later by the generator of the JSON Schema). A key
that the format knows and this version does not enforce is refused at load where it
would have an effect: a policy never promises what nobody does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

VERSIONS = ("1.1.0", "1.2.0")
HIERARCHY_VERSION = "1.0.0"

SEVERITIES = ("info", "warning", "error", "critical")
DEFAULT_ACTIONS = ("allow", "block", "log")


class Kind(Enum):
    """What a key holds."""

    FLAG = "true or false"
    TEXT = "a text"
    CHOICE = "one of a few words"
    COUNT = "a whole number"
    RATIO = "a number"
    TEXTS = "a list of texts"
    TABLE = "keys and values"
    TABLES = "a list of keys and values"
    ANY = "anything"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One key. ``not_enforced`` says why a value with effect is refused; empty: enforced."""

    kind: Kind
    choices: tuple[str, ...] = ()
    keys: Mapping[str, Field] = field(default_factory=dict)
    required: bool = False
    count_max: int = 2**53
    not_enforced: str = ""


_LATER = "is known, but not enforced by this version"
_NEEDS_PARENT = "changes what a parent policy says, and this version has no parents (extends)"


def _texts(*, not_enforced: str = "") -> Field:
    return Field(kind=Kind.TEXTS, not_enforced=not_enforced)


def _table(keys: Mapping[str, Field], *, not_enforced: str = "") -> Field:
    return Field(kind=Kind.TABLE, keys=keys, not_enforced=not_enforced)


_FLAG = Field(kind=Kind.FLAG)
_TEXT = Field(kind=Kind.TEXT)
_COUNT = Field(kind=Kind.COUNT)
_REQUIRED_TEXT = Field(kind=Kind.TEXT, required=True)
_ACTION = Field(kind=Kind.CHOICE, choices=DEFAULT_ACTIONS)
_SEVERITY = Field(kind=Kind.CHOICE, choices=SEVERITIES)
_PARENT_TEXTS = _texts(not_enforced=_NEEDS_PARENT)

SECRET_PATTERN = {
    "name": _REQUIRED_TEXT,
    "pattern": _REQUIRED_TEXT,
    "severity": _SEVERITY,
    "description": _TEXT,
    "luhn_check": _FLAG,
}

CREDENTIAL = {
    "rule": _REQUIRED_TEXT,
    "hosts": Field(kind=Kind.TEXTS, required=True),
    "headers": Field(kind=Kind.TEXTS, required=True),
}

RULE = {
    "policy_id": _TEXT,
    "version": _TEXT,
    "description": _TEXT,
    "applies_to": _texts(),
    "enabled": _FLAG,
    "rule": _table(
        {
            "condition": _TEXT,
            "effect": Field(kind=Kind.CHOICE, choices=("ALLOW", "DENY", "AUDIT", "ASK")),
            "actions": _texts(),
            "parameters": Field(kind=Kind.ANY),
        }
    ),
}

GUARDS = {
    "forbidden_path": _table(
        {
            "enabled": _FLAG,
            "patterns": _texts(),
            "exceptions": _texts(),
            "additional_patterns": _PARENT_TEXTS,
            "remove_patterns": _PARENT_TEXTS,
        }
    ),
    "path_allowlist": _table(
        {
            "enabled": _FLAG,
            "file_access_allow": _texts(),
            "file_write_allow": _texts(),
            "patch_allow": _texts(),
        },
        not_enforced=_LATER,
    ),
    "egress_allowlist": _table(
        {
            "enabled": _FLAG,
            "allow": _texts(),
            "block": _texts(),
            "default_action": _ACTION,
            "additional_allow": _PARENT_TEXTS,
            "remove_allow": _PARENT_TEXTS,
            "additional_block": _PARENT_TEXTS,
            "remove_block": _PARENT_TEXTS,
        }
    ),
    "secret_leak": _table(
        {
            "enabled": _FLAG,
            "redact": _FLAG,
            "severity_threshold": _SEVERITY,
            "patterns": Field(kind=Kind.TABLES, keys=SECRET_PATTERN),
            "additional_patterns": Field(
                kind=Kind.TABLES, keys=SECRET_PATTERN, not_enforced=_NEEDS_PARENT
            ),
            "remove_patterns": _PARENT_TEXTS,
            "skip_paths": _texts(),
            "credentials": Field(kind=Kind.TABLES, keys=CREDENTIAL),
        }
    ),
    "patch_integrity": _table(
        {
            "enabled": _FLAG,
            "max_additions": _COUNT,
            "max_deletions": _COUNT,
            "require_balance": _FLAG,
            "max_imbalance_ratio": Field(kind=Kind.RATIO),
            "forbidden_patterns": _texts(),
        },
        not_enforced=_LATER,
    ),
    "mcp_tool": _table(
        {
            "enabled": _FLAG,
            "allow": _texts(),
            "block": _texts(),
            "require_confirmation": _texts(),
            "default_action": _ACTION,
            "max_args_size": _COUNT,
            "additional_allow": _PARENT_TEXTS,
            "remove_allow": _PARENT_TEXTS,
            "additional_block": _PARENT_TEXTS,
            "remove_block": _PARENT_TEXTS,
        }
    ),
}

SETTINGS = {
    "fail_fast": _FLAG,
    "verbose_logging": _FLAG,
    "session_timeout_secs": Field(kind=Kind.COUNT, count_max=31_536_000),
}

POLICY = {
    "version": _REQUIRED_TEXT,
    "name": _TEXT,
    "description": _TEXT,
    "extends": Field(kind=Kind.TEXT, not_enforced=_LATER),
    "merge_strategy": Field(
        kind=Kind.CHOICE,
        choices=("replace", "merge", "deep_merge"),
        not_enforced=_NEEDS_PARENT,
    ),
    "guards": _table(GUARDS),
    "rules": Field(kind=Kind.TABLES, keys=RULE, not_enforced=_LATER),
    "settings": _table(SETTINGS),
    "locked": _texts(not_enforced=_LATER),
}
