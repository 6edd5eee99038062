"""The guards, one module each; they do not know each other.

``GUARDS`` is the order they are asked in: of equally strict answers the first is told.
Each takes the policy and the scanner and returns its guard, or None where the policy
has no such section or has switched it off.
"""

from __future__ import annotations

from collections.abc import Callable

from aesp_proxy.decide.answer import Guard
from aesp_proxy.decide.guards.egress_allowlist import EgressAllowlist, egress_allowlist
from aesp_proxy.decide.guards.forbidden_path import forbidden_path
from aesp_proxy.decide.guards.mcp_tool import mcp_tool
from aesp_proxy.decide.guards.patch_integrity import patch_integrity
from aesp_proxy.decide.guards.path_allowlist import path_allowlist
from aesp_proxy.decide.guards.secret_leak import Scanner, secret_leak
from aesp_proxy.decide.policy.policy import Policy

__all__ = ["GUARDS", "EgressAllowlist", "Scanner", "build_guards"]


def _egress(policy: Policy, _scanner: Scanner | None) -> Guard | None:
    return None if policy.egress is None else egress_allowlist(policy.egress)


def _path(policy: Policy, _scanner: Scanner | None) -> Guard | None:
    return None if policy.paths is None else forbidden_path(policy.paths)


def _path_allow(policy: Policy, _scanner: Scanner | None) -> Guard | None:
    return None if policy.path_allow is None else path_allowlist(policy.path_allow)


def _tool(policy: Policy, _scanner: Scanner | None) -> Guard | None:
    return None if policy.tools is None else mcp_tool(policy.tools)


def _patch(policy: Policy, _scanner: Scanner | None) -> Guard | None:
    return None if policy.patch is None else patch_integrity(policy.patch)


def _secret(policy: Policy, scanner: Scanner | None) -> Guard | None:
    return None if scanner is None else secret_leak(policy.secrets, scanner)


GUARDS: tuple[Callable[[Policy, Scanner | None], Guard | None], ...] = (
    _egress,
    _path,
    _path_allow,
    _tool,
    _patch,
    _secret,
)


def build_guards(policy: Policy, scanner: Scanner | None) -> tuple[Guard, ...]:
    """Build the guards that a policy switches on, in the order of ``GUARDS``."""
    built = (build(policy, scanner) for build in GUARDS)
    return tuple(guard for guard in built if guard is not None)
