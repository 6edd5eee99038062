"""Policy text to a checked ``Policy``, whole or not at all.

What the format knows and this version does not enforce is refused, with its line.
Nothing that is left out or empty allows anything: no section is no guard, no
``default_action`` is block, an empty ``allow`` allows nothing; ``enabled`` left out is
true. Pattern lists are checked here, so that a bad one is an error of the file and
not of an event.
"""

from __future__ import annotations

from dataclasses import replace

from aesp_proxy.decide.policy import schema
from aesp_proxy.decide.policy.document import Mapping, Scalar, at, parse_document
from aesp_proxy.decide.policy.globs import check_path_glob
from aesp_proxy.decide.policy.hosts import HostRule, parse_host_rule
from aesp_proxy.decide.policy.policy import (
    Credential,
    EgressSection,
    PathSection,
    Policy,
    SecretPattern,
    SecretSection,
    Settings,
    ToolSection,
)
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.decide.policy.table import Table
from aesp_proxy.decide.policy.tools import check_tool_rule
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Severity, Verdict

BUILT_IN_PATHS = (
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/sudoers",
    "/etc/sudoers.d/**",
    "/root/**",
    "**/.ssh/**",
    "**/.aws/**",
    "**/.gcloud/**",
    "**/.azure/**",
    "**/.gnupg/**",
    "**/.kube/**",
    "**/.vault/**",
    "**/secrets/**",
    "**/.docker/config.json",
    "**/.npmrc",
    "**/.pypirc",
    "**/.netrc",
    "**/.git-credentials",
    "**/*.pem",
    "**/*.key",
    "**/id_rsa*",
    "**/id_ed25519*",
    "**/id_ecdsa*",
    "**/.env",
    "**/.env.*",
    "**/terraform.tfstate*",
)
"""What ``forbidden_path`` forbids when it states no ``patterns``."""

_DEFAULT_VERDICTS = {"allow": Verdict.ALLOW, "log": Verdict.AUDIT, "block": Verdict.DENY}
_THRESHOLD = Severity.ERROR
_PATHS_MAX = 5_000
_CLASS_LETTERS = frozenset("sSdDwWbB.")


def load_policy(text: str, where: str) -> Policy:
    """Read a policy. ``where`` names the file in errors and sources; raises ``ConfigError``."""
    document = parse_document(text, where)
    version = _version(document, where)
    top = Table(document, schema.POLICY, path="", where=where)
    top.refuse_what_is_not_enforced()
    guards = top.table("guards")
    if guards is not None:
        guards.refuse_what_is_not_enforced()
    warnings: list[str] = []
    policy = Policy(
        where=where,
        version=version,
        name=_plain(top, "name"),
        description=_plain(top, "description"),
        egress=_egress(_section(guards, "egress_allowlist")),
        paths=_paths(_section(guards, "forbidden_path")),
        secrets=_secrets(guards, where, warnings),
        tools=_tools(_section(guards, "mcp_tool")),
        settings=_settings(top.table("settings"), warnings),
        warnings=(),
    )
    return _with_warnings(policy, warnings)


def _with_warnings(policy: Policy, warnings: list[str]) -> Policy:
    if policy.egress is None and policy.paths is None and policy.tools is None:
        warnings.append(f"{policy.where}: no guard is on, so every event is refused")
    if policy.paths is not None and not policy.paths.patterns:
        warnings.append(f"{policy.paths.source}: forbidden_path forbids nothing")
    return replace(policy, warnings=tuple(warnings))


def _version(document: Mapping, where: str) -> str:
    """Read the version before the keys: another version has other keys."""
    for key, value in document.entries:
        if key.text != "version" or not isinstance(value, Scalar):
            continue
        if value.text in schema.VERSIONS:
            return value.text
        if value.text == schema.HIERARCHY_VERSION:
            raise ConfigError(
                "version 1.0.0 is the hierarchy file (levels and override_rules), not a policy",
                where=at(where, value),
                remedy="give one of the policies that it names",
            )
        raise ConfigError(
            f"unsupported version {value.text[:40]!a}",
            where=at(where, value),
            remedy=f"this version reads {' and '.join(schema.VERSIONS)}",
        )
    raise ConfigError(
        "version is missing", where=at(where, document), remedy='begin with version: "1.2.0"'
    )


def _section(guards: Table | None, name: str) -> Table | None:
    """Return a guard's section when it is stated and on, its unenforced keys refused."""
    table = guards.table(name) if guards is not None else None
    if table is None or not table.flag("enabled", default=True):
        return None
    table.refuse_what_is_not_enforced()
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
    exceptions = table.texts("exceptions") or ()
    _check_paths(patterns)
    _check_paths(exceptions)
    return PathSection(source=table.source, patterns=patterns, exceptions=exceptions)


def _check_paths(items: tuple[Sourced[str], ...]) -> None:
    if len(items) > _PATHS_MAX:
        raise ConfigError(f"a list of more than {_PATHS_MAX} path patterns", where=items[0].where)
    for item in items:
        check_path_glob(item)


def _secrets(guards: Table | None, where: str, warnings: list[str]) -> SecretSection:
    """Read ``secret_leak``: the one guard that is on when nothing is said about it."""
    table = guards.table("secret_leak") if guards is not None else None
    if table is None:
        return _secrets_unstated(where, enabled=True)
    if not table.flag("enabled", default=True):
        return _secrets_unstated(table.source, enabled=False)
    table.refuse_what_is_not_enforced()
    if table.flag("redact", default=False):
        warnings.append(
            f"{table.where('redact')}: redact has no effect yet: a finding refuses the event"
        )
    skip_paths = table.texts("skip_paths") or ()
    _check_paths(skip_paths)
    threshold = table.text("severity_threshold")
    return SecretSection(
        source=table.source,
        enabled=True,
        severity_threshold=_severity(threshold, _THRESHOLD),
        patterns=_secret_patterns(table, warnings),
        skip_paths=skip_paths,
        credentials=tuple(_credential(entry) for entry in table.tables("credentials")),
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


def _secret_patterns(table: Table, warnings: list[str]) -> tuple[SecretPattern, ...]:
    names: dict[str, str] = {}
    patterns: list[SecretPattern] = []
    for entry in table.tables("patterns"):
        name, pattern = entry.text("name"), entry.text("pattern")
        if name is None or pattern is None:  # both are required by the schema
            continue
        if name.value in names:
            raise ConfigError(
                f"the pattern {name.value[:80]!a} stands twice (first at {names[name.value]})",
                where=name.where,
            )
        names[name.value] = name.source
        patterns.append(
            SecretPattern(
                name=name.value,
                pattern=_undoubled(pattern, entry.style("pattern"), warnings),
                severity=_severity(entry.text("severity"), Severity.CRITICAL),
                description=_plain(entry, "description"),
                luhn_check=entry.flag("luhn_check", default=False),
            )
        )
    return tuple(patterns)


def _undoubled(pattern: Sourced[str], style: str, warnings: list[str]) -> Sourced[str]:
    r"""Read ``'\\s'`` as ``\s``: policies are written as if single quotes had escapes.

    Only where every backslash is doubled and one stands before a class letter; in double
    quotes YAML has done it already.
    """
    text = pattern.value
    if style == "double" or "\\\\" not in text or "\\" in text.replace("\\\\", ""):
        return pattern
    after = text.split("\\\\")[1:]
    if not any(part[:1] in _CLASS_LETTERS for part in after if part):
        return pattern
    warnings.append(f"{pattern.where}: doubled backslashes in single quotes are read as single")
    return pattern.of(text.replace("\\\\", "\\"))


def _credential(entry: Table) -> Credential:
    rule = entry.text("rule")
    if rule is None or not rule.value:
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


def _tools(table: Table | None) -> ToolSection | None:
    if table is None:
        return None
    lists = {name: table.texts(name) or () for name in ("allow", "block", "require_confirmation")}
    for items in lists.values():
        for item in items:
            check_tool_rule(item)
    size = table.count("max_args_size")
    return ToolSection(
        source=table.source,
        allow_source=table.source_of("allow"),
        allow=lists["allow"],
        block=lists["block"],
        require_confirmation=lists["require_confirmation"],
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


def _severity(word: Sourced[str] | None, default: Severity) -> Severity:
    return default if word is None else Severity[word.value.upper()]


def _plain(table: Table, name: str) -> str:
    text = table.text(name)
    return "" if text is None else text.value
