"""Everything a decision depends on, as one immutable value, swapped by one assignment.

``build_snapshot`` compiles a policy and the rule packs into guards and a scanner. It
fails whole (``ConfigError``) or gives a snapshot that can decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from aesp_proxy.decide.answer import Guard
from aesp_proxy.decide.grants import Grants
from aesp_proxy.decide.guards import EgressAllowlist, build_guards
from aesp_proxy.decide.policy.policy import Policy, SecretPattern, Settings
from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.decide.secrets.hyperscan import Locator
from aesp_proxy.decide.secrets.registered import RULE_PREFIX
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.rules import join_rules, rule_from_policy
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Severity

if TYPE_CHECKING:
    from aesp_proxy.decide.rules import Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What ``decide`` reads.

    ``scanner`` is None only where the policy switches ``secret_leak`` off; bodies are
    then not scanned. ``severity_threshold`` is the lowest severity of a finding that
    refuses. ``egress`` is the egress guard among ``guards``, for resolved addresses.
    """

    policy_name: str
    policy_version: str
    policy_hash: str
    policy_where: str
    serial: int
    guards: tuple[Guard, ...]
    egress: EgressAllowlist | None
    scanner: SecretScanner | None
    severity_threshold: Severity
    settings: Settings
    warnings: tuple[str, ...] = ()
    policy_stamp: str = ""
    rules: Rules | None = None
    grants: Grants | None = None


def secret_rules(policy: Policy, pack_rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """Return the rules the scanner runs: the packs' and the policy's own.

    Raises ``ConfigError`` for a bad pattern, or a name that a pack has taken already.
    """
    taken = {rule.id for rule in pack_rules}
    own = []
    for pattern in policy.secrets.patterns:
        if pattern.name in taken:
            raise ConfigError(
                f"the pattern {pattern.name!a} has the name of a built-in rule",
                where=pattern.pattern.where,
                remedy="give it a name of its own",
            )
        own.append(_own_rule(pattern))
    return join_rules(tuple(pack_rules), tuple(own))


def check_secrets(policy: Policy, pack_rules: Sequence[Rule]) -> None:
    """Check the policy's own patterns and its credentials; ``ConfigError`` for a bad one."""
    _check_credentials(policy, secret_rules(policy, pack_rules))


def build_snapshot(
    policy: Policy,
    pack_rules: Sequence[Rule],
    *,
    fingerprint_key: bytes,
    serial: int,
    locator: Locator | None = None,
    exact: ExactIndex | None = None,
) -> Snapshot:
    """Compile a policy into a snapshot.

    ``locator`` may hold the compiled secret rules, ``exact`` registered values.
    """
    scanner = None
    if policy.secrets.enabled:
        rules = secret_rules(policy, pack_rules)
        _check_credentials(policy, rules)
        scanner = SecretScanner(rules, fingerprint_key, locator, exact)
    guards = build_guards(policy, scanner)
    egress = next((guard for guard in guards if isinstance(guard, EgressAllowlist)), None)
    return Snapshot(
        policy_name=policy.name,
        policy_version=policy.version,
        policy_hash=policy.hash,
        policy_where=policy.where,
        policy_stamp=policy.stamp,
        serial=serial,
        guards=guards,
        egress=egress,
        scanner=scanner,
        severity_threshold=policy.secrets.severity_threshold,
        settings=policy.settings,
        warnings=policy.warnings,
        rules=_rules(policy),
        grants=Grants(policy.grants) if policy.grants else None,
    )


def _rules(policy: Policy) -> Rules | None:
    """Compile the rules; a policy without any starts without the compiler."""
    if not policy.rules:
        return None
    from aesp_proxy.decide.rules import Rules  # noqa: PLC0415

    return Rules(policy.rules)


def _check_credentials(policy: Policy, rules: Sequence[Rule]) -> None:
    """Refuse a credential or an action whose rule names no rule: a typing error must not hide."""
    secrets = policy.secrets
    credentials = [credential.rule for credential in secrets.credentials]
    for wanted in (*credentials, *(action.rule for action in secrets.actions)):
        if wanted.value.startswith(RULE_PREFIX):
            continue  # which values are registered is not known to a policy
        if not any(fnmatchcase(rule.id, wanted.value) for rule in rules):
            raise ConfigError(
                f"no secret rule is named {wanted.value[:80]!a}",
                where=wanted.where,
            )


def _own_rule(pattern: SecretPattern) -> Rule:
    return rule_from_policy(
        pattern.name,
        pattern.pattern.value,
        pattern.severity,
        pattern.description,
        more={
            key: list(value) if isinstance(value, tuple) else value for key, value in pattern.limits
        },
        where=pattern.pattern.where,
    )
