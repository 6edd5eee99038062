"""What files joined say, as the typed policy that guards are built from.

Nothing that is left out or empty allows anything: no section is no guard, no
``default_action`` is block, an empty ``allow`` allows nothing; ``enabled`` left out is
true, and ``secret_leak`` is on when nothing is said about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from aesp_proxy.decide.policy import schema
from aesp_proxy.decide.policy.built_in import BUILT_IN_PATHS
from aesp_proxy.decide.policy.document import Mapping
from aesp_proxy.decide.policy.hosts import HostRule, parse_host_rule
from aesp_proxy.decide.policy.policy import (
    Credential,
    EgressSection,
    LeakAction,
    PatchSection,
    PathAllowSection,
    PathSection,
    Policy,
    SecretPattern,
    SecretSection,
    Settings,
    ToolSection,
)
from aesp_proxy.decide.policy.rule_items import rule_items
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.decide.policy.table import Table
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Severity, Verdict

_DEFAULT_VERDICTS: Final = {"allow": Verdict.ALLOW, "log": Verdict.AUDIT, "block": Verdict.DENY}
_THRESHOLD: Final = Severity.ERROR
_ADDITIONS_MAX: Final = 1_000
_DELETIONS_MAX: Final = 500
_IMBALANCE_RATIO_MAX: Final = 10.0


def policy_of(tree: Mapping, where: str, warnings: tuple[str, ...] = ()) -> Policy:
    """Return the policy that a joined tree means. ``where`` names it in decisions.

    The tree is checked again: it is what is enforced. Raises ``ConfigError``.
    """
    top = Table(tree, schema.POLICY, path="")
    guards = top.table("guards")
    told = list(warnings)
    version = top.text("version")
    policy = Policy(
        where=where,
        version="" if version is None else version.value,
        name=_plain(top, "name"),
        description=_plain(top, "description"),
        egress=_egress(_section(guards, "egress_allowlist")),
        paths=_paths(_section(guards, "forbidden_path")),
        path_allow=_path_allow(_section(guards, "path_allowlist")),
        secrets=_secrets(guards, where),
        patch=_patch(_section(guards, "patch_integrity")),
        tools=_tools(_section(guards, "mcp_tool")),
        rules=rule_items(top.tables("rules")),
        settings=_settings(top.table("settings"), told),
        warnings=(),
    )
    return _with_warnings(policy, told)


def _with_warnings(policy: Policy, warnings: list[str]) -> Policy:
    guards = (policy.egress, policy.paths, policy.path_allow, policy.tools)
    allows = any(rule.enabled and rule.effect == "ALLOW" for rule in policy.rules)
    if not allows and all(guard is None for guard in guards):
        warnings.append(f"{policy.where}: no guard is on, so every event is refused")
    if policy.paths is not None and not policy.paths.patterns:
        warnings.append(f"{policy.paths.source}: forbidden_path forbids nothing")
    return replace(policy, warnings=tuple(dict.fromkeys(warnings)))


def _section(guards: Table | None, name: str) -> Table | None:
    """Return a guard's section when it is stated and on."""
    table = guards.table(name) if guards is not None else None
    if table is None or not table.flag("enabled", default=True):
        return None
    return table


def _egress(table: Table | None) -> EgressSection | None:
    if table is None:
        return None
    return EgressSection(
        source=table.source,
        allow_source=table.source_of("allow"),
        allow=_hosts(table, "allow"),
        block=_hosts(table, "block"),
        default_verdict=_default(table),
    )


def _paths(table: Table | None) -> PathSection | None:
    if table is None:
        return None
    patterns = table.texts("patterns")
    if patterns is None:
        built_in = f"{table.source} (built-in patterns)"
        patterns = tuple(Sourced(text, built_in) for text in BUILT_IN_PATHS)
    return PathSection(
        source=table.source,
        patterns=patterns,
        exceptions=table.texts("exceptions") or (),
        requires=_is_word(table.text("require"), "enforce"),
    )


def _path_allow(table: Table | None) -> PathAllowSection | None:
    if table is None:
        return None
    write = table.texts("file_write_allow") or ()
    patch = table.texts("patch_allow")
    return PathAllowSection(
        source=table.source,
        access=table.texts("file_access_allow") or (),
        write=write,
        patch=write if patch is None else patch,
    )


def _patch(table: Table | None) -> PatchSection | None:
    if table is None:
        return None
    additions, deletions = table.count("max_additions"), table.count("max_deletions")
    ratio = table.ratio("max_imbalance_ratio")
    return PatchSection(
        source=table.source,
        additions_max=_ADDITIONS_MAX if additions is None else additions.value,
        deletions_max=_DELETIONS_MAX if deletions is None else deletions.value,
        require_balance=table.flag("require_balance", default=False),
        imbalance_ratio_max=_IMBALANCE_RATIO_MAX if ratio is None else ratio.value,
        forbidden_patterns=table.texts("forbidden_patterns") or (),
    )


def _secrets(guards: Table | None, where: str) -> SecretSection:
    """Read ``secret_leak``: the one guard that is on when nothing is said about it."""
    table = guards.table("secret_leak") if guards is not None else None
    if table is None:
        return _secrets_unstated(where, enabled=True)
    if not table.flag("enabled", default=True):
        return _secrets_unstated(table.source, enabled=False)
    return SecretSection(
        source=table.source,
        enabled=True,
        severity_threshold=_severity(table.text("severity_threshold"), _THRESHOLD),
        patterns=tuple(_secret_pattern(entry) for entry in table.tables("patterns")),
        skip_paths=table.texts("skip_paths") or (),
        credentials=tuple(_credential(entry) for entry in table.tables("credentials")),
        redact=table.flag("redact", default=False),
        records_unscannable=_is_word(table.text("unscannable"), "record"),
        actions=tuple(_leak_action(entry) for entry in table.tables("actions")),
        packs=table.texts("packs") or (),
    )


def _secrets_unstated(source: str, *, enabled: bool) -> SecretSection:
    return SecretSection(
        source=source,
        enabled=enabled,
        severity_threshold=_THRESHOLD,
        patterns=(),
        skip_paths=(),
        credentials=(),
    )


def _secret_pattern(entry: Table) -> SecretPattern:
    return SecretPattern(
        name=_plain(entry, "name"),
        pattern=_required(entry, "pattern"),
        severity=_severity(entry.text("severity"), Severity.CRITICAL),
        description=_plain(entry, "description"),
        limits=tuple(_limits(entry)),
    )


def _limits(entry: Table) -> Iterator[tuple[str, object]]:
    """Yield what else a match must be, by the keys of a rule."""
    keywords = entry.texts("keywords")
    if keywords:
        yield "keywords", tuple(word.value for word in keywords)
    entropy = entry.ratio("entropy")
    if entropy is not None:
        yield "entropy", entropy.value
    group = entry.count("secret_group")
    if group is not None:
        yield "secretGroup", group.value
    checks = tuple(check.value for check in entry.texts("validate") or ())
    if entry.flag("luhn_check", default=False):
        checks = (*checks, "luhn")
    if checks:
        yield "validate", checks
    invalid = entry.text("invalid")
    if invalid is not None:
        yield "invalid", invalid.value


def _credential(entry: Table) -> Credential:
    rule = _required(entry, "rule")
    if not rule.value:
        raise ConfigError(f"{entry.path}.rule is empty", where=entry.where("rule"))
    headers = entry.texts("headers") or ()
    for header in headers:
        name = header.value
        if not name or not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError(f"bad header name {name[:80]!a}", where=header.where)
    return Credential(
        rule=rule,
        hosts=_hosts(entry, "hosts"),
        headers=frozenset(header.value.lower() for header in headers),
    )


def _leak_action(entry: Table) -> LeakAction:
    rule = _required(entry, "rule")
    if not rule.value:
        raise ConfigError(f"{entry.path}.rule is empty", where=entry.where("rule"))
    action = _required(entry, "action")
    return LeakAction(
        rule=rule,
        verdict=Verdict.REDACT if action.value == "redact" else Verdict.AUDIT,
        severity_max=_severity(entry.text("severity"), Severity.CRITICAL),
        hosts=_hosts(entry, "hosts"),
    )


def _tools(table: Table | None) -> ToolSection | None:
    if table is None:
        return None
    size = table.count("max_args_size")
    return ToolSection(
        source=table.source,
        allow_source=table.source_of("allow"),
        allow=table.texts("allow") or (),
        block=table.texts("block") or (),
        require_confirmation=table.texts("require_confirmation") or (),
        default_verdict=_default(table),
        args_bytes_max=None if size is None else size.value,
    )


def _settings(table: Table | None, warnings: list[str]) -> Settings:
    if table is None:
        return Settings()
    timeout = table.count("session_timeout_secs")
    verbose = table.flag("verbose_logging", default=False)
    stated = {"session_timeout_secs": timeout is not None, "verbose_logging": verbose}
    warnings.extend(
        f"{table.where(name)}: settings.{name} has no effect yet"
        for name, wanted in stated.items()
        if wanted
    )
    return Settings(
        fail_fast=table.flag("fail_fast", default=False),
        verbose_logging=verbose,
        session_timeout_s=None if timeout is None else timeout.value,
    )


def _hosts(table: Table, name: str) -> tuple[HostRule, ...]:
    return tuple(parse_host_rule(item) for item in table.texts(name) or ())


def _default(table: Table) -> Verdict:
    action = table.text("default_action")
    return Verdict.DENY if action is None else _DEFAULT_VERDICTS[action.value]


def _is_word(text: Sourced[str] | None, word: str) -> bool:
    return text is not None and text.value == word


def _severity(word: Sourced[str] | None, default: Severity) -> Severity:
    return default if word is None else Severity[word.value.upper()]


def _required(table: Table, name: str) -> Sourced[str]:
    text = table.text(name)
    if text is None:  # the schema requires it
        raise ConfigError(f"{table.path}.{name} is missing", where=table.where(name))
    return text


def _plain(table: Table, name: str) -> str:
    text = table.text(name)
    return "" if text is None else text.value
