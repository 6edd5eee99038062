"""Policy and rule packs from disk to a snapshot; every failure is a ``ConfigError``.

The built-in files (``baseline.yaml`` and the packs under ``secrets/``) are data of the
package (``_policies``) when installed, and the repository's ``policies/`` when not.
Nothing is half loaded: a snapshot is whole or there is none.
"""

from __future__ import annotations

import os
from pathlib import Path

from aesp_proxy.daemon.pack_files import built_in_dir, packs_of
from aesp_proxy.daemon.policy_parents import BUILT_IN, PolicyParents
from aesp_proxy.daemon.rule_cache import compiled
from aesp_proxy.daemon.text_file import read_text_file
from aesp_proxy.decide.policy.compiled_json import BYTES_MAX, from_json, is_compiled
from aesp_proxy.decide.policy.document import TEXT_BYTES_MAX
from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.decide.policy.policy import Policy
from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.decide.snapshot import (
    Snapshot,
    build_snapshot,
    check_secrets,
    secret_rules,
)

_BASELINE = "baseline.yaml"


def load_snapshot(
    policy_path: Path | None,
    *,
    fingerprint_key: bytes,
    serial: int,
    cache_dir: Path | None = None,
    exact: ExactIndex | None = None,
) -> Snapshot:
    """Read a policy (None: the built-in baseline) and the packs, and compile them.

    ``fingerprint_key`` keys the fingerprints of findings, ``serial`` counts reloads.
    ``cache_dir`` keeps the compiled secret rules (0.4 s to make); without it nothing
    is kept. ``exact`` are registered values, looked for too.
    """
    return snapshot_of(
        read_policy(policy_path),
        fingerprint_key=fingerprint_key,
        serial=serial,
        cache_dir=cache_dir,
        exact=exact,
    )


def snapshot_of(
    policy: Policy,
    *,
    fingerprint_key: bytes,
    serial: int,
    cache_dir: Path | None = None,
    exact: ExactIndex | None = None,
) -> Snapshot:
    """Compile a policy that was read, with the packs; as ``load_snapshot``."""
    if not policy.secrets.enabled:
        return build_snapshot(policy, (), fingerprint_key=fingerprint_key, serial=serial)
    packs = packs_of(policy)
    return build_snapshot(
        policy,
        packs,
        fingerprint_key=fingerprint_key,
        serial=serial,
        locator=compiled(secret_rules(policy, packs), cache_dir),
        exact=exact,
    )


def read_policy(policy_path: Path | None) -> Policy:
    """Read and check a policy file with what it extends, or the built-in baseline.

    Parents are looked for beside the file, in the folder above, and among the policies
    that come along. A compiled policy is one too: its hash is checked.
    """
    path, where = located(policy_path)
    text = read_text(path, compiled_bytes_max=BYTES_MAX)
    if is_compiled(text):
        return from_json(text, where)
    return load_policy(text, where, lone_parents(path, where))


def located(policy_path: Path | None) -> tuple[Path, str]:
    """Return the file of a policy, the built-in baseline for None, and its name."""
    if policy_path is None:
        return built_in_dir() / _BASELINE, BUILT_IN + _BASELINE
    return policy_path, str(policy_path)


def lone_parents(path: Path, where: str, *, told_from: Path | None = None) -> PolicyParents:
    """Return the reader of what a single file extends.

    Parents are told as they are found, or relative to a folder.
    """
    above = path.parent / ".."

    def named(found: Path) -> str:
        return os.path.normpath(found if told_from is None else os.path.relpath(found, told_from))

    parents = PolicyParents(
        roots=(path.parent, above),
        inside=above,
        built_in=built_in_dir(),
        named=named,
        read=read_text,
    )
    parents.remember(path, where)
    return parents


def check_secret_rules(policy: Policy) -> None:
    """Check a policy's own kinds of secret as a snapshot would; ``ConfigError`` for a bad one."""
    section = policy.secrets
    if section.enabled and (section.patterns or section.credentials or section.actions):
        check_secrets(policy, packs_of(policy))
    elif section.enabled and section.packs:
        packs_of(policy)


def read_text(path: Path, *, compiled_bytes_max: int = TEXT_BYTES_MAX) -> str:
    """Read a file of at most 4 MiB as UTF-8 (a pipe may be one); ``ConfigError`` else.

    One that begins like a compiled policy may have ``compiled_bytes_max`` bytes.
    """

    def more(head: bytes) -> int:
        text = head.decode("utf-8", "replace")
        return compiled_bytes_max if is_compiled(text) else TEXT_BYTES_MAX

    return read_text_file(path, TEXT_BYTES_MAX, more)
