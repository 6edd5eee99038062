"""The policy that a command is about: a file, a compiled one, or a scope of a hierarchy."""

from __future__ import annotations

import os
from pathlib import Path

import click

from aesp_proxy.daemon.pack_files import packs_of
from aesp_proxy.daemon.policy_compile import VersionTime, compile_scope
from aesp_proxy.daemon.policy_files import read_policy
from aesp_proxy.daemon.policy_hierarchy import PolicyHierarchy
from aesp_proxy.daemon.rule_cache import compiled, shared_cache_dir
from aesp_proxy.decide.policy.policy import Policy
from aesp_proxy.decide.policy.scope import parse_scope
from aesp_proxy.decide.snapshot import Snapshot, build_snapshot, secret_rules

PATH = click.Path(path_type=Path)


def read_subject(policy_path: Path | None, root: Path | None, scope: str | None) -> Policy:
    """Read a policy file, or compile the policy of a scope; for neither the built-in baseline.

    Raises ``click.UsageError`` for both, ``ConfigError`` for a bad policy.
    """
    if policy_path is not None and root is not None:
        raise click.UsageError("give either a policy file or --root")
    if root is None:
        if scope is not None:
            raise click.UsageError("--scope goes with --root")
        return read_policy(policy_path)
    time = VersionTime(seconds=0, source="")
    return compile_scope(PolicyHierarchy(root), parse_scope(scope or ""), time=time).policy


def snapshot_with_secrets(policy: Policy) -> Snapshot:
    """Compile a policy with the secret scanner, if it is on."""
    packs = packs_of(policy)
    locator = compiled(secret_rules(policy, packs), shared_cache_dir()) if packs else None
    return build_snapshot(policy, packs, fingerprint_key=os.urandom(32), serial=1, locator=locator)


def level_of(source: str, policy: Policy) -> str:
    """Return the level of the file that a source names; empty where it is not known."""
    file = source.partition(" (")[0].rpartition(":")[0]
    return next((layer.level for layer in policy.layers if layer.path == file), "")
