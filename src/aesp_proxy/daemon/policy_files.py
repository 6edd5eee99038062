"""Policy and rule packs from disk to a snapshot; every failure is a ``ConfigError``.

The built-in files (``baseline.yaml`` and the packs under ``secrets/``) are data of the
package (``_policies``) when installed, and the repository's ``policies/`` when not.
Nothing is half loaded: a snapshot is whole or there is none.
"""

from __future__ import annotations

import os
import stat
from functools import lru_cache
from pathlib import Path

from aesp_proxy.daemon.policy_parents import BUILT_IN, PolicyParents
from aesp_proxy.daemon.rule_cache import compiled
from aesp_proxy.decide.policy.compiled_json import BYTES_MAX, from_json, is_compiled
from aesp_proxy.decide.policy.document import TEXT_BYTES_MAX
from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.decide.policy.policy import Policy
from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.rules import join_rules, parse_rules
from aesp_proxy.decide.snapshot import (
    Snapshot,
    build_snapshot,
    check_secrets,
    secret_rules,
)
from aesp_proxy.errors import ConfigError

_BASELINE = "baseline.yaml"
_HEAD_BYTES = 4096


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
    packs = read_packs()
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
    if policy.secrets.enabled and (policy.secrets.patterns or policy.secrets.credentials):
        check_secrets(policy, read_packs())


@lru_cache(maxsize=1)
def read_packs() -> tuple[Rule, ...]:
    """Read the secret rules that come with the package; they do not change while it runs."""
    folder = built_in_dir() / "secrets"
    packs = sorted(folder.glob("*.toml"))
    if not packs:
        raise ConfigError("no rule packs found", where=str(folder), remedy="reinstall the package")
    return join_rules(
        *(parse_rules(read_text(pack), str(pack), each_compiled=False) for pack in packs)
    )


def built_in_dir() -> Path:
    """Return the folder of policies and packs that come with the package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_policies", package.parents[1] / "policies"):
        if folder.is_dir():
            return folder
    raise ConfigError(
        "the policies of the package are missing",
        where=str(package / "_policies"),
        remedy="reinstall the package",
    )


def read_text(path: Path, *, compiled_bytes_max: int = TEXT_BYTES_MAX) -> str:
    """Read a file of at most 4 MiB as UTF-8 (a pipe may be one); ``ConfigError`` else.

    One that begins like a compiled policy may have ``compiled_bytes_max`` bytes.
    """
    where = str(path)
    data = _read_bytes(path, where, compiled_bytes_max)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError("not UTF-8", where=f"{where}:{line}") from None


def _read_bytes(path: Path, where: str, compiled_bytes_max: int) -> bytes:
    try:
        with path.open("rb") as file:
            if stat.S_ISBLK(os.fstat(file.fileno()).st_mode):
                raise ConfigError("not a file", where=where)
            data = file.read(TEXT_BYTES_MAX + 1)
            bytes_max = TEXT_BYTES_MAX
            if len(data) > bytes_max and is_compiled(data[:_HEAD_BYTES].decode("utf-8", "replace")):
                bytes_max = compiled_bytes_max
                data += file.read(bytes_max + 1 - len(data))
            if len(data) > bytes_max:
                raise ConfigError(f"larger than {bytes_max // 2**20} MiB", where=where)
            return data
    except FileNotFoundError:
        raise ConfigError("no such file", where=where, remedy="check the path") from None
    except IsADirectoryError:
        raise ConfigError("a directory, not a file", where=where, remedy="name the file") from None
    except PermissionError:
        raise ConfigError(
            "may not be read", where=where, remedy="give this user the right to read it"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path is not valid"
        raise ConfigError(f"cannot be read: {reason}", where=where) from None
