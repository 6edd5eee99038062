"""Every key a policy may hold: its type, its entries, its law when files join.

One table, read by the loader, the merge, the levels and the generator of the JSON
Schema. A key that the format knows and nothing enforces is refused at load where it
would have an effect: a policy never promises what nobody does.
"""

from __future__ import annotations

from collections.abc import Mapping

from aesp_proxy.decide.policy.field import Field, Form, Kind, Law

VERSIONS = ("1.1.0", "1.2.0")
HIERARCHY_VERSION = "1.0.0"

SEVERITIES = ("info", "warning", "error", "critical")
# From the weakest to the strictest, as laws of order read them.
DEFAULT_ACTIONS = ("allow", "log", "block")
THRESHOLDS = ("critical", "error", "warning", "info")
STRATEGIES = ("replace", "merge", "deep_merge")
EFFECTS = ("ALLOW", "DENY", "AUDIT", "ASK")


def _list(form: Form, law: Law, text: str) -> Field:
    return Field(kind=Kind.TEXTS, form=form, law=law, text=text)


def _adds(of: str, form: Form) -> Field:
    return Field(
        kind=Kind.TEXTS, form=form, law=Law.ADDS, of=of, text=f"Entries added to {of} of above."
    )


def _removes(of: str, form: Form) -> Field:
    return Field(
        kind=Kind.TEXTS, form=form, law=Law.REMOVES, of=of, text=f"Entries taken out of {of}."
    )


def _changes(form: Form) -> dict[str, Field]:
    return {
        "additional_allow": _adds("allow", form),
        "remove_allow": _removes("allow", form),
        "additional_block": _adds("block", form),
        "remove_block": _removes("block", form),
    }


def _told(text: str, *, required: bool = False) -> Field:
    return Field(kind=Kind.TEXT, text=text, required=required)


def _section(text: str, keys: Mapping[str, Field]) -> Field:
    switch = Field(kind=Kind.FLAG, law=Law.SWITCH, default="true", text="Whether the guard is on.")
    return Field(kind=Kind.TABLE, law=Law.SECTION, text=text, keys={"enabled": switch, **keys})


def _most(text: str, default: str = "") -> Field:
    return Field(kind=Kind.COUNT, law=Law.LESS, text=text, default=default)


_DEFAULT_ACTION = Field(
    kind=Kind.CHOICE,
    law=Law.ORDER,
    choices=DEFAULT_ACTIONS,
    default="block",
    text="The answer for what no entry names.",
)

SECRET_PATTERN = {
    "name": _told("The name of the rule in findings.", required=True),
    "pattern": Field(kind=Kind.TEXT, required=True, form=Form.REGEX, text="What it looks like."),
    "severity": Field(
        kind=Kind.CHOICE, choices=SEVERITIES, default="critical", text="How bad a finding is."
    ),
    "description": _told("What kind of secret it is."),
    "luhn_check": Field(kind=Kind.FLAG, default="false", text="Digits must pass the Luhn check."),
    "keywords": Field(kind=Kind.TEXTS, text="One of them stands in the match or before it."),
    "entropy": Field(kind=Kind.RATIO, text="Bits a byte that the secret has more of."),
    "secret_group": Field(kind=Kind.COUNT, text="The capture that is the secret."),
    "validate": Field(kind=Kind.TEXTS, text="Checks that the secret passes, by name."),
    "invalid": Field(
        kind=Kind.CHOICE, choices=SEVERITIES, text="How bad one is that does not pass them."
    ),
}

CREDENTIAL = {
    "rule": _told("The id of a secret rule; * stands for characters of it.", required=True),
    "hosts": Field(kind=Kind.TEXTS, form=Form.HOST, required=True, text="Where it may go."),
    "headers": Field(kind=Kind.TEXTS, required=True, text="The headers that may hold it."),
}

UNSCANNABLE = ("record", "block")
REQUIRE = ("none", "enforce")
LEAK_ACTIONS = ("redact", "record")
LEAK_ACTION = {
    "rule": _told("The id of a secret rule; * stands for characters of it.", required=True),
    "action": Field(
        kind=Kind.CHOICE,
        choices=LEAK_ACTIONS,
        required=True,
        text="`redact`: masked in a body, and forwarded; `record`: forwarded as it is.",
    ),
    "severity": Field(
        kind=Kind.CHOICE,
        choices=THRESHOLDS,
        default="critical",
        text="The gravest severity it speaks of.",
    ),
    "hosts": Field(kind=Kind.TEXTS, form=Form.HOST, text="Where; everywhere when left out."),
}

RULE_BODY = {
    "condition": _told("A CEL expression; the rule matches where it is true.", required=True),
    "effect": Field(kind=Kind.CHOICE, choices=EFFECTS, required=True, text="What a match does."),
    "actions": Field(
        kind=Kind.TEXTS, form=Form.ACTION, text="Actions it speaks of; all when left out."
    ),
    "parameters": Field(kind=Kind.PAIRS, text="Names and texts, for the reader."),
}

RULE = {
    "policy_id": _told("The name of the rule in decisions.", required=True),
    "version": _told("The rule's own version."),
    "description": _told("What the rule is for."),
    "applies_to": Field(
        kind=Kind.TEXTS, form=Form.RESOURCE, text="Resources; every one when left out."
    ),
    "enabled": Field(kind=Kind.FLAG, default="true", text="Whether the rule is on."),
    "rule": Field(kind=Kind.TABLE, keys=RULE_BODY, required=True, text="The rule itself."),
}

_SECRET_PATTERNS = Field(
    kind=Kind.TABLES,
    law=Law.FORBIDS,
    keys=SECRET_PATTERN,
    entry="name",
    text="Kinds of secret of the policy's own, beside the built-in ones.",
)

GUARDS = {
    "forbidden_path": _section(
        "Paths that nobody may touch.",
        {
            "patterns": _list(Form.GLOB, Law.FORBIDS, "What is forbidden; else a built-in list."),
            "exceptions": _list(Form.GLOB, Law.EXCEPTS, "What is lifted out of the patterns."),
            "additional_patterns": _adds("patterns", Form.GLOB),
            "remove_patterns": _removes("patterns", Form.GLOB),
            "require": Field(
                kind=Kind.CHOICE,
                law=Law.ORDER,
                choices=REQUIRE,
                default="none",
                text="enforce: nothing runs where accesses to files cannot be decided.",
            ),
        },
    ),
    "path_allowlist": _section(
        "Paths that may be touched; every other one is refused.",
        {
            "file_access_allow": _list(Form.GLOB, Law.PERMITS, "What may be read."),
            "file_write_allow": _list(Form.GLOB, Law.PERMITS, "What may be written."),
            "patch_allow": Field(
                kind=Kind.TEXTS,
                form=Form.GLOB,
                law=Law.PERMITS,
                default="file_write_allow",
                text="What may be patched.",
            ),
        },
    ),
    "egress_allowlist": _section(
        "Hosts that may be connected to.",
        {
            "allow": _list(Form.HOST, Law.PERMITS, "Hosts that may be reached."),
            "block": _list(Form.HOST, Law.FORBIDS, "Hosts that may not, whatever allows them."),
            "default_action": _DEFAULT_ACTION,
            **_changes(Form.HOST),
        },
    ),
    "secret_leak": _section(
        "Secrets that may not leave. On when nothing is said about it.",
        {
            "redact": Field(
                kind=Kind.FLAG,
                law=Law.OFF,
                default="false",
                text="Mask what a body holds, and forward it.",
            ),
            "severity_threshold": Field(
                kind=Kind.CHOICE,
                law=Law.ORDER,
                choices=THRESHOLDS,
                default="error",
                text="The lowest severity that refuses.",
            ),
            "unscannable": Field(
                kind=Kind.CHOICE,
                law=Law.ORDER,
                choices=UNSCANNABLE,
                default="block",
                text="What becomes of what cannot be looked through.",
            ),
            "packs": _list(Form.PACK, Law.FORBIDS, "Optional packs of kinds that are looked for."),
            "additional_packs": _adds("packs", Form.PACK),
            "remove_packs": _removes("packs", Form.PACK),
            "patterns": _SECRET_PATTERNS,
            "additional_patterns": Field(
                kind=Kind.TABLES,
                law=Law.ADDS,
                keys=SECRET_PATTERN,
                of="patterns",
                text="Entries added to patterns of above.",
            ),
            "remove_patterns": _removes("patterns", Form.FREE),
            "skip_paths": _list(Form.GLOB, Law.EXCEPTS, "Files that are not searched."),
            "credentials": Field(
                kind=Kind.TABLES,
                law=Law.EXCEPTS,
                keys=CREDENTIAL,
                text="Secrets that may go home.",
            ),
            "actions": Field(
                kind=Kind.TABLES,
                law=Law.EXCEPTS,
                keys=LEAK_ACTION,
                text="Findings that do not refuse: masked, or recorded only.",
            ),
        },
    ),
    "patch_integrity": _section(
        "What a patch may do.",
        {
            "max_additions": _most("Lines that a patch may add.", "1000"),
            "max_deletions": _most("Lines that a patch may delete.", "500"),
            "require_balance": Field(
                kind=Kind.FLAG, law=Law.ON, default="false", text="Hold it to the ratio below."
            ),
            "max_imbalance_ratio": Field(
                kind=Kind.RATIO,
                law=Law.LESS,
                default="10.0",
                text="The more of added and deleted lines over the less of them.",
            ),
            "forbidden_patterns": _list(Form.REGEX, Law.FORBIDS, "What no added line may match."),
        },
    ),
    "mcp_tool": _section(
        "Tools that may be called.",
        {
            "allow": _list(Form.TOOL, Law.PERMITS, "Tools that may be called."),
            "block": _list(Form.TOOL, Law.FORBIDS, "Tools that may not, whatever allows them."),
            "require_confirmation": _list(Form.TOOL, Law.FORBIDS, "Tools that a person confirms."),
            "default_action": _DEFAULT_ACTION,
            "max_args_size": _most("Bytes of arguments that a call may have."),
            **_changes(Form.TOOL),
        },
    ),
}

SETTINGS = {
    "fail_fast": Field(
        kind=Kind.FLAG, law=Law.EITHER, default="false", text="Stop at the first refusal."
    ),
    "verbose_logging": Field(
        kind=Kind.FLAG, law=Law.ON, default="false", text="No effect yet: everything is recorded."
    ),
    "session_timeout_secs": Field(
        kind=Kind.COUNT, law=Law.LESS, count_max=31_536_000, text="No effect yet."
    ),
}

POLICY = {
    "version": _told("The version of the format.", required=True),
    "name": _told("The name of the policy in decisions."),
    "description": _told("What the policy is for."),
    "extends": _told("The one parent: a path in the repository, or a policy that comes along."),
    "merge_strategy": Field(
        kind=Kind.CHOICE, choices=STRATEGIES, default="deep_merge", text="How it joins its parent."
    ),
    "guards": Field(kind=Kind.TABLE, law=Law.SECTION, keys=GUARDS, text="The guards."),
    "rules": Field(
        kind=Kind.TABLES, law=Law.RULES, keys=RULE, entry="policy_id", text="Rules in CEL."
    ),
    "settings": Field(kind=Kind.TABLE, law=Law.SECTION, keys=SETTINGS, text="Settings."),
    "locked": Field(
        kind=Kind.TEXTS,
        form=Form.KEY,
        law=Law.LOCKS,
        text="Keys that no file below may state: guards.secret_leak, rules.ID, ...",
    ),
}
